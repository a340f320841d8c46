"""`epochal samples`: orders on tables made by hand, and what is said of them."""

import shutil

import numpy as np
import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

from epochal.data.errors import InputError
from epochal.data.samples.scores import (
    STATES,
    data_map,
    is_flagged,
    mean_margin,
    never_right,
    states,
    variability,
)
from epochal.data.samples.table import table_of_all, update
from epochal.tasks.report.samples import _derived, _order

NAN = float("nan")


def seen(ids, p_true, **more):
    p_true = np.asarray(p_true, dtype=np.float64)
    columns = {
        "sample_id": np.asarray(ids),
        "label": np.asarray(ids) % 2,
        "loss": -np.log(p_true),
        "confidence": np.maximum(p_true, 1 - p_true),
        "p_true": p_true,
        "margin": np.log(p_true / (1 - p_true)),
        "el2n": 1 - p_true,
        "correct": p_true > 0.5,
    }
    return {**columns, **{name: np.asarray(values) for name, values in more.items()}}


EPOCHS = (
    (0, seen([10, 11, 12, 13, 14], [0.9, 0.8, 0.1, 0.6, 0.7])),
    (1, seen([10, 11, 12, 13], [0.9, 0.2, 0.2, 0.1])),
    (2, seen([10, 11, 12, 13], [0.9, 0.8, 0.1, 0.7])),
    (3, seen([10, 11, 12, 13], [0.9, 0.3, 0.2, 0.8])),
)


@pytest.fixture
def columns():
    """10 always right, 11 forgotten twice, 12 never right, 13 once, 14 seen once, 15 never."""
    table, ids = None, np.arange(10, 16)
    for epoch, one in EPOCHS:
        table = update(table, one, epoch=epoch, sample_ids_N=ids, labels_N=None, confidence=0.8)
    return dict(table.columns)


def ranked(columns, order):
    return columns["sample_id"][_order(columns, order, run="x@1")].tolist()


def test_the_forgotten_are_by_their_number_of_times_and_the_never_right_come_first(columns):
    assert ranked(columns, "forgotten") == [12, 11, 13]
    assert columns["forget_count"].tolist() == [0, 2, 0, 1, 0, 0]


def test_forgotten_equally_often_the_least_sure_comes_first(columns):
    columns["forget_count"] = np.array([2, 2, 0, 2, 0, 0], dtype=np.int16)
    assert ranked(columns, "forgotten") == [12, 11, 13, 10]


def test_the_other_orders_are_as_they_were(columns):
    assert ranked(columns, None) == [10, 11, 12, 13, 14, 15]
    assert ranked(columns, "hardest") == [12, 11, 14, 13, 10]
    assert ranked(columns, "easiest") == [10, 13, 14, 11, 12]
    assert ranked(columns, "suspects") == [12, 13, 11, 14, 10]


def test_scores_of_all_epochs_follow_from_the_sums(columns):
    margins = np.log(np.array([0.8, 0.2, 0.8, 0.3]) / np.array([0.2, 0.8, 0.2, 0.7]))
    assert mean_margin(columns)[1] == pytest.approx(margins.mean(), rel=1e-5)
    assert variability(columns)[:2] == pytest.approx([0.0, np.std([0.8, 0.2, 0.8, 0.3])], abs=2e-4)
    assert np.isnan([mean_margin(columns)[5], variability(columns)[5]]).all()
    assert never_right(columns).tolist() == [False, False, True, False, False, False]
    assert [STATES[state] for state in states(columns)[:4]] == [
        "never forgotten",
        "forgotten, wrong now",
        "never right",
        "forgotten, right again",
    ]


def test_a_predicted_class_is_told_where_it_is_known_alone(columns):
    columns["flags"] = np.array([0, 0, 2, 1, 0, 0], dtype=np.uint8)
    found = _derived(columns)
    assert found["predicted"].tolist() == [0, None, None, 1, 0, None]
    assert is_flagged(columns).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("order", ["forgotten", "suspects"])
def test_an_order_that_needs_classes_is_refused_without_them(columns, order):
    for name in ("p_true", "margin", "margin_sum", "confidence"):
        columns[name] = np.full(6, NAN, dtype=np.float32)
    with pytest.raises(InputError, match=rf"x@1: --{order} needs .* not of shape \(batch, classes"):
        _order(columns, order, run="x@1")


def test_the_map_holds_those_that_two_epochs_saw(columns):
    found = data_map(columns)
    assert (len(found), found.left_out) == (4, 2)
    assert found.mean_p_true_M[0] == pytest.approx(0.9)
    columns["n_seen"] = np.minimum(columns["n_seen"], 1)
    assert data_map(columns) is None


def test_the_table_of_all_observations_is_that_of_the_mine_stages(columns):
    found = table_of_all(EPOCHS, confidence=0.8)
    for name, values in found.columns.items():
        assert np.array_equal(values, columns[name][:5], equal_nan=values.dtype.kind == "f"), name
    late = [(0, EPOCHS[1][1]), (1, EPOCHS[0][1])]
    assert table_of_all(late, confidence=0.8)["n_seen"].tolist() == [2, 2, 2, 2, 1]
    assert table_of_all([], confidence=0.8) is None


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=3)


