"""Tells a person of a run that ended badly, and of a spike in loss or gradient norm.

    PREFECT_API_URL=http://127.0.0.1:4200/api python examples/automations/tell.py WEBHOOK_URL

Makes two automations in Prefect, which its page lists under Automations; called again, it replaces
them. The server posts `{"text": …}`, as Slack, Mattermost and Google Chat take it.
"""

import sys
from contextlib import suppress

from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import EventTrigger, Posture

OF_TRAINING = {"prefect.resource.role": "flow", "prefect.resource.name": "train"}
FAILED = (
    '{% set said = flow_run.name ~ " " ~ flow_run.state.name ~ ": " ~ flow_run.state.message %}'
    '{"text": {{ (said ~ " " ~ flow_run|ui_url)|tojson }}}'
)
SPIKE = (
    '{% set said = event.payload.run ~ ", " ~ event.payload.text %}'
    '{"text": {{ (said ~ " " ~ flow_run|ui_url)|tojson }}}'
)
AUTOMATIONS = {
    # name: events, what they must be related to, what is posted
    "epochal: a run ended badly": (
        {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        OF_TRAINING,
        FAILED,
    ),
    "epochal: a spike": ({"epochal.spike"}, {}, SPIKE),
}


def main(url: str) -> None:
    """Makes the block that knows the address, and the automations that use it."""
    block_id = Webhook(method="POST", url=url).save("tell-of-runs", overwrite=True)
    for name, (events, related, payload) in AUTOMATIONS.items():
        with suppress(ValueError):  # there is none of this name
            Automation.read(name=name).delete()
        Automation(
            name=name,
            trigger=EventTrigger(
                expect=events,
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related=related,
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[CallWebhook(block_document_id=block_id, payload=payload)],
        ).create()
        sys.stdout.write(f"made: {name}\n")


if __name__ == "__main__":
    main(sys.argv[1])
