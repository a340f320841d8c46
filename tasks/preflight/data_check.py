"""Checks a run's data sets and lists what is in them: reads as the start does, keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from epochal.data.errors import EpochalError, InputError, TrainingFailed, passes_through
from epochal.data.inspection.dataset import OpenDataset
from epochal.data.inspection.describe import HowToRead, LabelsOutside
from epochal.data.inspection.duplicates import Repeats, repeats_between, repeats_within
from epochal.data.inspection.item_reader import BadSample
from epochal.data.inspection.labels import rows_outside
from epochal.data.inspection.told import path_of
from epochal.data.traces import in_one_line, users_line
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_length import with_epochs
from epochal.tasks.preflight.forward_pass import check_before_start
from epochal.tasks.run_data.reading import read_alone
from epochal.tasks.run_data.run_data import (
    Told,
    check_same_classes,
    check_same_samples,
    tell_repeats,
)
from epochal.tasks.runs.run_sources import data_fields
from epochal.tasks.stages.score import SCORING_DATA
from epochal.tasks.user_code.components import Components, prepare_numerics
from epochal.tasks.user_code.failures import raised_by_users_code

R = TypeVar("R")

MAX_LISTED = 1000
"""Of classes, and of samples that come again, in each data set."""


@dataclass(frozen=True)
class DataCheck:
    """What was found. data: by field. notes: in words. refused: what the start would refuse."""

    data: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str]
    refused: Sequence[str]


class _Refused:
    """Collects what the start would refuse, each once. outside: labels that are no classes."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.outside: LabelsOutside | None = None

    def of(self, work: Callable[[], R]) -> R | None:
        """What `work` gives, or None if it raised what would be refused."""
        try:
            return work()
        except LabelsOutside as error:  # each sample is listed
            self.outside = error
            return None
        except (InputError, TrainingFailed) as error:
            text = str(error)
        except EpochalError:
            raise
        except BaseException as error:  # code that the config names may raise anything
            if passes_through(error) or not raised_by_users_code(error):
                raise
            text = f"code that the config names raised {in_one_line(error)}{users_line(error)}"
        if text not in self.texts:
            self.texts.append(text)
        return None


def check_data(
    config: RunConfig, *, progress: Callable[[str, int, int], None] = lambda *_: None
) -> DataCheck:
    """Reads every item of every data set, builds the model and tries it on the first samples.

    Samples that cannot be trained on are listed; all else is done without them. Writes nothing
    anywhere, and starts no server. progress: told how many items of a field were read, of how many.
    """
    refused = _Refused()
    notes: list[str] = []
    data: dict[str, OpenDataset] = {}
    for field in data_fields(config):
        how = HowToRead(
            keep_bad=True,
            any_form=config.loader.collate is not None or config.loader.batch_size == 1,
            progress=partial(progress, field),
            inputs=True,
        )
        opened = refused.of(partial(read_alone, config, field, how=how))
        if opened is not None:
            data[field] = opened
    train, scored = data.get("train_data"), data.get(SCORING_DATA)
    if train is not None and scored is not None:
        refused.of(lambda: check_same_samples(train, scored))
    components = None
    if train is not None and "validation_data" in data:
        validation = data["validation_data"]
        refused.of(lambda: check_same_classes(train, validation))
        tell_repeats(train, validation, notice=Told(notes.append))
        components = refused.of(lambda: _try(config, data))
        if refused.outside is not None:
            data = {name: _with_outside(one, refused.outside) for name, one in data.items()}
    ignored = None if components is None else components.loss.ignore_index
    return DataCheck(
        data={name: _listed(one, train=train, ignored=ignored) for name, one in data.items()},
        notes=notes,
        refused=refused.texts,
    )


def _try(config: RunConfig, data: Mapping[str, OpenDataset]) -> Components:
    device = prepare_numerics(config)
    whole = with_epochs(config, num_samples=data["train_data"].info.num_samples)
    return check_before_start(whole, data, device=device)


def _with_outside(data: OpenDataset, outside: LabelsOutside) -> OpenDataset:
    """Adds the samples to the bad ones whose labels are no classes of the model."""
    if data.labels_N is None:
        return data
    classes, ignored = outside.num_classes, outside.ignore_index
    rows = rows_outside(data.labels_N, num_classes=classes, ignore_index=ignored).tolist()
    bad = {one.position for one in data.bad}
    positions = [place for place in range(len(data.labels_N) + len(bad)) if place not in bad]
    found = [
        BadSample(
            positions[row],
            f"its label is {data.labels_N[row]}, but the model gives {classes} logits per sample; "
            f"expected labels from 0 to {classes - 1}",
            path_of(data.looked, row),
        )
        for row in rows
    ]
    return replace(data, bad=sorted([*data.bad, *found], key=lambda one: one.position))


def _listed(data: OpenDataset, *, train: OpenDataset | None, ignored: int | None) -> dict[str, Any]:
    labels_N, inputs_N = data.labels_N, data.inputs_N
    within = None
    if inputs_N is not None:
        found = repeats_within(inputs_N, labels_N)
        within = _samples(found, labels_N, labels_N)
    listed = {
        "samples": data.info.num_samples + data.info.num_bad,
        "bad": [
            {
                "sample_id": one.position,
                "path": one.path,
                "error": one.error,
            }
            for one in data.bad[:MAX_LISTED]
        ],
        "duplicates": None if within is None else within["count"],
        **_classes(data, ignored=ignored),
        "repeats": within,
    }
    if train is not None and data.field == "validation_data":
        shared = None
        if inputs_N is not None and train.inputs_N is not None:
            between = repeats_between(inputs_N, train.inputs_N)
            shared = _samples(between, labels_N, train.labels_N)
        listed["in_train_data"] = shared
    return listed


def _classes(data: OpenDataset, *, ignored: int | None) -> dict[str, Any]:
    if data.labels_N is None:
        return {"num_classes": None, "classes": None, "ignored": None}
    labels, counts = (one.tolist() for one in np.unique(data.labels_N, return_counts=True))
    names = data.info.class_names or ()
    count_of = dict(zip(labels, counts, strict=True))
    num_ignored = 0 if ignored is None else count_of.pop(ignored, 0)
    return {
        "num_classes": len(count_of),
        "classes": [
            {
                "label": label,
                "class": names[label] if 0 <= label < len(names) else None,
                "count": count,
            }
            for label, count in list(count_of.items())[:MAX_LISTED]
        ],
        "ignored": num_ignored,
    }


def _samples(
    found: Repeats,
    labels_N: npt.NDArray[np.int64] | None,
    others_M: npt.NDArray[np.int64] | None,
) -> dict[str, Any]:
    """Samples whose input came before, those first whose labels disagree."""
    positions_K, first_K, differ_K = found.positions_K, found.first_K, None
    if labels_N is not None and others_M is not None:
        differ_K = labels_N[positions_K] != others_M[first_K]
        order_K = np.argsort(~differ_K, kind="stable")
        positions_K, first_K = positions_K[order_K], first_K[order_K]
    listed = []
    for position, first in zip(
        positions_K[:MAX_LISTED].tolist(), first_K[:MAX_LISTED].tolist(), strict=True
    ):
        sample: dict[str, Any] = {"position": position, "first": first}
        if labels_N is not None and others_M is not None:
            sample["labels"] = [int(labels_N[position]), int(others_M[first])]
        listed.append(sample)
    return {
        "count": len(positions_K),
        "other_labels": None if differ_K is None else int(differ_K.sum()),
        "samples": listed,
    }
