"""`epochal why`: from a point in a curve to the update behind it."""

from __future__ import annotations

from bdb import BdbQuit
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from epochal.data.errors import InputError, Interrupted, TrainingFailed
from epochal.flows import console
from epochal.flows.commands.options import (
    AsJson,
    OfConfig,
    RunName,
    StoreOption,
    show_all_frames,
)
from epochal.flows.terminal.style import may_move
from epochal.tasks.runs.find_run import find_run

if TYPE_CHECKING:
    from epochal.tasks.run_data.sample_names import SampleNames
    from epochal.tasks.why.replay import Replay
    from epochal.tasks.why.view import UpdateView

LargestSpike = Annotated[
    bool,
    typer.Option("--spike", help="The largest spike of loss or gradient norm; the default."),
]
Again = Annotated[
    bool,
    typer.Option("--replay", help="Compute it again, up to this update, and compare every bit."),
]
Stop = Annotated[
    bool,
    typer.Option(
        "--debug",
        callback=show_all_frames,
        help="With --replay: stop in Python's debugger (`breakpoint()`) before the update's step. "
        "On an error show all frames, not only those of your own files.",
    ),
]
SHOWN_SAMPLES = 12
SHOWN_GROUPS = 10
SHOWN_EARLIER = 3


def why(
    run: RunName,
    update: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="An update, counted from 1 over the whole run, as curves do."
        ),
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(metavar="EPOCH", min=0, help="The update of this epoch that stands out most."),
    ] = None,
    spike: LargestSpike = False,  # noqa: FBT002 - typer's way of a flag
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw its samples there as PNG, highest loss first."),
    ] = None,
    again: Again = False,  # noqa: FBT002 - typer's way of a flag
    hook: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="With --replay: call it with (model, batch, output, at) in that update.",
        ),
    ] = None,
    overrides: OfConfig = None,
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    debug: Stop = False,  # noqa: FBT002 - likewise
) -> None:
    """Show what an update was made of: its samples, gradients, rate, and what came before it.

    --replay computes it again from the nearest checkpoint, compares every bit, and opens it.
    """
    from epochal.tasks.report.contact_sheet import check_pictures
    from epochal.tasks.run_data.sample_names import sample_names
    from epochal.tasks.why.pictures import draw_update
    from epochal.tasks.why.replay import check_replay
    from epochal.tasks.why.view import view_update

    _check(update, epoch=epoch, spike=spike, hook=hook, again=again)
    if pictures is not None:
        check_pictures(pictures, count=None)
    found = find_run(run, store=store, overrides=overrides or (), notice=console.say_note)
    if again:
        check_replay(found, hook=hook, update=update)
    opened: list[SampleNames] = []

    def names() -> SampleNames:
        opened.append(sample_names(found, notice=console.say_note))
        return opened[0]

    view = view_update(found, update=update, epoch=epoch, names=names, notice=console.say_note)
    if pictures is not None:
        draw_update(view, pictures, notice=console.say_note, data=opened[0].data)
    if not as_json:
        _print(view)
        if pictures is not None:
            console.out.print(f"pictures  {pictures}")
    replayed = _replayed(view, hook=hook, debug=debug) if again else None
    if as_json:
        console.print_json(view.as_object() | ({} if replayed is None else replayed.as_object()))
    elif replayed is not None:
        _print_replay(replayed)
    if replayed is not None and not replayed.agrees:
        raise typer.Exit(TrainingFailed.exit_code)


def _check(
    update: int | None, *, epoch: int | None, spike: bool, hook: str | None, again: bool
) -> None:
    if update is not None and (epoch is not None or spike):
        raise InputError(
            f"--update {update}: it names one update of the run, "
            f"--{'spike' if spike else 'epoch'} looks for one; give one of them"
        )
    if hook is not None and not again:
        raise InputError(f"--hook {hook}: it is called while an update is computed: add --replay")


