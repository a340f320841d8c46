"""The commands as functions, for scripts and notebooks: `import epochal` gives them.

Each returns what its command prints with `--json`, as a dict that a notebook shows as a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args

from epochal.data.errors import InputError
from epochal.flows import console
from epochal.flows.commands.plan import plan_object
from epochal.flows.commands.read import runs_object
from epochal.flows.commands.train import run_training
from epochal.flows.environment import prepare_environment
from epochal.flows.library.results import Result, threads_kept
from epochal.flows.library.sweeps import plan_sweep
from epochal.flows.progress import ProgressReporter
from epochal.tasks.config.load import load_config
from epochal.tasks.config.run import RunConfig
from epochal.tasks.runs.find_run import find_run, named_store, stored_runs
from epochal.tasks.runs.plan import make_plan
from epochal.tasks.runs.summary import EpochRow
from epochal.tasks.sweeps.members import is_sweep

Order = Literal["easiest", "hardest", "suspects", "forgotten"]


def train(config: RunConfig | Path | str, *, overrides: Sequence[str] = ()) -> Result:
    """Runs or resumes, as `epochal train` does: what the store has is not computed again.

    config: of `load_config`, or the path of a YAML file. overrides: `path=value` for fields of the
    file, as `--set` has them. Progress goes to standard error. Starts a Prefect server in the
    background where there is none.

    Gives `run`, `weights_sha256`, `metrics` of the last epoch, `stages`, `mlflow_run_id` and
    `mlflow_tracking_uri`; `to_pandas()` has a row for each epoch. Raises InputError before anything
    is computed, TrainingFailed, and Unavailable where the same call goes on.
    """
    prepare_environment()
    loaded = _loaded(config, overrides)
    inline = loaded.launch.kind == "inline"
    with threads_kept() if inline else nullcontext(), ProgressReporter(bar=not inline) as reporter:
        finished = run_training(loaded, reporter=reporter, given=f"{loaded.name}.yaml")
    return Result(
        finished.result,
        title=f"run {finished.reference}",
        rows=map(_epoch, finished.rows),
        lines=list(takewhile(bool, finished.where_to_look)),
        index="epoch",
    )


def plan(
    config: RunConfig | Path | str | Mapping[str, Any], *, overrides: Sequence[str] = ()
) -> Result:
    """What `train` or `sweep` would do, as `epochal plan` tells it. Starts nothing, reads no data.

    config: what `train` takes, or what `sweep` does. overrides: as theirs.

    Of a run it gives `run`, `done` and `would_run` as counts, `bitwise`, `data_not_read` and
    `stages`: a dict for each, with `stage`, `epoch`, `key`, `done` and `why`, the reasons where it
    is not done; `to_pandas()` has a row for each stage. Of a sweep it gives `runs`, a dict for each
    with `run`, `set`, `epochs` and `done`, `epochs` as counts, `seconds` that the rest costs or
    None, `runs_to_come` and `data_not_read`; `to_pandas()` has a row for each run. Raises
    InputError.
    """
    if isinstance(config, Mapping) or (isinstance(config, Path | str) and is_sweep(config)):
        return plan_sweep(config, overrides=overrides)
    values = plan_object(make_plan(_loaded(config, overrides)))
    unread = [f"{name}: data not yet read; train() reads it" for name in values["data_not_read"]]
    return Result(
        values,
        title=f"plan of {values['run']}: {values['done']} stages done, "
        f"{values['would_run']} would run",
        rows=values["stages"],
        lines=unread,
    )


def runs(store: Path | str) -> Result:
    """The runs of a store, as `epochal runs` lists them.

    store: its folder or address, or a config's path, which means the store of it.

    Gives `store` and `runs`, a dict for each with `metrics`, `epochs_done`, `weights_sha256` and
    from which it branched; `to_pandas()` has a row for each. Raises BadStore, NotFound.
    """
    opened = named_store(str(store))
    values = runs_object(opened, stored_runs(opened, notice=console.say_note))
    return Result(values, title=f"runs of {opened.url}", rows=map(_flat, values["runs"]))


def samples(
    run: Path | str, *, order: Order | None = None, count: int = 20, store: str | None = None
) -> Result:
    """What training saw of the samples of a run, as `epochal samples` shows it.

    run: its name (`name` or `name@2`), `STORE/name`, or the path of its config. order: highest
    confidence, highest loss, lowest mean margin, or most often right and then wrong first; none: by
    id. count: of samples, at least 1. store: where the run is; none: as the command looks for it.

    Gives `run`, `epoch`, `samples`, a dict of columns for each, and `tables`, the paths of every
    epoch's tables, which `pandas.read_parquet` takes; `to_pandas()` has a row for each sample.
    Raises NotFound, InputError.
    """
    from epochal.tasks.report.samples import view_samples
    from epochal.tasks.run_data.sample_names import sample_names

    if order is not None and order not in get_args(Order):
        raise InputError(f"order: found {order!r}; expected one of {', '.join(get_args(Order))}")
    if count < 1:
        raise InputError(f"count: found {count}; expected at least 1")
    found = find_run(str(run), store=store, notice=console.say_note)
    names = sample_names(found, notice=console.say_note)
    view = view_samples(found, order=order, count=count, names=names)
    return Result(
        view.as_object(),
        title=f"samples of {view.run}",
        rows=view.samples,
        lines=[view.caption, *view.notes],
        index="sample_id",
    )


def _loaded(config: RunConfig | Path | str, overrides: Sequence[str]) -> RunConfig:
    if not isinstance(config, RunConfig):
        return load_config(config, overrides=overrides)
    if overrides:
        raise InputError(
            f"overrides: {list(overrides)} are for the path of a config; this one is loaded: give "
            "them to load_config"
        )
    return config


def _flat(run: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in run.items() if name not in {"metrics", "weights_sha256"}}
    return {**rest, **run["metrics"], "weights_sha256": run["weights_sha256"]}


def _epoch(row: EpochRow) -> dict[str, float | bool | None]:
    """An epoch's line of the table, under the names of its metrics."""
    return {
        "epoch": row.epoch,
        "train/loss": row.loss,
        **{f"validation/{name}": value for name, value in row.metrics.items()},
        "gradients/norm": row.gradient_norm,
        "samples": row.trained,
        "kept_next": row.kept_next,
        "seconds": row.seconds,
        "cached": row.cached,
    }
