"""`epochal audit`: stored epochs computed again, and compared by their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from epochal.data.errors import InputError, NotDeterministic
from epochal.flows import console
from epochal.flows.commands.options import AsJson, Debug, OfConfig, RunName, StoreOption
from epochal.flows.progress import ProgressReporter
from epochal.flows.terminal.style import BAD, GOOD
from epochal.flows.termination import told_of_termination
from epochal.tasks.runs.find_run import find_run

if TYPE_CHECKING:
    from rich.text import Text

    from epochal.tasks.audit.audit import Audit


SHOWN_PARTS = 10
"""Of a stage that differs: with another kernel it is all tensors."""


class _Told(ProgressReporter):
    """Shows the stages as they are computed, and nothing of what `train` would do."""

    def opening(self, text: str) -> None:
        """What is used and what is to run is no matter here."""


def _told(result: Audit) -> Iterator[Text | str]:
    """What differs and in what, and what could not be checked."""
    for one in result.differ:
        yield console.line(("✗", BAD), f" {one.stage.label}")
        yield from (f"    {text}" for text in one.what)
        yield from (f"      {part.text}" for part in one.parts[:SHOWN_PARTS])
        if len(one.parts) > SHOWN_PARTS:
            yield f"      and {len(one.parts) - SHOWN_PARTS} more: see --json"
    if result.unchecked:
        yield f"not checked: epochs {', '.join(map(str, result.unchecked))}"
    yield from _cost(result)


def _cost(result: Audit) -> Iterator[str]:
    """What the audit took, and what of the run is lost."""
    share = "" if result.share is None else f", of epochs that had {result.share:.1%} of its time"
    yield f"the audit took {console.seconds(result.seconds)} s{share}"
    if (lost := result.lost) is not None:
        spent = "" if lost.seconds is None else f": {console.seconds(lost.seconds)} s of work"
        epochs = f"{lost.epochs} stored epoch{'s' * (lost.epochs != 1)}"
        yield f"to be computed again: {epochs}, from epoch {lost.first} on{spent}"


def _meant(result: Audit) -> Iterator[str]:
    """What it means, and what to do."""
    damaged = sum(one.damaged for one in result.differ)
    if others := len(result.differ) - damaged:
        yield f"{others} stages came out otherwise than stored: " + (
            f"this machine is another one ({'; '.join(result.other_environment)})"
            if result.other_environment
            else "look for a machine that computes wrongly, or for random numbers, threads or "
            "files that follow from no seed"
        )
    if damaged:
        yield (
            f"{damaged} stages are damaged in the store: `epochal verify` looks through all of "
            "it, and `epochal train` computes them again"
        )


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

    RUN is the path of your config: no other code is ever run. Changes nothing in the store. Exit
    code 3 where something differs.
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
        for text in _told(result):
            console.out.print(text)
    if result.differ:
        raise NotDeterministic("; ".join(_meant(result)))
    if not as_json:
        console.out.print(
            console.line(("✓", GOOD), " every byte of what was checked is as it is stored")
        )
