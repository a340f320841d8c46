"""`why`, `compare` and `query` as functions: `import epochal` gives them."""

from __future__ import annotations

from pathlib import Path

from epochal.data.errors import InputError
from epochal.flows import console
from epochal.flows.library.results import Result
from epochal.tasks.runs.find_run import find_run, named_store
from epochal.tasks.why.opened import Hook


def why(
    run: Path | str,
    *,
    update: int | None = None,
    epoch: int | None = None,
    replay: bool = False,
    hook: Hook | str | None = None,
    store: str | None = None,
) -> Result:
    """What an update was made of, as `epochal why` shows it.

    run: its name, `STORE/name`, or the path of its config, which a replay needs. update: from 1
    over the run; epoch: the update of it that stands out most; neither: the largest spike of the
    run. replay: computes it again in this process and compares every bit. hook: a function, or
    `module:function`, that is called there with (model, batch, output, at). store: where the run
    is; none: as the command looks for it.

    Gives `run`, `epoch`, `update`, `loss`, `rate`, `gradients`, `samples` in order of training,
    `before`, and with a replay `replayed`; `to_pandas()` has a row for each sample. Raises
    NotFound, InputError, and what the hook raises as TrainingFailed.
    """
    from epochal.tasks.run_data.sample_names import sample_names
    from epochal.tasks.why.replay import check_replay
    from epochal.tasks.why.replay import replay as compute_again
    from epochal.tasks.why.view import view_update

    if update is not None and epoch is not None:
        raise InputError(f"update: {update} names one update of the run; leave epoch out")
    if hook is not None and not replay:
        raise InputError("hook: it is called while an update is computed: add replay=True")
    found = find_run(str(run), store=store, notice=console.say_note)
    if replay:
        check_replay(found, hook=hook, update=update)
    view = view_update(
        found,
        update=update,
        epoch=epoch,
        names=lambda: sample_names(found, notice=console.say_note),
        notice=console.say_note,
    )
    values, lines = view.as_object(), [*view.notes]
    if replay:
        again = compute_again(found, view.update, hook=hook, notice=console.say_note)
        values |= again.as_object()
        lines += ["every bit is as it was"] if again.agrees else list(again.differs)
    norm, loss = values["gradients"]["norm"], values["loss"]
    return Result(
        values,
        title=f"{found.plan.reference}, update {view.update}, epoch {values['epoch']}: loss "
        f"{console.number(loss)}, gradient norm {console.number(norm)}",
        rows=[
            {name: value for name, value in one.items() if name != "earlier"}
            for one in view.samples
        ],
        lines=lines,
        index="sample_id",
    )


def compare(*runs: Path | str, store: str | None = None) -> Result:
    """What differs between two runs or more, as `epochal compare` shows it.

    runs: as `why` takes them. Gives `runs`, `differs` (path of the config → values), `code`,
    `shared_epochs`, `metrics`, `parting` and `epochs`, the curves; `to_pandas()` has a row for each
    field and metric. Raises NotFound, InputError.
    """
    from epochal.tasks.compare.compare import compare_runs

    found = [find_run(str(run), store=store, notice=console.say_note) for run in runs]
    comparison = compare_runs(found)
    rows = {**comparison.differs, **comparison.metrics}
    return Result(
        comparison.as_object(),
        title=f"{len(found)} runs, {comparison.shared_epochs} epochs shared by all",
        rows=[
            {"field": name, **dict(zip(comparison.names, values, strict=True))}
            for name, values in rows.items()
        ],
        index="field",
    )


def query(store: Path | str, sql: str) -> Result:
    """The rows that a SELECT gives over all runs of a store, as `epochal query` prints them.

    store: its address, or the path of a config that names it. sql: over the views `runs`, `epochs`,
    `updates`, `observations` and `samples`. Gives `columns` and `rows`, a dict for each;
    `to_pandas()` has them as a DataFrame. Raises InputError, CorruptObject.
    """
    from epochal.tasks.query.ask import OpenViews

    opened = OpenViews.of_store(named_store(str(store)), notice=console.say_note)
    answer = opened.ask(sql)
    rows = list(answer.objects())
    return Result(
        {"columns": list(answer.columns), "rows": rows}, title=f"{len(rows)} rows", rows=rows
    )
