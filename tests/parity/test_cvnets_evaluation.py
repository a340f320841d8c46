"""Defects of the trainer that this one replaces, one test each: none may come back.

The numbers are those of the list of defects that the project keeps of it.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.numbers.evaluation import metrics
from support.numbers.tiny_model import Net, batches, cross_entropy, new_state, run_epoch, samples
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import NotFound
from epochal.engine.config.numerics import MetricsConfig
from epochal.engine.loop.evaluate import validate_epoch
from epochal.engine.model.step import StepOutput
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.upkeep import _kept


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=2, sampling={"policy": "none"})


def records_of(run):
    return {(one.stage, one.epoch): one for one in run.view.records.values()}


def history(**columns):
    """Stages and records of epochs that were trained and validated with these values."""
    epochs = range(len(next(iter(columns.values()))))
    stages, records = [], {}
    for epoch in epochs:
        for kind in ("train", "validate"):
            key = f"{kind}{epoch}"
            stages.append(
                SimpleNamespace(kind=kind, epoch=epoch, number=epoch, key=key, parents={})
            )
            values = {name: column[epoch] for name, column in columns.items()}
            records[key] = SimpleNamespace(key=key, values={"metrics": values})
    return stages, records


def test_13_a_limit_of_n_updates_makes_n_of_them_and_keeps_the_epochs_numbers(project):
    """It made one update more, and gave −1 for the loss of the epoch that the limit ended."""
    run = BareRun(project.config, max_updates=8)()  # six in an epoch
    last = records_of(run)["train", 1].values
    assert last["updates_done"] == 8
    assert last["updates"] == 2
    assert last["samples"] == 2 * 2 * 16
    assert 0 < last["loss"] < 10
    assert 0 <= last["accuracy"] <= 1
    assert records_of(run)["validate", 1].values["updates_done"] == 8


def test_14_the_loss_is_measured_whatever_metrics_are_asked_for():
    """Asked for no loss, it put its list of metrics into itself instead of the loss."""
    for asked in (["accuracy"], ["loss", "accuracy"], ["f1"]):
        config = MetricsConfig.model_validate({"validation": asked})
        assert sorted(config.names) == sorted({*asked, "loss"})
    x, y = samples(20)
    found = validate_epoch(
        new_state().model,
        batches(x, y, batch_size=8),
        step=cross_entropy(),
        metrics=metrics("accuracy"),
        seed=1,
    )
    assert list(found.values) == ["accuracy", "loss"]
    result = run_epoch(new_state(), x, y)
    assert np.isfinite(result.updates["train/loss"]).all()


def test_19_the_average_of_the_weights_has_a_best_epoch_of_its_own(project):
    """The best of the average was compared with the best of the model, and an interval
    checkpoint put a batch's loss in the place of the best metric.
    """
    config = SimpleNamespace(
        metrics=MetricsConfig.model_validate({"validation": ["accuracy"]}),
        ema=object(),
        early_stopping=None,
    )
    columns = {"accuracy": [0.9, 0.5, 0.4], "ema/accuracy": [0.3, 0.6, 0.5]}
    run = RunView(config, *history(**columns))
    assert run.best.epoch == 0
    own = run.best_of_ema
    assert (own.epoch, own.value) == (1, 0.6)  # never above the model's 0.9
    plain = BareRun(project.config, ema="{decay: 0.5}")()
    often = BareRun(
        project.config,
        store=f"file://{project.folder}/often",
        ema="{decay: 0.5}",
        checkpoint__every_updates=1,
    )()
    for epoch in (0, 1):
        one, other = (records_of(run)["validate", epoch].values for run in (plain, often))
        assert one == other


def test_22_a_wrong_path_to_start_from_is_an_error(project):
    """It was noted in the log, and the training began from scratch."""
    for named in ("./gone.safetensors", "gone", "gone:3"):
        with pytest.raises(NotFound, match="start.from"):
            BareRun(project.config, start=f"{{from: '{named}'}}")
    assert not list(project.store.glob("stages/*"))


def test_23_the_k_best_epochs_are_those_with_the_best_values():
    """Kept were the last k that had set a record when they came; two that agreed in four
    decimals overwrote each other.
    """
    config = SimpleNamespace(
        metrics=MetricsConfig(),
        ema=None,
        early_stopping=None,
        averaging=None,
        checkpoint=SimpleNamespace(keep_last=1, keep_best=3),
    )
    run = RunView(config, *history(accuracy=[0.90, 0.95, 0.93, 0.94001, 0.94002, 0.1]))
    assert [best.epoch for best in run.validated()] == [1, 4, 3, 2, 0, 5]
    assert _kept(run) == {1, 3, 4, 5}  # the last one, and the three best


def test_24_weights_to_start_from_are_the_models_and_the_average_begins_with_them(project):
    """The average's weights were loaded into the model, which was then its own average."""
    first = BareRun(project.config, name="first", ema="{decay: 0.9}")()
    model = records_of(first)["train", 1].artifacts
    assert model["model"].sha256 != model["ema"].sha256
    second = BareRun(
        project.config, name="second", start="{from: first}", ema="{decay: 0.9}", seed=99
    )
    second()
    begun = records_of(second)["initialise", None]
    assert begun.artifacts["model"].sha256 == model["model"].sha256
    state = second.work.ready_components().state
    for name, tensor in state.model.state_dict().items():
        assert state.ema.tensors[name].data_ptr() != tensor.data_ptr()
    # The average begins at these weights, not at those of the seed: after an epoch it is near.
    with first.session.stage_store.fetch_artifact(begun, "model") as path:
        start = load_file(path)["head.weight"]
    trained = records_of(second)["train", 0]
    with second.session.stage_store.fetch_artifact(trained, "ema") as path:
        average = load_file(path)["head.weight"]
    with second.session.stage_store.fetch_artifact(trained, "model") as path:
        weights = load_file(path)["head.weight"]
    scale = torch.linalg.vector_norm(weights - start)
    assert 0 < torch.linalg.vector_norm(average - start) < 2 * scale


@pytest.mark.parametrize("batch_size", [1, 7, 8, 100])
def test_26_no_sample_is_validated_twice(batch_size):
    """Short batches and ranks were filled up with samples that then counted twice."""
    x, y = samples(41)
    seen = []

    def step(model, batch):
        outputs = model(batch[0])
        seen.extend(batch[0].sum(1).tolist())
        loss = torch.nn.functional.cross_entropy(outputs, batch[1], reduction="none")
        return StepOutput(loss, outputs)

    state = new_state(Net)
    found = validate_epoch(
        state.model,
        batches(x, y, batch_size=batch_size),
        step=step,
        metrics=metrics("accuracy"),
        seed=1,
    )
    assert sorted(seen) == sorted(x.sum(1).tolist())
    assert found.num_samples == 41
    state.model.eval()
    with torch.no_grad():
        right = (state.model(x).argmax(1) == y).double().mean()
    assert found.values["accuracy"] == pytest.approx(float(right))


def test_28_samples_are_counted_in_samples(project):
    """What was called the number of samples was that of batches."""
    run = BareRun(project.config)()
    assert records_of(run)["train", 0].values["samples"] == 180
    assert records_of(run)["validate", 0].values["samples"] == 90
    assert run.work.data["train_data"].info.num_samples == 180
    assert run_epoch(new_state(), *samples(42), batch_size=8).num_samples == 42
