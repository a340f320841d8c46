"""`epochal audit`: stored epochs computed again, and compared by their bytes."""

from __future__ import annotations

from typing import Annotated

import typer

from epochal.data.errors import InputError, NotDeterministic
from epochal.flows import console
from epochal.flows.commands.options import AsJson, Debug, OfConfig, RunName, StoreOption
from epochal.flows.progress import ProgressReporter
from epochal.flows.terminal.style import BAD, GOOD
from epochal.flows.termination import told_of_termination
from epochal.tasks.runs.find_run import find_run


class _Told(ProgressReporter):
    """Shows the stages as they are computed, and nothing of what `train` would do."""

    def opening(self, text: str) -> None:
        """What is used and what is to run is no matter here."""


def audit(
    run: RunName,
    share: Annotated[
        float, typer.Option(metavar="X", help="The share of the epochs, above 0, at most 1.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Which epochs are drawn.")] = 0,
    overrides: OfConfig = None,
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Compute a share of the stored epochs again, here, and compare every byte of what they made.

    Changes nothing in the store. Exit code 3 where something differs.
    """
    if not 0 < share <= 1:
        raise InputError(f"--share {share:g}: expected a number above 0, at most 1; 0.01 is 1 %")
    from epochal.tasks.audit.audit import audit as compute_again

    found = find_run(run, store=store, overrides=overrides or (), notice=console.say_note)
    bar = found.own is not None and found.own.launch.kind != "inline"
    with told_of_termination(), _Told(bar=bar) as reporter:
        result = compute_again(found, share=share, seed=seed, reporter=reporter)
    if as_json:
        console.print_json({"run": found.plan.run, **result.as_object()})
    else:
        console.out.print(
            f"{found.plan.reference}: {len(result.epochs)} of {result.of} epochs computed again"
        )
        for one in result.differ:
            console.out.print(console.line(("✗", BAD), f" {one.stage.label}"))
            for text in one.what:
                console.out.print(f"    {text}")
        if result.unchecked:
            console.out.print(f"not checked: epochs {', '.join(map(str, result.unchecked))}")
    if result.differ:
        raise NotDeterministic(
            f"{len(result.differ)} stages came out otherwise than stored: "
            + (
                f"this machine is another one ({'; '.join(result.other_environment)})"
                if result.other_environment
                else "look for a machine that computes wrongly, or for random numbers, threads or "
                "files that follow from no seed"
            )
        )
    if not as_json:
        console.out.print(console.line(("✓", GOOD), " every byte is as it is stored"))
