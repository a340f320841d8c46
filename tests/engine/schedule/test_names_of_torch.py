"""Who asks for a scheduler of torch is told the schedule in its place."""

import ast
import re

import pytest
import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from support.pages import DOCS, rows
from torch.optim import lr_scheduler, swa_utils

from epochal.engine.schedule.names_of_torch import WRITTEN, scheduler_class
from epochal.engine.schedule.schedule import ScheduleConfig, factor

TABLE = rows(DOCS["config.md"], "torch")
READ = TypeAdapter(ScheduleConfig).validate_python


def test_every_scheduler_of_torch_has_a_schedule_in_its_place_and_a_row_in_the_docs():
    names = {name for name in lr_scheduler.__all__ if name != "LRScheduler"}
    assert set(WRITTEN) == names | {"SWALR"}
    documented = {cells[0].strip("`").partition("(")[0] for cells in TABLE}
    assert documented == set(WRITTEN)


EPOCHS, BASE = 90, 0.1
EQUAL = [
    cells for cells in TABLE
    if cells[0].startswith(("`StepLR", "`MultiStep", "`Exponential", "`Cosine", "`Poly", "`Cyclic"))
    and "custom" not in cells[1]
]  # fmt: skip


@pytest.mark.parametrize(("torchs", "ours"), [cells[:2] for cells in EQUAL])
def test_the_schedule_of_a_row_has_torchs_rate_in_every_epoch(torchs, ours):
    name, arguments = torchs.strip("`").rstrip(")").split("(")
    options = dict(part.split("=") for part in re.split(r", (?=\w+=)", arguments))
    options = {key: ast.literal_eval(value) for key, value in options.items()}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE, momentum=0.9)
    scheduler = getattr(lr_scheduler, name)(optimizer, **options)
    schedule = READ(yaml.safe_load(ours.strip("`")))
    for epoch in range(EPOCHS):
        expected = optimizer.param_groups[0]["lr"]
        assert BASE * factor(schedule, epoch, epochs=EPOCHS) == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_most_rows_are_compared_with_torch():
    assert len(EQUAL) == 6


@pytest.mark.parametrize("given", [
    "StepLR",
    {"kind": "StepLR", "step_size": 3},
    {"kind": "step_lr"},
    {"target": "torch.optim.lr_scheduler:StepLR", "args": {"step_size": 3}},
    {"kind": "custom", "target": "torch.optim.lr_scheduler:StepLR"},
    {"target": "torch.optim.lr_scheduler.StepLR"},
])  # fmt: skip
def test_a_scheduler_is_refused_with_the_schedule_in_its_place(given):
    with pytest.raises(ValidationError) as error:
        READ(given)
    assert "StepLR is a scheduler of torch" in str(error.value)
    assert "{kind: step, size: STEP_SIZE, factor: GAMMA}" in str(error.value)


def test_a_target_of_the_users_may_have_a_name_of_torchs():
    assert READ({"kind": "custom", "target": "rates:StepLR"}).target == "rates:StepLR"


def test_a_class_is_known_by_what_it_comes_from():
    class Mine(lr_scheduler.StepLR):
        pass

    class Bare(lr_scheduler.LRScheduler):
        pass

    assert scheduler_class(Mine) == "StepLR"
    assert scheduler_class(Bare) == "LRScheduler"
    assert scheduler_class(lr_scheduler.ReduceLROnPlateau) == "ReduceLROnPlateau"
    assert scheduler_class(swa_utils.SWALR) == "SWALR"
    assert scheduler_class(torch.optim.SGD) is None
    assert scheduler_class(lambda t: t) is None
