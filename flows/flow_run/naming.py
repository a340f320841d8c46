"""What a flow run is called in Prefect: told apart from others at a glance in a list of runs.

A name that a person has given stays. One that Prefect has made up for want of one gives way, first
to the run's own, and once the run is open to `digits@2 · epochs 16, 12 cached · lr=0.004`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from epochal.data.errors import EpochalError
from epochal.flows.flow_run.client import current_flow_run
from epochal.tasks.config.run import flatten
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.running.run import Run, prepared_run
from epochal.tasks.running.run_description import changes
from epochal.tasks.runs.explain import shown

MAX_NAME = 120
MAX_CHANGES = 3
# What Prefect's page fills into the form: a Greek letter, maybe with a number, and the name of a
# star: `alpha2-centauri`, `delta-cerberus`.
_OF_PAGE = re.compile(
    r"(alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|"
    r"sigma|tau|upsilon|phi|chi|psi|omega)[0-9]*(-[a-z0-9]+)+"
)
_OURS = re.compile(r"[^ ]+ · opening|[^ ]+@[0-9]+ · (epochs|updates) [0-9].*")


def is_made_up(name: str) -> bool:
    """Whether Prefect's server or its page has made the name up."""
    words = name.split("-")
    by_server = len(words) == 2 and all(word in _vocabulary() for word in words)  # noqa: PLR2004
    return by_server or _OF_PAGE.fullmatch(name) is not None


@cache
def _vocabulary() -> frozenset[str]:
    """The words of which a Prefect server makes names, `acrid-adder`."""
    from coolname.data import config

    parts: Any = config
    return frozenset(word for part in parts.values() for word in part.get("words", ()))


def first_name() -> str:
    """For Prefect, as it sets a flow up: the name that the run has, or the one of its config."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    name = str(context.flow_run.name)
    if not _gives_way(name):
        return name
    run = prepared_run()
    if run is not None:  # a command has opened it
        return speaking_name(run)
    # Its generation is not known before its data is.
    assert context.parameters is not None
    config: Any = context.parameters["config"]
    return f"{config.name} · opening"


def _gives_way(name: str) -> bool:
    """Whether nobody has given it: it is made up, or was written here, maybe at an earlier try."""
    return is_made_up(name) or _OURS.fullmatch(name) is not None


def name_opened(run: Run) -> None:
    """Inside a flow: its run gets tags and, unless somebody gave it one, the name of what it is.

    Its tasks get none: Prefect asks its server about each tag of each task before it starts.
    """
    from prefect.client.orchestration import get_client

    flow_run = current_flow_run()
    assert flow_run is not None
    name = speaking_name(run) if _gives_way(flow_run.name) else flow_run.name
    tags = list(dict.fromkeys([*flow_run.tags, *run_tags(run)]))
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=name, tags=tags)
    flow_run.name, flow_run.tags = name, tags


def speaking_name(run: Run) -> str:
    """`digits@2 · epochs 16, 12 cached · lr=0.004`: what it is, and what is special about it."""
    special = differences(run)
    parts = [run.plan.reference, _length(run.view), *special[:MAX_CHANGES]]
    if len(special) > MAX_CHANGES:
        parts.append(f"+{len(special) - MAX_CHANGES}")
    return " · ".join(parts)[:MAX_NAME]


def run_tags(run: Run) -> list[str]:
    """Tags of a flow run: Epochal's, the run's name, its generation, what it branched from."""
    plan = run.plan
    branched = [] if plan.branched_from is None else [f"branch of {plan.branched_from}"]
    return ["epochal", plan.run, plan.reference, *branched]


def _length(view: RunView) -> str:
    config = view.config
    trained = [stage for stage in view.stages if stage.kind == "train"]
    done = sum(view.is_done(stage) for stage in trained)
    text = f"epochs {config.epochs}"
    if config.max_updates is not None:
        text = f"updates {config.max_updates}"
    if done:
        text += ", all cached" if view.is_whole else f", {done} epochs cached"
    return text.replace(" epochs cached", " cached") if text.startswith("epochs") else text


def differences(run: Run) -> list[str]:
    """`lr=0.004` for each field that differs from the generation that this one branched from.

    Of one that branched from none: its rate.
    """
    try:
        found = [change.short for change in changes(run.session.store, run.plan)]
    except EpochalError:  # what it branched from is no longer there
        found = []
    rate = dict(flatten(run.plan.config)).get("optimizer.args.lr")
    return found or ([] if rate is None else [f"lr={shown(rate)}"])
