"""What a run's samples are called: names of classes and text ids of the store, paths of the data.

The paths are the data set's own, which is opened for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from epochal.data.errors import CorruptObject, EpochalError
from epochal.data.inspection.names import path_of
from epochal.tasks.run_data.sample_images import open_images, positions_of
from epochal.tasks.run_data.text_ids import read_text_ids, text_ids_path
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.run_inputs import description_path, read_known

if TYPE_CHECKING:
    from epochal.data.inspection.dataset import DatasetInfo, OpenDataset


@dataclass(frozen=True)
class SampleNames:
    """classes: by label. texts: sample id → the text that it is the hash of.

    data: the training data, opened, where its samples have paths.
    """

    classes: Sequence[str] = ()
    texts: Mapping[int, str] = field(default_factory=dict)
    data: OpenDataset | None = None

    def class_of(self, label: int) -> str | None:
        """The name of a class, or None where it has none."""
        return self.classes[label] if 0 <= label < len(self.classes) else None

    def paths(self, sample_ids: Sequence[int]) -> list[str | None]:
        """The file of each sample, or None where it has none."""
        if self.data is None:
            return [None] * len(sample_ids)
        positions = positions_of(self.data, sample_ids).tolist()
        return [path_of(self.data.dataset, position) for position in positions]


def stored_names(run: FoundRun, *, notice: Callable[[str], None]) -> SampleNames:
    """What the store knows: names of classes and text ids, no paths. Runs no code of the user's.

    notice: is told if the text ids cannot be read.
    """
    known = _known(run)
    if known is None:
        return SampleNames()
    names = SampleNames(classes=known.class_names or ())
    if known.text_ids is None:
        return names
    try:
        return replace(names, texts=read_text_ids(run.store, known.text_ids))
    except FileNotFoundError:
        notice("the text ids of samples are not shown: the next `train` keeps their table again")
    except CorruptObject as error:
        notice(
            f"the text ids of samples are not shown: {error}; delete "
            f"{run.store.address(text_ids_path(known.text_ids))}, and the next `train` keeps "
            "their table again"
        )
    return names


def sample_names(run: FoundRun, *, notice: Callable[[str], None]) -> SampleNames:
    """The names of classes, and the data set that knows the paths.

    It is opened only where its samples have paths and the run was named by its config, since no
    code is run that a store names. notice: is told if it cannot be opened.
    """
    known, names = _known(run), stored_names(run, notice=notice)
    if known is None or not known.has_paths or run.own is None:
        return names
    try:
        return replace(names, data=open_images(run, notice=notice))
    except EpochalError as error:
        notice(f"the files of samples are not shown: {error}")
        return names


def _known(run: FoundRun) -> DatasetInfo | None:
    sources = run.plan.sources.get("train_data", {})
    data, folder = run.config.train_data, Path(run.config.folder)
    try:
        path = description_path(data, names=run.config.batch, sources=sources, folder=folder)
    except EpochalError:  # a file that the config declares is gone
        return None
    return read_known(run.store, path)
