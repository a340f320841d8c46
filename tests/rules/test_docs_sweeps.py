"""docs/sweeps.md: every field of a sweep is in its table, with its default."""

import pytest
from support.pages import DOCS, rows

from epochal.tasks.sweeps.config import (
    Distribution,
    HalvingConfig,
    OptunaConfig,
    RandomConfig,
    SweepConfig,
)

TABLE = {cells[0].strip("`"): cells for cells in rows(DOCS["sweeps.md"], "field")}
OF = {"random": RandomConfig, "optuna": OptunaConfig, "halving": HalvingConfig}


def test_every_field_of_a_sweep_is_documented_and_no_other():
    assert set(TABLE) == set(SweepConfig.model_fields)


@pytest.mark.parametrize(("field", "model"), OF.items())
def test_every_field_of_a_part_is_named_with_its_default(field, model):
    for name, one in model.model_fields.items():
        assert f"`{name}`" in TABLE[field][1], name
        if isinstance(one.default, int | float):
            assert f"{one.default:g}" in TABLE[field][1], name


def test_every_distribution_is_named():
    for name, one in Distribution.model_fields.items():
        assert f"`{one.alias or name}`" in DOCS["sweeps.md"]


def test_the_default_of_concurrency_and_of_by_is_as_written():
    assert TABLE["concurrency"][2] == str(SweepConfig.model_fields["concurrency"].default)
    assert TABLE["by"][2] == SweepConfig.model_fields["by"].default
