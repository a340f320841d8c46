"""What a run's samples are called: names of classes and text ids of the store, paths of the data.

The paths are the data set's own, which is opened for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from epochal.data.errors import CorruptObject, EpochalError
from epochal.data.inspection.item_reader import BadSample
from epochal.data.inspection.told import path_of
from epochal.data.store.store import Store
from epochal.tasks.run_data.kept_tables import read_bad_samples, read_text_ids, table_path
from epochal.tasks.run_data.sample_images import open_images, positions_of
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.run_inputs import description_path, read_known
from epochal.tasks.runs.run_sources import DataField, data_fields

if TYPE_CHECKING:
    from epochal.data.inspection.dataset import DatasetInfo, OpenDataset

T = TypeVar("T")


@dataclass(frozen=True)
class SampleNames:
    """classes: by label. texts: sample id → the text that it is the hash of.

    data: the training data, opened, where its samples have paths. left_out: of each data set the
    samples that cannot be trained on, where they are left out.
    """

    classes: Sequence[str] = ()
    texts: Mapping[int, str] = field(default_factory=dict)
    data: OpenDataset | None = None
    left_out: Mapping[str, Sequence[BadSample]] = field(default_factory=dict)

    def class_of(self, label: int) -> str | None:
        """The name of a class, or None where it has none."""
        return self.classes[label] if 0 <= label < len(self.classes) else None

    def paths(self, sample_ids: Sequence[int]) -> list[str | None]:
        """The file of each sample, or None where it has none."""
        if self.data is None:
            return [None] * len(sample_ids)
        positions = positions_of(self.data, sample_ids).tolist()
        return [path_of(self.data.looked, position) for position in positions]


def stored_names(run: FoundRun, *, notice: Callable[[str], None]) -> SampleNames:
    """What the store knows: names of classes, text ids, samples that are left out; no paths.

    Runs no code of the user's. notice: is told if a table of them cannot be read.
    """
    left_out: dict[str, Sequence[BadSample]] = {}
    for name in data_fields(run.config):
        known = _known(run, name)
        if known is not None and known.bad is not None:
            what = f"the samples of {name} that are left out"
            if (bad := _read(run, known.bad, read_bad_samples, what, notice)) is not None:
                left_out[name] = bad
    known = _known(run, "train_data")
    if known is None:
        return SampleNames(left_out=left_out)
    names = SampleNames(classes=known.class_names or (), left_out=left_out)
    if known.text_ids is None:
        return names
    texts = _read(run, known.text_ids, read_text_ids, "the text ids of samples", notice)
    return names if texts is None else replace(names, texts=texts)


def _read(
    run: FoundRun,
    sha256: str,
    read: Callable[[Store, str], T],
    what: str,
    notice: Callable[[str], None],
) -> T | None:
    """What a kept table holds, or None, with a notice, where it cannot be read."""
    try:
        return read(run.store, sha256)
    except FileNotFoundError:
        notice(f"{what} are not shown: the next `train` keeps their table again")
    except CorruptObject as error:
        notice(
            f"{what} are not shown: {error}; delete {run.store.address(table_path(sha256))}, and "
            "the next `train` keeps their table again"
        )
    return None


def sample_names(run: FoundRun, *, notice: Callable[[str], None]) -> SampleNames:
    """The names of classes, and the data set that knows the paths.

    It is opened only where its samples have paths and the run was named by its config, since no
    code is run that a store names. notice: is told if it cannot be opened.
    """
    known, names = _known(run, "train_data"), stored_names(run, notice=notice)
    if known is None or not known.has_paths or run.own is None:
        return names
    try:
        return replace(names, data=open_images(run, notice=notice))
    except EpochalError as error:
        notice(f"the files of samples are not shown: {error}")
        return names


def _known(run: FoundRun, name: DataField) -> DatasetInfo | None:
    sources = run.plan.sources.get(name, {})
    try:
        path = description_path(run.config, name, sources=sources)
    except EpochalError:  # a file that the config declares is gone
        return None
    return read_known(run.store, path)
