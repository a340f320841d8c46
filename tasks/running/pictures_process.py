"""The pictures of a run drawn beside everything else: in a process that outlives the command.

The command reads what only it can, the images behind the samples that the report shows, and hands
them on; the process reads the store, draws and writes to MLflow, at low priority and for a limited
time. It answers to nobody: what it leaves undone, MLflow's tags say, and the next command draws.

    ~/.epochal/pictures.log     what went wrong in such processes; each locks it until its end
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from epochal.data.errors import ConfigError, EpochalError, InputError
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.store.addresses import scheme_of
from epochal.data.store.open import open_store
from epochal.data.types import Frozen
from epochal.tasks.config.run import RunConfig
from epochal.tasks.private_files import private_file, private_folder
from epochal.tasks.report.samples import OVER_EPOCHS, SHEET_SAMPLES, SHEETS, view_samples
from epochal.tasks.report.tables import MAX_PICTURE_ROWS, RunTables
from epochal.tasks.run_data.sample_names import SampleNames
from epochal.tasks.running.run_pictures import log_pictures, pictures_identity
from epochal.tasks.runs.find_run import FoundRun, found_run
from epochal.tasks.runs.run_plans import RunPlan
from epochal.tasks.tracking.background import PICTURES_TAG
from epochal.tasks.tracking.connection import connect, tracking_home
from epochal.tasks.tracking.mlflow_run import TrackedRun

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.tasks.report.page.shown_run import Images

VARIABLE = "EPOCHAL_PICTURES"
HERE, BESIDE = "here", "beside"
BATCH_SYSTEMS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "KUBERNETES_SERVICE_HOST")
"""Variables of systems that end what a job leaves behind."""
NICENESS = 10
LIMIT_S = 900
"""How long the process may live: SIGALRM ends it."""
MAX_LOG_BYTES = 1 << 20


def draws_beside(store_url: str) -> bool:
    """Whether pictures are drawn in another process: where it outlives this one, or as asked.

    A store in memory is this process's alone. Raises ConfigError if `EPOCHAL_PICTURES` is neither
    `here` nor `beside`.
    """
    asked = os.environ.get(VARIABLE)
    if asked not in (None, HERE, BESIDE):
        raise ConfigError(
            f"{VARIABLE}: found {asked!r}; expected {HERE!r}, before the command ends, or "
            f"{BESIDE!r}, in a process that outlives it; correct it, or unset {VARIABLE}"
        )
    if scheme_of(store_url) == "memory":
        return False
    if asked is not None:
        return asked == BESIDE
    # The first process of a container, or one that the first has started, takes all with it.
    last = 1 in {os.getpid(), os.getppid()}
    return not last and not any(name in os.environ for name in BATCH_SYSTEMS)


@dataclass(frozen=True)
class RunPictures:
    """The pictures that the tracker of a run has drawn. images: as of `ShownRun`.

    beside: in another process, once the images are read here.
    """

    stages: StageStore
    plan: RunPlan
    config: RunConfig
    uri: str
    images: Images | str
    beside: bool

    def identity(self, records: Mapping[str, StageRecord]) -> str:
        """What they are of, as a digest."""
        return pictures_identity(self.plan, records)

    def deliver(
        self,
        run: TrackedRun,
        records: Mapping[str, StageRecord],
        *,
        may_write: Callable[[], None],
        here: bool,
    ) -> None:
        """Draws them, or starts the process that does, unless MLflow has them.

        Raises what MLflow raises, and OSError if no process can be started.
        """
        identity = self.identity(records)
        if run.tag(PICTURES_TAG) == identity:
            return
        recorded_run = found_run(self.plan, self.config, self.stages, dict(records))
        if here or not self.beside:
            log_pictures(
                run, recorded_run, identity=identity, images=self.images, may_write=may_write
            )
            return
        sheets, arrays = _read_sheets(recorded_run, self.images, may_write)
        job = _Job(
            store=self.stages.store.url,
            plan=self.plan,
            config=self.config,
            records=tuple(records.values()),
            uri=self.uri,
            mlflow_run_id=run.run_id,
            identity=identity,
            sheets=sheets,
        )
        may_write()
        _start(job, arrays)


class _Sheet(Frozen):
    """Samples of a contact sheet, whose images were read, or why not."""

    sample_ids: tuple[int, ...]
    problem: str | None = None


class _Job(Frozen):
    """What the process is told. sheets: or why there are no images."""

    store: str
    plan: RunPlan
    config: RunConfig
    records: tuple[StageRecord, ...]
    uri: str
    mlflow_run_id: str
    identity: str
    sheets: tuple[_Sheet, ...] | str


def _read_sheets(
    run: FoundRun, images: Images | str, may_write: Callable[[], None]
) -> tuple[tuple[_Sheet, ...] | str, list[npt.NDArray[np.float32]]]:
    """The sheets of the report, and the images of all of them in turn."""
    if isinstance(images, str):
        return images, []
    tables = RunTables.of_run(run)
    sheets, arrays = [], []
    for order in SHEETS:
        if order in OVER_EPOCHS and tables.picture_rows > MAX_PICTURE_ROWS:
            continue
        may_write()
        try:
            view = view_samples(
                run, order=order, count=SHEET_SAMPLES, tables=tables, names=SampleNames()
            )
        except EpochalError:  # the page says so in its place
            continue
        ids = tuple(sample["sample_id"] for sample in view.samples)
        may_write()
        try:
            read = images(ids)
        except EpochalError as error:
            sheets.append(_Sheet(sample_ids=ids, problem=str(error)))
        else:
            sheets.append(_Sheet(sample_ids=ids))
            arrays += read
    return tuple(sheets), arrays


def _start(job: _Job, arrays: Sequence[npt.NDArray[np.float32]]) -> None:
    from numpy.lib import format as npy

    # Addresses hold passwords: they go by a file without a name, which ends with the process.
    with tempfile.TemporaryFile(prefix="epochal-pictures-") as given, process_log() as log:
        given.write(job.model_dump_json().encode() + b"\n")
        for array in arrays:
            npy.write_array(given, array, allow_pickle=False)
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "epochal.tasks.running.pictures_process"],
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,  # the end of the terminal does not reach it
        )
    # If it ends before we do, we must wait for it: else its pid stays taken (a zombie).
    threading.Thread(target=process.wait, name="reaps-pictures", daemon=True).start()


@contextmanager
def process_log() -> Iterator[IO[bytes]]:
    """The log, locked together with others until all who have it open close it."""
    path = tracking_home() / "pictures.log"
    with ExitStack() as opened:
        try:
            private_folder(path.parent)
            log = opened.enter_context(private_file(path).open("ab"))
            fcntl.flock(log, fcntl.LOCK_SH)
            if log.tell() > MAX_LOG_BYTES:
                log.truncate(0)
        except OSError:  # no home to write in
            log = opened.enter_context(Path(os.devnull).open("ab"))
        yield log


def wait_until_drawn() -> None:
    """Returns when no process of this home draws."""
    with (tracking_home() / "pictures.log").open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)


def _received(given: IO[bytes]) -> tuple[_Job, Images | str]:
    from numpy.lib import format as npy

    job = _Job.model_validate_json(given.readline())
    if isinstance(job.sheets, str):
        return job, job.sheets
    read: dict[tuple[int, ...], Any] = {}
    for sheet in job.sheets:
        read[sheet.sample_ids] = sheet.problem or [
            npy.read_array(given, allow_pickle=False) for _ in sheet.sample_ids
        ]

    def images(sample_ids: Sequence[int]) -> Any:
        found = read.get(tuple(sample_ids), "they were not read for this page")
        if isinstance(found, str):
            raise InputError(found)
        return found

    return job, images


def main() -> None:
    """Draws what standard input tells of."""
    os.nice(NICENESS)
    signal.alarm(LIMIT_S)
    gc.disable()  # it lives for seconds, and imports a million objects
    job, images = _received(sys.stdin.buffer)
    stages = StageStore(open_store(job.store))
    client = connect(job.uri)
    run = TrackedRun(client, client.get_run(job.mlflow_run_id), may_write=lambda: None)
    records = {record.key: record for record in job.records}
    recorded_run = found_run(job.plan, job.config, stages, records)
    log_pictures(run, recorded_run, identity=job.identity, images=images)


if __name__ == "__main__":
    main()
    os._exit(0)  # nothing is left to do; taking apart what was imported takes half a second
