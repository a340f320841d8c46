"""launch.shard_model: the stages of a run have the bytes of one process that holds all."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment

from epochal.data.errors import TrainingFailed

SETS = {
    "epochs": 2,
    "threads": 1,
    "loader__batch_size": 8,
    "gradients__shards": 4,
    "gradients__accumulate": 4,
    "ema__decay": 0.9,
    "averaging__last": 2,
}
IN_SLICES = {"launch__kind": "local", "launch__shard_model": "true", "checkpoint__every_updates": 1}


def project_in(folder):
    return Project(folder, epochs=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one process makes, unbroken."""
    with environment(HOME=str(tmp_path_factory.mktemp("home"))):
        return BareRun(project_in(tmp_path_factory.mktemp("whole") / "project").config, **SETS)()


def cut_off(config, *, at_call, **sets):
    """A try that the user's code breaks off; whether it leaves commits inside the epoch."""
    with environment(FAIL_AT_CALL=str(at_call)):
        run = BareRun(config, **{**SETS, **IN_SLICES, **sets})
        with pytest.raises(TrainingFailed, match="on fire"):
            run()
    return list((config.parent / "store").rglob("partial/*"))


def test_an_epoch_that_two_processes_began_in_slices_ends_in_one_with_the_same_bytes(
    whole, tmp_path, home
):
    config = project_in(tmp_path / "project").config
    assert cut_off(config, at_call=7, launch__processes=2)
    run = BareRun(config, **SETS)()
    assert ("train", 0) in run.resumed
    assert run.digests == whole.digests


@pytest.mark.slow
def test_any_number_of_processes_goes_on_from_a_commit_of_any_other(whole, tmp_path, home):
    config = project_in(tmp_path / "project").config
    assert cut_off(config, at_call=5, launch__processes=2)
    assert cut_off(config, at_call=3, launch__processes=4)
    assert cut_off(config, at_call=3, launch__processes=3)
    run = BareRun(config, **{**SETS, **IN_SLICES}, launch__processes=4)()
    assert ("train", 0) in run.resumed
    assert run.digests == whole.digests