def test_the_command_shows_the_orders_columns_and_adds_keys_alone(project):
    BareRun(project.config)()
    place = ("samples", str(project.config))
    done = call(*place, "--forgotten", "5", "--json")
    assert done.code == 0, done.err
    assert set(done.json) == {"run", "epoch", "samples", "tables"}
    counts = [np.inf if one["never_right"] else one["forget_count"] for one in done.json["samples"]]
    assert counts == sorted(counts, reverse=True)
    assert min(counts) > 0
    old = {"sample_id", "label", "loss", "confidence", "p_true", "margin", "correct", "keep"}
    more = {"mean_margin", "variability", "flagged", "predicted", "forget_count", "mean_p_true"}
    assert old | more <= set(done.json["samples"][0])
    shown = call(*place, "--suspects", "5").out
    assert "label  mean_margin  flagged" in shown  # and no column that holds nothing
    assert "estimated share of wrong labels: " in shown
    assert "not which class a wrong one named" in shown
    assert "sample_id  label  forget_count  never_right" in call(*place, "--forgotten", "2").out
    assert call(*place, "--forgotten", "2", "--hardest", "1").code == 2


def test_without_a_mine_stage_the_observations_of_all_epochs_give_the_order(project, tmp_path):
    """In a store that was copied elsewhere, too."""
    BareRun(project.config, sampling="{policy: none}")()
    moved = tmp_path / "moved"
    shutil.move(project.store, moved)
    place = ("samples", "blobs", "--store", str(moved), "--json")
    for order in ("suspects", "forgotten"):
        done = call(*place, f"--{order}", "4")
        assert done.code == 0, done.err
        assert {one["n_seen"] for one in done.json["samples"]} == {3}
    plain = call(*place, "--hardest", "4").json["samples"][0]
    assert "n_seen" not in plain


def test_of_a_run_that_ended_early_no_later_epoch_is_shown(tmp_path, home):
    project = Project(tmp_path / "project", epochs=3)
    BareRun(project.config)()
    stop = "{metric: accuracy, patience: 1, min_delta: 1}"
    BareRun(project.config, early_stopping=stop)()
    shown = call("samples", "blobs", "--store", str(project.store), "--json").json
    assert shown["epoch"] == 1
    assert max(sample["epoch_seen"] for sample in shown["samples"]) == 1


def test_without_losses_of_samples_the_hardest_are_those_of_lowest_probability(columns):
    by_probability = np.argsort(columns["p_true"], kind="stable")
    columns["loss"] = np.full(6, NAN, dtype=np.float32)
    hardest = ranked(columns, "hardest")
    assert hardest == [one for one in columns["sample_id"][by_probability].tolist() if one != 15]
    assert ranked(columns, "easiest") == [10, 13, 14, 11, 12]


@pytest.mark.parametrize("order", ["hardest", "easiest"])
def test_an_order_by_loss_is_refused_where_samples_have_neither_loss_nor_classes(columns, order):
    for name in ("loss", "p_true"):
        columns[name] = np.full(6, NAN, dtype=np.float32)
    with pytest.raises(InputError, match=f"x@1: --{order} needs the loss of each sample"):
        _order(columns, order, run="x@1")


SCALAR = """
    import torch
    from torch import nn

    class Mean(nn.Module):
        def forward(self, output, target):
            return nn.functional.cross_entropy(output, target)

    class Squares(nn.Module):
        def forward(self, output, target):
            return ((output.sum(1) - target) ** 2).mean()

    def one_output():
        return nn.Sequential(nn.Linear(6, 1), nn.BatchNorm1d(1))

    def numbers(size=40):
        generator = torch.Generator().manual_seed(1)
        values = torch.randn(size, 7, generator=generator)
        return torch.utils.data.TensorDataset(values[:, :6], values[:, 6])
"""


@pytest.mark.parametrize("order", ["hardest", "easiest"])
def test_a_loss_of_the_whole_batch_never_gives_an_order_by_id(order, tmp_path, home):
    none = {"policy": "none"}
    project = Project(tmp_path / "classes", epochs=1, sampling=none, loss={"target": "scalar:Mean"})
    project.write("scalar.py", SCALAR)
    BareRun(project.config)()
    done = call("samples", str(project.config), f"--{order}", "5", "--json")
    assert done.code == 0, done.err
    shown = [one["p_true"] for one in done.json["samples"]]
    assert shown == sorted(shown, reverse=order == "easiest")
    assert shown[0] != shown[-1]
    if order == "hardest":
        assert "by the lowest p_true" in call("samples", str(project.config), "--hardest", "5").out


def test_a_run_without_losses_and_classes_refuses_both_orders_and_its_report_says_so(
    tmp_path, home
):
    project = Project(
        tmp_path / "numbers",
        epochs=1,
        sampling={"policy": "none"},
        loss={"target": "scalar:Squares"},
        model={"target": "scalar:one_output"},
        train_data={"target": "scalar:numbers"},
        validation_data={"target": "scalar:numbers"},
        metrics={"validation": ["loss"]},
    )
    project.write("scalar.py", SCALAR)
    BareRun(project.config)()
    for order in ("hardest", "easiest"):
        done = call("samples", str(project.config), f"--{order}", "3")
        assert done.code == 2
        assert f"--{order} needs the loss of each sample" in done.err
    page = tmp_path / "page.html"
    assert call("report", str(project.config), "--out", str(page)).code == 0
    assert "--hardest needs the loss of each sample" in page.read_text()
