"""The scoring pass: what a checkpoint says of every sample, as a stage between train and mine."""

import numpy as np
import pytest
import torch
from support.runs.bare_run import BareRun
from support.runs.project import Project, call
from support.stores.sample_files import read_samples

from epochal.data.errors import ConfigError, DataError, Interrupted
from epochal.data.tables.writing import OBSERVATIONS, read_table
from epochal.engine.checkpoint.serialize import load_tensors

EPOCHS = 5
SAMPLING = {
    "policy": "easy_skip", "confidence": 0.7, "warm_up": 1, "final_full": 0, "revisit": 2,
    "scoring": {"weights": "model"},
}  # fmt: skip
AUGMENTED = """
    import torch
    from torch.utils.data import Dataset
    from blobs import blobs

    class Noisy(Dataset):
        def __init__(self, size=180, noise=1.0):
            self.data, self.noise = blobs("train", size=size), noise

        def __len__(self):
            return len(self.data)

        def __getitem__(self, row):
            x, y = self.data[row]
            return x + self.noise * torch.randn(6), y
"""


def project(folder, *, sampling=None, **changes):
    made = Project(
        folder, epochs=EPOCHS, sampling={**SAMPLING, **(sampling or {})}, device="cpu", **changes
    )
    made.write("augmented.py", AUGMENTED)
    return made


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    made = project(tmp_path_factory.mktemp("scored"), ema={"decay": 0.9})
    return made, BareRun(made.config)()


def table_of(run, kind, epoch, artifact):
    record = run.view.record_of(run.view.stage(kind, epoch))
    with run.session.stage_store.fetch_artifact(record, artifact) as path:
        read = read_table(path, schema=OBSERVATIONS) if kind != "mine" else read_samples(path)
    return read if kind == "mine" else read.columns


def forward(run, epoch, *, artifact="model", data=None):
    """Losses and probabilities of the epoch's checkpoint over the training data, by hand."""
    record = run.view.record_of(run.view.stage("train", epoch))
    model = run.work.ready_components().state.model
    with run.session.stage_store.fetch_artifact(record, artifact) as path:
        model.load_state_dict(load_tensors(path, device="cpu"))
    run.session.live_key = None
    x, y = (data or run.work.data["train_data"].dataset).tensors
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(part) for part in x.split(16)])
    losses = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    return losses.numpy(), logits.softmax(1), y


def test_scores_are_the_forward_values_of_the_epochs_checkpoint(done):
    _, run = done
    for epoch in (0, EPOCHS - 1):
        scores = table_of(run, "score", epoch, "scores")
        losses, p, y = forward(run, epoch)
        assert scores["sample_id"].tolist() == list(range(180))
        np.testing.assert_allclose(scores["loss"], losses, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(scores["confidence"], p.max(1).values, rtol=1e-5)
        assert np.array_equal(scores["correct"], (p.argmax(1) == y).numpy())
        assert not np.array_equal(
            table_of(run, "train", epoch, "observations")["loss"][:10], scores["loss"][:10]
        )


def test_the_table_has_the_scores_of_all_and_says_who_trained(done):
    _, run = done
    for epoch in range(1, EPOCHS):
        table, scores = (
            table_of(run, "mine", epoch, "samples"),
            table_of(run, "score", epoch, "scores"),
        )
        trained = table_of(run, "train", epoch, "observations")["sample_id"]
        assert np.array_equal(table["loss"], scores["loss"])
        assert set(np.flatnonzero(table["epoch_seen"] == epoch)) == set(trained)
        assert (table["n_seen"] == epoch + 1).all()
    assert len(trained) < 180


def test_nobody_is_left_out_for_longer_than_revisit_says(done):
    _, run = done
    for epoch in range(EPOCHS):
        table = table_of(run, "mine", epoch, "samples")
        assert (epoch - table["epoch_seen"] <= SAMPLING["revisit"]).all()


def test_the_cost_is_in_the_record_and_in_the_metrics(done):
    from epochal.tasks.runs.summary import flat_metrics
    from epochal.tasks.tracking.points import epoch_metrics

    _, run = done
    session = run.session
    record = session.run.record_of(session.run.stage("score", 1))
    assert record.values["extra_forwards"] == record.values["samples"] == 180
    (row,) = epoch_metrics(record, timestamp_ms=1)
    assert (row.key, row.value) == ("sampling/extra_forwards", 180)
    metrics = flat_metrics(session.run)
    assert metrics["sampling/extra_forwards"] == 180


def test_scores_of_the_average_are_those_of_its_weights(tmp_path):
    made = project(tmp_path, ema={"decay": 0.9}, sampling={"scoring": {"weights": "ema"}})
    run = BareRun(made.config)()
    scores = table_of(run, "score", 2, "scores")
    losses, _, _ = forward(run, 2, artifact="ema")
    of_model, _, _ = forward(run, 2)
    np.testing.assert_allclose(scores["loss"], losses, rtol=1e-4, atol=1e-6)
    assert not np.allclose(scores["loss"], of_model, rtol=1e-3)


@pytest.mark.parametrize("weights", ["model", "ema"])
def test_a_pass_that_is_made_anew_from_the_store_gives_the_same_bytes(tmp_path, weights):
    made = project(tmp_path, ema={"decay": 0.9}, sampling={"scoring": {"weights": weights}})
    first = BareRun(made.config)()
    for kind in ("score", "mine"):
        key = first.view.stage(kind, 2).known_key
        (made.store / "stages" / key / "record.json").unlink()
    again = BareRun(made.config)()
    assert again.digests == first.digests
    assert [(one.stage.kind, one.stage.epoch) for one in again.outcomes if not one.cached] == [
        ("score", 2),
        ("mine", 2),
    ]


@pytest.mark.parametrize("kind", ["score", "mine"])
def test_a_run_that_was_ended_inside_the_stage_goes_on_to_the_same_bytes(tmp_path, done, kind):
    _, unbroken = done
    made = project(tmp_path, ema={"decay": 0.9})
    run = BareRun(made.config)
    reporter = run.session.reporter
    ended = run.view.stage(kind, 2)

    def started(stage):
        if stage is ended:
            run.session.interruption._came = 15  # as SIGTERM notes it

    reporter.started = started
    with pytest.raises(BaseException) as raised:
        run()
    assert isinstance(raised.value, Interrupted | SystemExit | KeyboardInterrupt)
    assert ended.known_key not in run.view.records
    again = BareRun(made.config)()
    assert again.digests == unbroken.digests


def test_data_of_its_own_is_scored_without_augmentation(tmp_path):
    noisy = {"target": "augmented:Noisy"}
    plain = {"target": "blobs:blobs", "args": {"split": "train"}}
    made = project(tmp_path, train_data=noisy, sampling={"scoring": {"data": plain}})
    run = BareRun(made.config)()
    scores = table_of(run, "score", 1, "scores")
    own = run.work.data["sampling.scoring.data"].dataset
    np.testing.assert_allclose(scores["loss"], forward(run, 1, data=own)[0], rtol=1e-5, atol=1e-6)


def test_data_with_other_samples_is_refused(tmp_path):
    fewer = {"target": "blobs:blobs", "args": {"split": "train", "size": 170}}
    made = project(tmp_path, sampling={"scoring": {"data": fewer}})
    with pytest.raises(DataError, match=r"sampling\.scoring\.data: found 170 samples"):
        BareRun(made.config)


@pytest.mark.parametrize(
    ("sampling", "epochs"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"scoring": {"every": 2}}, [1, 3]),
        ({"warm_up": 3}, [2, 3, 4]),
        ({"final_full": 2}, [0, 1, 4]),  # the epoch after the last is planned as if it went on
        ({"policy": "none"}, []),
    ],
)
def test_a_pass_is_made_where_it_is_asked_for_and_acts(tmp_path, sampling, epochs):
    stages = BareRun(project(tmp_path, sampling=sampling).config).view.stages
    assert [one.epoch for one in stages if one.kind == "score"] == epochs


