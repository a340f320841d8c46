"""The data map, the kept fraction and the report of a finished run, as files in MLflow.

They are drawn from the store's tables once a run is whole; a tag says from which.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.hashing import digest
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.early_stopping import needed_stages, stopped_after
from epochal.tasks.planning.keys import list_stages
from epochal.tasks.report.tables import MAX_PICTURE_ROWS, RunTables
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.run_plans import RunPlan
from epochal.tasks.tracking.mlflow_run import TrackedRun

if TYPE_CHECKING:
    from epochal.tasks.report.page import Images

PICTURES_TAG = "epochal.pictures"
PICTURES_VERSION = 1
"""Raised when the same run would get other pictures."""
DATA_MAP, KEPT, REPORT = "figures/data_map.png", "figures/kept.png", "report.html"


@dataclass(frozen=True)
class PicturesSource:
    """What pictures are of. images: as for `report_html`."""

    plan: RunPlan
    config: RunConfig
    images: Images | str

    def found(self, records: Mapping[str, StageRecord], stages: StageStore) -> FoundRun:
        """The run as commands find it in a store."""
        listed = tuple(list_stages(self.config, self.plan.facts()))
        own = dict(records)
        return FoundRun(
            store=stages.store,
            stage_store=stages,
            plan=self.plan,
            config=self.config,
            stages=needed_stages(self.config, listed, own),
            records=own,
            stopped_after=stopped_after(self.config, listed, own),
        )


def log_pictures(
    run: TrackedRun,
    records: Mapping[str, StageRecord],
    *,
    stages: StageStore,
    source: PicturesSource,
    may_write: Callable[[], None],
) -> None:
    """Writes the files, if those of the same tables are not there. Raises what MLflow raises.

    may_write: called between the pictures, too: drawing takes a while.
    """
    of = _identity(source, records)
    if run.tag(PICTURES_TAG) == of:
        return
    images = source.images

    def read(sample_ids: Sequence[int]) -> Any:
        may_write()
        assert not isinstance(images, str)
        return images(sample_ids)

    found = source.found(records, stages)
    for name, data in _pictures(found, images if isinstance(images, str) else read):
        may_write()
        with tempfile.TemporaryDirectory(prefix="epochal-pictures-") as scratch:
            path = Path(scratch) / name.rpartition("/")[2]
            path.write_bytes(data)
            run.client.log_artifact(run.run_id, str(path), name.rpartition("/")[0] or None)
    run.set_tags({PICTURES_TAG: of})


def _identity(source: PicturesSource, records: Mapping[str, StageRecord]) -> str:
    made = sorted(
        [one.key, *sorted(artifact.sha256 for artifact in one.artifacts.values())]
        for one in records.values()
    )
    body: Any = [PICTURES_VERSION, source.plan.reference, source.plan.config, made]
    return digest("mlflow-pictures", body)


def _pictures(found: FoundRun, images: Images | str) -> Iterator[tuple[str, bytes]]:
    from epochal.data.samples.scores import data_map
    from epochal.tasks.report.figures import data_map_png, kept_png
    from epochal.tasks.report.page import report_html

    tables = RunTables.of_run(found)
    light: dict[str, bytes] = {}
    if tables.picture_rows <= MAX_PICTURE_ROWS:
        scores = tables.scores
        if scores is not None and (on_map := data_map(scores)) is not None:
            light["data_map"] = data_map_png(on_map)
            yield DATA_MAP, light["data_map"]
    if (kept := tables.kept()) is not None:
        light["kept"] = kept_png(kept)
        yield KEPT, light["kept"]
    yield REPORT, report_html(found, images=images, tables=tables, light=light).encode()
