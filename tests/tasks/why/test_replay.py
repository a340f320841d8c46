"""An update computed again has the bits that it had; what has changed since is found and named."""

import numpy as np
import pytest
from support.runs.bare_run import BareRun, copy_of
from support.runs.project import Project, call, environment

from epochal.data.errors import InputError, TargetError, TrainingFailed
from epochal.tasks.runs.find_run import find_run
from epochal.tasks.why.replay import hook_of, replay, unequal_samples, unequal_updates

HOOK = """
    import torch

    seen = []

    def look(model, batch, output, at):
        torch.rand(7)  # what a hook draws changes nothing
        seen.append((at.epoch, at.update, at.micro_batch, len(at.sample_ids_B), len(batch[0])))
        at.on_gradients(lambda model: seen.append(float(model.head.weight.grad.norm())))

    def fails(model, batch, output, at):
        raise ValueError("nothing to see")
"""
EVERYTHING = {
    "epochs": 2,
    "sampling": {"policy": "none"},
    "gradients": {"accumulate": 3, "clip_norm": 1.0, "shards": 2},
    "ema": {"decay": 0.9, "copy_at_epoch": 1},
    "mixing": {"mixup": 0.3},
    "validation": {"every_updates": 2},
    "schedule": {"kind": "cosine"},
}
"""All that has a part in an update's numbers beside model and data."""
FEW = {"keep_last": 2, "keep_best": 0}


def trained(folder, **changes):
    with environment(HOME=str(folder)):
        project = Project(folder / "project", **changes)
        project.write("look.py", HOOK)
        BareRun(project.config)().run.close()
    return project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return trained(
        tmp_path_factory.mktemp("plain"),
        epochs=3, checkpoint=FEW,
    )  # fmt: skip


def again(project, update, **more):
    notices = []
    found = replay(find_run(str(project.config)), update, notice=notices.append, **more)
    return found, notices


def test_an_update_of_the_middle_of_a_run_has_its_bits_again(project):
    told = []
    found, notices = again(project, 9, on_update=lambda *done: told.append(done))
    assert (found.agrees, found.updates, found.epochs, notices) == (True, 3, 1, [])
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert found.as_object()["replayed"] is True


def test_shards_average_mixing_and_validations_inside_are_computed_as_they_were(tmp_path):
    found, _ = again(trained(tmp_path, **EVERYTHING), 7)
    assert (found.agrees, found.epochs) == (True, 1), found.differs


def test_without_the_checkpoints_that_gc_removes_it_begins_at_one_before_them(project, tmp_path):
    copy = copy_of(project, tmp_path / "copy", epochs=3, checkpoint=FEW)
    assert call("gc", str(copy.store), "--yes").code == 0
    found, notices = again(copy, 8)
    assert (found.agrees, found.updates, found.epochs) == (True, 8, 2), found.differs
    assert "checkpoints of epoch 0 are not in the store any more" in notices[0]


def test_a_model_that_was_changed_since_is_told_with_the_first_update_that_differs(
    project, tmp_path
):
    copy = copy_of(project, tmp_path / "copy", epochs=3, checkpoint=FEW)
    model = (copy.folder / "model.py").read_text().replace("Dropout(0.2)", "Dropout(0.3)")
    copy.write("model.py", model)
    found, _ = again(copy, 8)
    assert not found.agrees
    assert found.differs[0].startswith("from update 7 on (epoch 1): train/loss, gradients/norm")
    assert "observed" in found.differs[1]


def test_a_hook_sees_each_micro_batch_and_the_gradients_and_disturbs_nothing(project):
    found, _ = again(project, 9, hook="look:look")
    look = hook_of(find_run(str(project.config)).own, "look:look")
    seen = look.__globals__["seen"]
    assert found.agrees, found.differs
    assert [one[:3] for one in seen[:2]] == [(1, 9, 4), (1, 9, 5)]
    assert all(one[3] == one[4] == 16 for one in seen[:2])
    assert len(seen) == 4, "once for each micro-batch that has asked for it"
    assert seen[2] > 0


def test_a_hook_that_fails_and_one_that_is_not_there_are_told_as_yours(project):
    with pytest.raises(
        TrainingFailed, match=r"replay of epoch 1: ValueError: nothing to see.*look.py"
    ):
        again(project, 9, hook="look:fails")
    with pytest.raises(TargetError, match="look has no 'loook'"):
        again(project, 9, hook="look:loook")
    with pytest.raises(InputError, match="expected module:function"):
        again(project, 9, hook="look")


def test_a_run_that_is_named_by_its_store_is_not_computed(project):
    run = find_run(f"{project.store}/blobs")
    with pytest.raises(InputError, match="name the run by its config's path"):
        replay(run, 9, notice=pytest.fail)


def test_other_bits_are_found_by_update_and_metric():
    stored = {"a": np.array([1.0, -0.0, np.nan]), "b": np.array([1.0, 2.0, 3.0])}
    assert unequal_updates(stored, {name: one.copy() for name, one in stored.items()}, 3) is None
    assert unequal_updates(stored, {**stored, "a": np.array([1.0, 0.0, np.nan])}, 3) == (1, ["a"])
    assert unequal_updates(stored, {**stored, "b": np.array([1.0, 2.0, 3.1])}, 2) is None
    assert unequal_updates(stored, {**stored, "c": np.array([1.0])}, 1) == (0, ["c"])


def test_other_observations_are_found_by_sample():
    stored = {"sample_id": np.array([3, 5, 9]), "loss": np.array([1, 2, np.nan], np.float32)}
    computed = {"sample_id": np.array([9, 3, 9]), "loss": np.array([np.nan, 1, 7], np.float32)}
    assert unequal_samples(stored, computed) == (0, None)
    computed["loss"][1] = 1.5
    assert unequal_samples(stored, computed) == (1, 3)
    assert unequal_samples(stored, {**computed, "sample_id": np.array([4, 5, 4])}) == (2, 4)