def _replayed(view: UpdateView, *, hook: str | None, debug: bool) -> Replay:
    """Computes the update again, with a bar, unless a debugger has the terminal."""
    from epochal.tasks.why.replay import replay

    with _bar(shown=not debug) as bar:
        task = bar.add_task("replay", total=None)
        try:
            return replay(
                view.run,
                view.update,
                hook=hook,
                debug=debug,
                notice=console.say_note,
                on_update=lambda done, count: bar.update(task, completed=done, total=count),
            )
        except BdbQuit:
            console.say_note("left in the debugger: nothing was compared")
            raise typer.Exit(Interrupted.exit_code) from None


def _bar(*, shown: bool) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=console.err,
        transient=True,
        disable=not (shown and may_move(console.err)),
    )


def _print_replay(replayed: Replay) -> None:
    over = f"{replayed.updates} updates" + (
        f" of {replayed.epochs} epochs" if replayed.epochs > 1 else ""
    )
    if replayed.agrees:
        console.out.print(
            f"replayed  {over} computed again: every loss, norm, rate and observation has the same "
            "bits"
        )
        return
    console.out.print(f"replayed  {over} computed again, and not all is as it was:")
    for text in replayed.differs:
        console.out.print(f"  {text}")
    if not replayed.other_environment:
        console.out.print(
            "the machine is as it was: look for code or data that has changed, or for random "
            "numbers, threads or files that follow from no seed"
        )


def _print(view: UpdateView) -> None:
    from epochal.tasks.why.view import rows_around

    body = view.body
    say = console.out.print
    say(
        console.line(
            (f"{view.run.plan.reference}  update {view.update}", "bold"),
            f"  epoch {body['epoch']}, its update {body['update_of_epoch']}{_of(body)}",
        )
    )
    if view.spike is not None:
        what = {"train/loss": "loss", "gradients/norm": "gradient norm"}[view.spike.of]
        kind = "spike" if view.spike.is_spike else "rise (no spike)"
        say(f"largest {kind}: {what} {view.spike.ratio:.3g} times the median of those before")
    say()
    for name, text in _numbers(view):
        say(f"{name:<9} {text}")
    groups = body["gradients"]["groups"]
    if groups:
        say()
        console.print_whole(_groups_table(groups, body["before"]["median"]["groups"]))
        _say_more(len(groups), SHOWN_GROUPS)
    if body["before"]["updates"]:
        say()
        console.print_whole(_before_table(view))
    say()
    console.print_whole(_samples_table(view.samples))
    _say_more(len(view.samples), SHOWN_SAMPLES)
    say()
    rows = rows_around(view.run, body["epoch"])
    console.print_whole(console.epochs_table(rows, title=""))
    for note in view.notes:
        say(note)


def _of(body: Mapping[str, Any]) -> str:
    count, committed = body["updates_in_epoch"], body.get("updates_committed")
    of = "" if count is None else f" of {count}"
    return of if committed is None else f"{of} (not done: {committed} are committed)"


def _say_more(count: int, shown: int) -> None:
    if count > shown:
        console.out.print(f"and {count - shown} more; --json has all")


def _numbers(view: UpdateView) -> list[tuple[str, str]]:
    """Name and text of each number of the update, with how it stands to those before."""
    body, median = view.body, view.body["before"]["median"]
    gradients, clip = body["gradients"], body["clip"]
    loss, norm = body["loss"], gradients["norm"]
    norm_text = f"{console.number(norm)}{_times(norm, median['norm'])}"
    if clip["clipped"]:
        by = " and ".join(
            f"gradients.clip_{name} {clip[name]:g}"
            for name in ("value", "norm")
            if clip[name] is not None
        )
        norm_text += f"; clipped to {console.number(gradients['norm_clipped'])} by {by}"
    elif clip["norm"] is not None or clip["value"] is not None:
        norm_text += "; not clipped"
    if gradients.get("skipped"):
        norm_text += "; the update was skipped: nothing was changed"
    rows = [
        ("loss", f"{console.number(loss)}{_times(loss, median['loss'])}"),
        *((f"  {name}", console.number(part)) for name, part in body.get("loss_parts", {}).items()),
        ("norm", norm_text),
        ("rate", console.number(body["rate"])),
        *((f"  {name}", console.number(rate)) for name, rate in body.get("rates", {}).items()),
    ]
    if "update_ratio" in gradients:
        rows.append(("ratio", f"{console.number(gradients['update_ratio'])} of the weights' norm"))
    if "scale" in gradients:
        rows.append(("scale", f"{console.number(gradients['scale'])} of the float16 loss"))
    return rows


