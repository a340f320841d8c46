"""The pictures and the report of a whole run, drawn and written into MLflow while they are due.

A command that ends well writes the tag `epochal.pictures_due`; who has drawn what it names writes
`epochal.pictures`. In between the run may go on, and be drawn by another process: it is looked at
again before each file, and nothing is written of what is due no more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.hashing import digest
from epochal.data.stage_store.stages import StageRecord
from epochal.tasks.report.tables import MAX_PICTURE_ROWS, RunTables
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.run_plans import RunPlan
from epochal.tasks.tracking.background import PICTURES_DUE_TAG, PICTURES_TAG
from epochal.tasks.tracking.connection import tracker_lock
from epochal.tasks.tracking.mlflow_run import FINISHED, TrackedRun

if TYPE_CHECKING:
    from epochal.tasks.report.page.shown_run import Images

PICTURES_VERSION = 4
"""Raised when the same run would get other pictures."""
DATA_MAP, KEPT, REPORT = "figures/data_map.png", "figures/kept.png", "report.html"
WRITING = "being written"


def pictures_identity(plan: RunPlan, records: Mapping[str, StageRecord]) -> str:
    """What pictures are of, as a digest: the same tables give the same ones."""
    made = sorted(
        [record.key, *sorted(artifact.sha256 for artifact in record.artifacts.values())]
        for record in records.values()
    )
    body: Any = [PICTURES_VERSION, plan.reference, plan.config, made]
    return digest("mlflow-pictures", body)


def log_pictures(
    run: TrackedRun,
    recorded_run: FoundRun,
    *,
    identity: str,
    images: Images | str,
    may_write: Callable[[], None] = lambda: None,
) -> None:
    """Draws the pictures and writes them to MLflow, unless it has them or they are due no more.

    images: as of `ShownRun`. may_write: called before each step, raises to stop. Raises what
    MLflow raises.
    """
    if not _is_due(run, identity):
        return

    def read(sample_ids: Sequence[int]) -> Any:
        may_write()
        assert not isinstance(images, str)
        return images(sample_ids)

    drawn = []
    for picture in _pictures(recorded_run, images if isinstance(images, str) else read):
        may_write()
        drawn.append(picture)
    # One process at a time, so that none that slept meanwhile writes over what is newer.
    with tracker_lock("pictures"):
        for name, data in drawn:
            may_write()
            if not _is_due(run, identity):
                return
            run.set_tags({PICTURES_TAG: WRITING})
            with tempfile.TemporaryDirectory(prefix="epochal-pictures-") as scratch:
                path = Path(scratch) / name.rpartition("/")[2]
                path.write_bytes(data)
                run.client.log_artifact(run.run_id, str(path), name.rpartition("/")[0] or None)
        lost = recorded_run.stage_store.lost
        if not lost:  # else tables are missing in them: the next command draws them again
            run.set_tags({PICTURES_TAG: identity})


def _is_due(run: TrackedRun, identity: str) -> bool:
    now = run.client.get_run(run.run_id)
    tags = now.data.tags
    return (
        now.info.lifecycle_stage == "active"
        and now.info.status == FINISHED
        and tags.get(PICTURES_DUE_TAG) == identity != tags.get(PICTURES_TAG)
    )


def _pictures(run: FoundRun, images: Images | str) -> Iterator[tuple[str, bytes]]:
    from epochal.data.samples.scores import data_map
    from epochal.tasks.report.figures import data_map_png, kept_png
    from epochal.tasks.report.page.shown_run import ShownRun
    from epochal.tasks.report.page.write import report_html

    tables = RunTables.of_run(run)
    if tables.picture_rows <= MAX_PICTURE_ROWS:
        scores = tables.scores
        if scores is not None and (on_map := data_map(scores)) is not None:
            yield DATA_MAP, data_map_png(on_map)
    if (kept := tables.kept()) is not None:
        yield KEPT, kept_png(kept)
    yield REPORT, report_html([ShownRun(run, images=images, tables=tables)]).encode()
