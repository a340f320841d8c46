"""A sweep as a function, and the plan of one: `import epochal` gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from epochal.flows.commands.sweep import epochs_line, failure_of, run_sweep
from epochal.flows.environment import prepare_environment
from epochal.flows.library.results import Result, threads_kept
from epochal.flows.sweeps.view import differing, leaves_of, plan_lines, shared_epochs
from epochal.tasks.sweeps.cost import cost_of, plan_of_sweep
from epochal.tasks.sweeps.members import load_sweep
from epochal.tasks.sweeps.work import SweepWork


class SweepResult(Result):
    """A sweep's `--json` as a dict, with the table of its runs, the best first."""

    best: str | None
    """The name of the best run; None where no run was validated."""


def sweep(
    config: Path | str | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    concurrency: int | None = None,
) -> SweepResult:
    """Trains the runs of a sweep or goes on with them, as `epochal sweep` does.

    Epochs that several runs share are trained once.

    config: the path of a sweep's file, or its fields as a dict, whose paths are relative to the
    working directory. overrides: `path=value` for the config of all runs, as `--set` has them.
    concurrency: runs at the same time; none: what the sweep says. Progress goes to standard error.

    Gives `runs`, a dict for each with `run`, `set`, `weights_sha256`, `metrics` and
    `mlflow_run_id`, `epochs` as counts, and the attribute `best`, the best run's name;
    `to_pandas()` has a row for each run, the best first, with the `key` of its last trained epoch.

    Raises InputError before anything is computed. Where runs have failed the others are trained
    first; then it raises TrainingFailed, or Unavailable where the same call goes on. What it would
    have given is the error's `result`, with `error` for each run that has failed.
    """
    prepare_environment()
    work = SweepWork.prepared(load_sweep(config, overrides=overrides, concurrency=concurrency))
    with threads_kept() if work.inline else nullcontext():
        values = run_sweep(work)
    result = _result(work, values)
    if (failure := failure_of(work)) is not None:
        failure.result = result
        raise failure
    return result


def plan_sweep(config: Path | str | Mapping[str, Any], *, overrides: Sequence[str] = ()) -> Result:
    """What `sweep` would do, as `epochal plan` tells it of a sweep's file. Starts nothing."""
    work = SweepWork.prepared(load_sweep(config, overrides=overrides))
    cost = cost_of(work.tree)
    values = plan_of_sweep(work.tree, cost, to_come=work.proposals_left)
    shared = shared_epochs(work)
    rows = [
        {
            "run": one["run"],
            "epochs": one["epochs"],
            "done": one["done"],
            "shared": shared[one["run"]],
            **leaves_of(one["set"]),
        }
        for one in values["runs"]
    ]
    return Result(
        values,
        title=f"plan of the sweep {work.sweep.name}",
        rows=rows,
        lines=plan_lines(work, cost),
        index="run",
    )


def _result(work: SweepWork, values: Mapping[str, Any]) -> SweepResult:
    result = SweepResult(
        values,
        title=f"sweep {work.sweep.name}, by {work.measure.metric}",
        rows=_rows(work, values),
        lines=[epochs_line(values)],
        index="run",
    )
    result.best = work.best
    return result


def _rows(work: SweepWork, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A run each, the best first: what it has of its own, how it went, its metrics."""
    fields = differing([run.member.set for run in work.tree.runs.values()])
    told = {one["run"]: one for one in values["runs"]}
    states = work.states
    for name in work.ranked:
        run, one = work.tree.runs[name], told[name]
        own = leaves_of(run.member.set)
        view = run.view
        trained = [one.key for one in view.needed if one.kind == "train" and view.is_done(one)]
        yield {
            "run": name,
            **{field: own.get(field) for field in fields},
            "state": states[name],
            **one["metrics"],
            "key": trained[-1] if trained else None,
            "weights_sha256": one["weights_sha256"],
            "mlflow_run_id": one["mlflow_run_id"],
            **({"error": one["error"]} if "error" in one else {}),
        }