def _times(value: float | None, median: float | None) -> str:
    if value is None or not median:
        return ""
    return f", {value / median:.3g} times the median before it"


def _groups_table(groups: Mapping[str, float | None], usual: Mapping[str, float]) -> Any:
    ranked = sorted(groups.items(), key=lambda one: -(one[1] or 0))[:SHOWN_GROUPS]
    rows = []
    for name, norm in ranked:
        median = usual.get(name)
        times = console.NOTHING if not median or norm is None else f"{norm / median:.3g}"
        rows.append([name, console.number(norm), console.number(median), times])
    return console.text_table(["gradients of", "norm", "median before", "times"], rows)


def _before_table(view: UpdateView) -> Any:
    body = view.body
    rows = [
        [
            f"{one['update']}" + ("" if one["in_this_epoch"] else " (epoch before)"),
            console.number(one["loss"]),
            console.number(one["norm"]),
            console.number(one["rate"]),
        ]
        for one in body["before"]["updates"]
    ]
    rows.append(
        [
            f"{view.update} (this one)",
            console.number(body["loss"]),
            console.number(body["gradients"]["norm"]),
            console.number(body["rate"]),
        ]
    )
    return console.text_table(["update", "loss", "norm", "rate"], rows)


def _samples_table(samples: Sequence[Mapping[str, Any]]) -> Any:
    """The samples of highest loss first."""
    ranked = sorted(samples, key=lambda one: -(one["loss"] if one["loss"] is not None else -1e300))
    shown = ranked[:SHOWN_SAMPLES]
    optional = {
        "name": lambda one: str(one.get("name", "")),
        "class": lambda one: str(one.get("class", "")),
        "weight": lambda one: console.number(one.get("weight")),
        "mixed with": _mixed,
        "repeat": lambda one: str(one.get("repeat", "")),
        "path": lambda one: str(one.get("path", "")),
    }
    has = {
        name: any(one.get(name.replace(" ", "_")) not in {None, ""} for one in shown)
        for name in optional
        if name not in {"weight", "mixed with"}
    }
    has["weight"] = any(one.get("weight", 1.0) != 1.0 for one in shown)
    has["mixed with"] = any(one.get("mixed_with") is not None for one in shown)
    columns: dict[str, Any] = {
        "sample": lambda one: str(one["sample_id"]),
        **{name: optional[name] for name in ("name",) if has[name]},
        **(
            {"class": optional["class"]}
            if has["class"]
            else {"label": lambda one: _text(one["label"])}
        ),
        "loss": lambda one: console.number(one["loss"]),
        "p_true": lambda one: console.number(one["p_true"], 3),
        "right": lambda one: {True: "yes", False: "no", None: console.NOTHING}[one["correct"]],
        "loss in epochs before": _earlier,
        **{
            name: optional[name] for name in ("weight", "mixed with", "repeat", "path") if has[name]
        },
    }
    rows = [[text(one) for text in columns.values()] for one in shown]
    return console.text_table(list(columns), rows)


def _text(value: Any) -> str:
    return console.NOTHING if value is None else str(value)


def _mixed(sample: Mapping[str, Any]) -> str:
    mixed = sample.get("mixed_with")
    if mixed is None:
        return console.NOTHING
    share = "" if mixed["share"] is None else f" {mixed['share']:.0%}"
    return f"{mixed['sample_id']}{share} {mixed['how']}"


def _earlier(sample: Mapping[str, Any]) -> str:
    told = sample["earlier"][-SHOWN_EARLIER:]
    return " · ".join(f"{one['epoch']}: {console.number(one['loss'], 3)}" for one in told)