def test_between_two_passes_the_scores_stand(tmp_path):
    made = project(tmp_path, sampling={"scoring": {"every": 2}, "policy": "cvnets", "count": 1})
    run = BareRun(made.config)()
    second, third = (table_of(run, "mine", epoch, "samples") for epoch in (1, 2))
    assert np.array_equal(second["loss"], third["loss"])
    assert np.array_equal(second["easy_count"], third["easy_count"])
    assert (second["easy_count"] > 0).any()
    assert np.array_equal(third["epoch_seen"] == 2, second["keep"])


def test_the_count_of_cvnets_is_of_all_samples_at_each_pass(tmp_path):
    made = project(tmp_path, sampling={"policy": "cvnets", "every": 1, "count": 2})
    run = BareRun(made.config)()
    count = np.zeros(180, dtype=int)
    for epoch in range(EPOCHS):
        scores = table_of(run, "score", epoch, "scores")
        easy = scores["correct"] & (scores["confidence"] >= np.float64(0.7))
        count = np.clip(count + np.where(easy, 1, -1), 0, 2)
        assert np.array_equal(table_of(run, "mine", epoch, "samples")["easy_count"], count)


def keys(folder, **changes):
    made = project(folder, **changes)
    return {(one.kind, one.epoch): one.key for one in BareRun(made.config).view.stages}


def changed(before, after):
    assert before.keys() == after.keys()
    return {place for place in before if before[place] != after[place]}


def test_the_keys_hold_what_acts(tmp_path):
    ema = {"decay": 0.9}
    plain = keys(tmp_path / "a", ema=ema)
    average = keys(tmp_path / "b", ema=ema, sampling={"scoring": {"weights": "ema"}})
    found = changed(plain, average)
    assert ("score", 0) in found
    assert ("mine", 0) in found
    assert ("train", 1) in found
    assert not {place for place in found if place[1] == 0 and place[0] in ("train", "validate")}
    without = keys(tmp_path / "c", ema=ema, sampling={"scoring": None})
    assert without["train", 0] == plain["train", 0]
    assert without["mine", 0] != plain["mine", 0]
    same = keys(tmp_path / "d", ema=ema, loader={"batch_size": 16, "workers": 1})
    assert not changed(plain, same)


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"scoring": {"weights": "ema"}}, "sampling.scoring.weights"),
        ({"policy": "random", "confidence": None}, "scoring: policy random does not go by it"),
        ({"scoring": {"every": 0}}, "every"),
        ({"scoring": {"wights": "ema"}}, "wights"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, sampling, words):
    with pytest.raises(ConfigError, match=words):
        BareRun(project(tmp_path, sampling=sampling).config)


def test_commands_know_the_stage(tmp_path, tracker, prefect_api):
    made = Project(tmp_path, epochs=2, sampling=SAMPLING)
    trained = made("train")
    assert trained.code == 0, trained.err
    assert trained.stages(stage="score") == [("score", 0), ("score", 1)]
    assert trained.json["metrics"]["sampling/extra_forwards"] == 180
    assert made("train").stages(stage="score", cached=True) == [("score", 0), ("score", 1)]
    assert "sampling.scoring" in made("plan", sampling__scoring__weights="ema", ema__decay=0.9).out
    for command in (("show", "blobs", "--store"), ("verify",), ("gc",)):
        found = call(*command, str(made.store))
        assert found.code == 0, found.err
