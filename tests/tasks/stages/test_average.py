"""Checkpoint averaging in runs: its choice of epochs, its place in keys, stores and views."""

import contextlib
import shutil

import pytest
import torch
from safetensors.torch import load_file
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

from epochal.data.hashing import file_sha256
from epochal.data.testing.faults import injected
from epochal.data.testing.plan import FaultPlan

AVERAGING = {"averaging": "{best: 2}"}


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", sampling={"policy": "none"}, metrics={"best": "loss"})


def by_kind(run):
    return {(one.stage, one.epoch): one for one in run.view.records.values()}


def weights_of(project, record, name="model"):
    return load_file(project.store / "stages" / record.key / record.artifacts[name].file)


def losses(records, epochs, name="loss"):
    return {epoch: records["validate", epoch].values["metrics"][name] for epoch in epochs}


def test_the_stages_come_last_and_average_the_best_epochs(project):
    run = BareRun(project.config, **AVERAGING)()
    plain = BareRun(project.config)()
    assert plain.weights == run.weights
    assert all(one.cached for one in plain.outcomes)
    assert [one.label for one in run.view.stages[-2:]] == ["average", "validate_average"]
    records = by_kind(run)
    found = losses(records, range(4))
    best = sorted(sorted(found, key=found.get)[:2])
    average = records["average", None]
    assert average.values["epochs"] == best
    assert set(average.consumed) == {f"train.{epoch}/model" for epoch in best}
    parts = [weights_of(project, records["train", epoch]) for epoch in best]
    mean = weights_of(project, average)
    for name, tensor in mean.items():
        total = sum(part[name].double() for part in parts) / 2
        expected = total.to(tensor.dtype) if tensor.is_floating_point() else parts[-1][name]
        assert torch.equal(tensor, expected), name
    assert set(records["validate_average", None].values["metrics"]) == {"accuracy", "loss"}
    again = BareRun(project.config, **AVERAGING)()
    assert all(one.cached for one in again.outcomes)
    assert again.work.components is None


def test_an_average_of_one_epoch_is_measured_as_that_epoch(project):
    records = by_kind(BareRun(project.config, averaging="{last: 1}")())
    metrics = records["validate_average", None].values["metrics"]
    assert metrics == records["validate", 3].values["metrics"]
    same = records["average", None].artifacts["model"]
    assert same.sha256 == records["train", 3].artifacts["model"].sha256


def test_what_the_best_metric_measures_is_averaged(project):
    sets = {"ema": "{decay: 0.5}", "metrics.best": "ema/loss", **AVERAGING}
    records = by_kind(BareRun(project.config, **sets)())
    found = losses(records, range(4), "ema/loss")
    best = sorted(sorted(found, key=found.get)[:2])
    parts = [weights_of(project, records["train", epoch], "ema")["head.weight"] for epoch in best]
    mean = (sum(part.double() for part in parts) / 2).float()
    assert torch.equal(weights_of(project, records["average", None])["head.weight"], mean)
    assert set(records["validate_average", None].values["metrics"]) == {"accuracy", "loss"}


def test_its_key_holds_what_acts_and_no_more(project):
    def key(**sets):
        run = BareRun(project.config, **{**AVERAGING, **sets})
        return run.view.stage("average", None).key

    same = key()
    assert key(checkpoint__every_updates=3, metrics__validation="[accuracy, loss]") != same
    assert key(checkpoint__every_updates=3) == same
    assert key(metrics__best_mode="min") == same  # as it was
    assert key(metrics__best="accuracy") != same
    assert key(early_stopping="{patience: 2}") != same
    last = {"averaging": "{last: 2}"}
    assert key(**last, metrics__best="accuracy") == key(**last) != same
    assert key(**last, metrics__validation="[accuracy, loss]") == key(**last)


def test_a_longer_run_is_the_same_generation_with_another_average(project):
    short = BareRun(project.config, epochs=3, **AVERAGING)()
    longer = BareRun(project.config, epochs=4, **AVERAGING)()
    assert (short.plan.generation, longer.plan.generation) == (1, 1)
    fresh = [one.stage.label for one in longer.outcomes if not one.cached]
    assert fresh == ["train · epoch 3", "validate · epoch 3", "average", "validate_average"]
    other = BareRun(project.config, averaging="{best: 3}")()
    assert other.plan.generation == 1
    assert [one.stage.kind for one in other.outcomes if not one.cached] == [
        "average",
        "validate_average",
    ]


def test_early_stopping_says_which_epochs_there_are(project):
    stop = {"early_stopping": "{metric: accuracy, patience: 1, min_delta: 1}"}
    BareRun(project.config)()  # later epochs are there and not the run's
    for averaging, count in (("{last: 2}", 2), ("{best: 3}", 2)):
        run = BareRun(project.config, averaging=averaging, **stop)()
        record = by_kind(run)["average", None]
        assert record.values["epochs"] == [0, 1][:count]
        assert record.values["updates_done"] == by_kind(run)["train", 1].values["updates_done"]
        again = BareRun(project.config, averaging=averaging, **stop)()
        assert all(one.cached for one in again.outcomes)


@pytest.mark.parametrize("before", ["average", "validate_average"])
def test_a_run_that_ends_before_one_of_them_goes_on_with_it(project, before):
    whole = BareRun(project.config, **AVERAGING)()
    key = whole.view.stage(before, None).key
    (project.store / "stages" / key / "record.json").unlink()
    again = BareRun(project.config, **AVERAGING)()
    assert [one.stage.kind for one in again.outcomes if not one.cached] == [before]
    assert again.digests == whole.digests


