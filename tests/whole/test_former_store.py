"""What the version before has written is taken as it is: its store, its config, its models."""

import shutil
from pathlib import Path

import pytest
import yaml
from support.runs.bare_run import BareRun

from epochal.tasks.runs.find_run import find_run
from epochal.tasks.upkeep import find_garbage, verify_store

FORMER = Path(__file__).parent / "former_store"
WEIGHTS = "f10fd3f1ac523fbc3ad905f6c4fd0c1c93cade8a1bd89bedaa4d43afcf069722"
"""Digest of the last epoch's model, as that version printed it."""


@pytest.fixture
def former(tmp_path, home):
    """A copy of a run with all kinds of stage, as `epochal train run.yaml` left it then."""
    return shutil.copytree(FORMER, tmp_path / "former")


def test_its_run_is_read_as_it_is_and_none_of_it_is_damaged(former):
    run = find_run(f"{former}/store/former")
    assert run.is_whole
    assert run.plan.reference == "former@1"
    assert run.weights_sha256 == WEIGHTS
    assert len(run.stages) == 11
    assert verify_store(run.store).problems == ()


def test_its_config_still_names_it_and_gc_keeps_all_of_it(former):
    found = find_run(str(former / "run.yaml"))
    assert found.is_whole
    assert found.plan.reference == "former@1"
    assert not find_garbage(found.store).objects


def test_training_it_again_computes_it_under_other_keys_to_the_same_weights(former):
    """Keys hold the code by its syntax now, and stages have other versions."""
    run = BareRun(former / "run.yaml")()
    assert len(run.outcomes) == 11
    assert not any(outcome.cached for outcome in run.outcomes)
    assert run.weights == WEIGHTS
    before = find_run(f"{former}/store/former@1")
    assert before.is_whole
    assert before.weights_sha256 == WEIGHTS


def test_a_new_run_starts_from_its_weights(former):
    started = BareRun(former / "run.yaml", name="next", start="{from: 'former@1:1'}")
    assert started.session.start is not None


def test_a_model_in_mlflow_is_loaded_by_the_module_that_it_names(tmp_path):
    """An MLmodel that was delivered names `epochal.tasks.mlflow_model`."""
    from epochal.tasks import mlflow_model
    from epochal.tasks.tracking import model_folder

    assert mlflow_model._load_pyfunc is model_folder._load_pyfunc


def test_its_config_names_fields_that_have_other_names_now(former):
    assert "sampler" in yaml.safe_load((former / "run.yaml").read_text())
    assert BareRun(former / "run.yaml").view.config.batches.repeats == 2
