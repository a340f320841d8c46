"""What the version before has written is taken as it is: its store, its config, its models."""

import shutil
from pathlib import Path

import pytest
import yaml
from support.runs.bare_run import BareRun

from epochal.tasks.runs.find_run import find_run
from epochal.tasks.upkeep import verify_store

FORMER = Path(__file__).parent / "former_store"
WEIGHTS = "f10fd3f1ac523fbc3ad905f6c4fd0c1c93cade8a1bd89bedaa4d43afcf069722"
"""Digest of the last epoch's model, as that version printed it."""


@pytest.fixture
def former(tmp_path, home):
    """A copy of a run with all kinds of stage, as `epochal train run.yaml` left it then."""
    return shutil.copytree(FORMER, tmp_path / "former")


def test_every_stage_of_it_is_done_and_none_is_damaged(former):
    run = BareRun(former / "run.yaml")()
    assert len(run.outcomes) == 11
    assert {outcome.stage.kind for outcome in run.outcomes} == {
        "initialise", "train", "validate", "score", "mine", "average", "validate_average",
    }  # fmt: skip
    assert all(outcome.cached for outcome in run.outcomes)
    assert run.weights == WEIGHTS
    assert verify_store(run.session.store).problems == ()


def test_its_plan_is_read_and_a_longer_run_goes_on_from_it(former):
    found = find_run(str(former / "run.yaml"))
    assert found.is_whole
    assert found.plan.reference == "former@1"
    longer = BareRun(former / "run.yaml", epochs=3)()
    computed = {(one.stage.kind, one.stage.epoch) for one in longer.outcomes if not one.cached}
    assert computed == {
        *((kind, 2) for kind in ("train", "validate", "score", "mine")),
        ("average", None), ("validate_average", None),
    }  # fmt: skip
    assert longer.plan.generation == 1


def test_a_model_in_mlflow_is_loaded_by_the_module_that_it_names(tmp_path):
    """An MLmodel that was delivered names `epochal.tasks.mlflow_model`."""
    from epochal.tasks import mlflow_model
    from epochal.tasks.tracking import model_folder

    assert mlflow_model._load_pyfunc is model_folder._load_pyfunc


def test_its_config_names_fields_that_have_other_names_now(former):
    assert "sampler" in yaml.safe_load((former / "run.yaml").read_text())
    assert BareRun(former / "run.yaml").view.config.batches.repeats == 2