def test_gc_keeps_what_is_averaged_and_a_checkpoint_that_is_gone_is_made_again(project):
    kept = {"checkpoint": "{keep_last: 2, keep_best: 0}"}
    asked = {"averaging": "{best: 3}", **kept}
    run = BareRun(project.config, **asked)()
    epochs = by_kind(run)["average", None].values["epochs"]
    assert call("gc", str(project.store), "--yes").code == 0
    assert all(weights_of(project, by_kind(run)["train", epoch]) for epoch in epochs)
    # Without averaging only two are kept: another average makes the others again.
    for plan in (project.store / "runs").rglob("plans/*.json"):
        plan.unlink()
    BareRun(project.config, **kept)()
    assert call("gc", str(project.store), "--yes").code == 0
    pruned = sorted(one.parent.name for one in project.store.glob("stages/*/thinned.json"))
    assert len(pruned) == 2
    again = BareRun(project.config, averaging="{last: 4}", **kept)()
    assert [one.stage.label for one in again.outcomes if not one.cached] == [
        "train · epoch 0", "train · epoch 1", "average", "validate_average",
    ]  # fmt: skip
    assert again.weights == run.weights


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("{best: 2, last: 2}", "give `best` or `last`, not both"),
        ("{best: 5}", "averaging: best: 5 of a run of 4 epochs; expected at most 4"),
        ("{best: 0}", "averaging.best: found 0"),
    ],
)
def test_what_cannot_be_averaged_is_a_config_error(project, options, problem):
    done = project("plan", averaging=options)
    assert done.code == 2
    assert problem in " ".join(done.err.split())


def test_a_plan_names_the_stages_with_keys_before_anything_ran(project):
    BareRun(project.config)()
    stages = project("plan", **AVERAGING).json["stages"][-2:]
    assert [(one["stage"], one["epoch"], one["done"]) for one in stages] == [
        ("average", None, False),
        ("validate_average", None, False),
    ]
    assert all(one["key"] for one in stages)
    assert stages[0]["why"] == ["averaging.best: not set → 2"]


def test_the_command_measures_delivers_and_exports_it(tmp_path, tracker, prefect_api):
    from mlflow import MlflowClient

    project = Project(tmp_path / "project", epochs=3, averaging={"last": 2})
    done = project("train")
    assert done.code == 0, done.err
    found = done.json
    assert [(one["stage"], one["epoch"]) for one in found["stages"][-2:]] == [
        ("average", None),
        ("validate_average", None),
    ]
    assert {"average/accuracy", "average/loss", "validation/loss"} <= set(found["metrics"])
    history = MlflowClient(tracker).get_metric_history(found["mlflow_run_id"], "average/loss")
    assert [one.value for one in history] == [found["metrics"]["average/loss"]]
    again = project("train")
    assert all(one["cached"] for one in again.json["stages"])
    out = tmp_path / "mean.safetensors"
    written = call("export", str(project.config), "--out", str(out), "--average", "--json").json
    assert (written["epoch"], written["epochs"]) == (None, [1, 2])
    assert written["weights_sha256"] != found["weights_sha256"]
    assert set(load_file(out)) >= {"head.weight", "body.1.running_mean"}
    assert "average  of epochs 1, 2: accuracy" in call("show", str(project.config)).out
    refused = call("export", str(project.config), "--out", str(out), "--average", "--epoch", "1")
    assert refused.code == 2
    assert "leave --epoch and --ema out" in refused.err


def test_a_run_without_one_says_so_at_its_export(project):
    BareRun(project.config)()
    done = call("export", str(project.config), "--out", "x", "--average")
    assert done.code == 2
    assert "no average of its checkpoints; give `averaging`" in " ".join(done.err.split())


class _DiedError(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize(
    ("kind", "every"),
    [
        ("kill", 4),
        *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in ("kill", "kill_after", "torn")),
    ],
)
def test_a_death_at_any_operation_of_its_stages_ends_in_the_same_bytes(project, kind, every):
    def die():
        raise _DiedError

    def digests():
        files = (one for one in project.store.rglob("*") if one.is_file())
        by_clock = {"times.json", "goodput.json"}
        kept = (one for one in files if one.name not in by_clock and "partial" not in one.parts)
        return {str(one.relative_to(project.store)): file_sha256(one) for one in kept}

    BareRun(project.config)()
    keys = [one.key for one in BareRun(project.config, **AVERAGING).view.stages[-2:]]
    plan = FaultPlan(kind)
    with injected(plan):
        run = BareRun(project.config, **AVERAGING)
        before = len(plan.operations)
        run()
    whole, operations = digests(), plan.operations
    assert len(operations) - before >= 6
    died = 0
    for at in range(before + 1, len(operations) + 1, every):
        if kind == "torn" and operations[at - 1] != "put_new":
            continue
        for key in keys:
            shutil.rmtree(project.store / "stages" / key)
        with injected(FaultPlan(kind, at=at, die=die)), contextlib.suppress(_DiedError):
            BareRun(project.config, **AVERAGING)()
            continue
        died += 1
        again = BareRun(project.config, **AVERAGING)()
        assert (again.weights, digests()) == (run.weights, whole), (at, operations[at - 1])
    assert died >= (4 if every == 1 else 2)
