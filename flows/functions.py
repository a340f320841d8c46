"""The commands as functions, for scripts and notebooks: `import epochal` gives them.

Each returns what its command prints with `--json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, get_args

from epochal.data.errors import InputError
from epochal.flows import console
from epochal.flows.commands.plan import plan_object
from epochal.flows.commands.train import run_training
from epochal.flows.environment import prepare_environment
from epochal.flows.progress import ProgressReporter
from epochal.tasks.config.load import load_config
from epochal.tasks.config.run import RunConfig
from epochal.tasks.runs.find_run import find_run
from epochal.tasks.runs.plan import make_plan

Order = Literal["easiest", "hardest", "suspects", "forgotten"]


def train(config: RunConfig | Path | str) -> dict[str, Any]:
    """Runs or resumes, as `epochal train` does: what the store has is not computed again.

    config: of `load_config`, or the path of a YAML file. Progress goes to standard error. Starts a
    Prefect server in the background where there is none.

    Gives `run`, `weights_sha256`, `metrics` of the last epoch, `stages`, `mlflow_run_id` and
    `mlflow_tracking_uri`. Raises InputError before anything is computed, TrainingFailed, and
    Unavailable where the same call goes on.
    """
    prepare_environment()
    loaded = _loaded(config)
    inline = loaded.launch.kind == "inline"
    with _threads_kept() if inline else nullcontext(), ProgressReporter(bar=not inline) as reporter:
        return run_training(loaded, reporter=reporter, given=f"{loaded.name}.yaml").result


def plan(config: RunConfig | Path | str) -> dict[str, Any]:
    """What `train` would do, as `epochal plan` tells it. Starts nothing, and reads no data.

    Gives `run`, `done` and `would_run` as counts, `bitwise`, `data_not_read` and `stages`: a dict
    for each, with `stage`, `epoch`, `key`, `done` and `why`, the reasons where it is not done.
    Raises InputError.
    """
    return plan_object(make_plan(_loaded(config)))


def samples(
    run: Path | str, *, order: Order | None = None, count: int = 20, store: str | None = None
) -> dict[str, Any]:
    """What training saw of the samples of a run, as `epochal samples` shows it.

    run: its name (`name` or `name@2`), `STORE/name`, or the path of its config. order: highest
    confidence, highest loss, lowest mean margin, or most often right and then wrong first; none: by
    id. count: of samples, at least 1. store: where the run is; none: as the command looks for it.

    Gives `run`, `epoch`, `samples`, a dict of columns for each, and `tables`, the paths of every
    epoch's tables. Raises NotFound, InputError.
    """
    from epochal.tasks.report.samples import view_samples
    from epochal.tasks.run_data.sample_names import sample_names

    if order is not None and order not in get_args(Order):
        raise InputError(f"order: found {order!r}; expected one of {', '.join(get_args(Order))}")
    if count < 1:
        raise InputError(f"count: found {count}; expected at least 1")
    found = find_run(str(run), store=store, notice=console.say_note)
    names = sample_names(found, notice=console.say_note)
    return view_samples(found, order=order, count=count, names=names).as_object()


def _loaded(config: RunConfig | Path | str) -> RunConfig:
    return config if isinstance(config, RunConfig) else load_config(config)


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Puts torch's number of threads back at the end: a config's `threads` is set for a process."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
