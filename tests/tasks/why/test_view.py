"""The samples, gradients and history of an update, against what training itself has kept."""

from functools import cache

import numpy as np
import pytest
from support.runs.bare_run import BareRun, unfinished_project
from support.runs.project import Project, environment

from epochal.data.errors import InputError
from epochal.data.tables.schemas import OBSERVATIONS
from epochal.data.tables.writing import read_table
from epochal.tasks.checkpoints.mid_epoch_codec import Recorded
from epochal.tasks.run_data.sample_names import SampleNames
from epochal.tasks.runs.find_run import find_run
from epochal.tasks.runs.open_epoch import OpenEpoch
from epochal.tasks.why.batch import committed_samples, epoch_order, plan_of
from epochal.tasks.why.replay import check_replay
from epochal.tasks.why.updates import read_updates, trained_epochs
from epochal.tasks.why.view import view_update

ONE = {"epochs": 1, "sampling": {"policy": "none"}}
RUNS = {
    "easy_skip": {"epochs": 3},
    "mixup": {
        **ONE,
        "mixing": {"mixup": 0.4, "probability": 0.7},
        "loader": {"batch_size": 7, "drop_last": True},
    },
    "weights": {"epochs": 2, "sampling": {"policy": "infobatch", "warm_up": 0}},
    "repeats": {**ONE, "batches": {"repeats": 2, "truncate": True}},
}


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """The projects of `RUNS`, each trained when it is first asked for."""
    made = {}

    def project(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            with environment(HOME=str(folder)):
                made[name] = Project(folder / "project", **RUNS[name])
                BareRun(made[name].config)().run.close()
        return made[name]

    return project


@cache
def run_of(project, *, by_config=True):
    return find_run(str(project.config) if by_config else f"{project.store}/blobs")


def viewed(project, update=None, epoch=None, *, by_config=True):
    told = []
    view = view_update(
        run_of(project, by_config=by_config),
        update=update, epoch=epoch, names=SampleNames, notice=told.append,
    )  # fmt: skip
    assert not told, told
    return view.as_object()


def orders(project, *, by_config):
    """Each epoch with its updates, its observations and its order."""
    run = run_of(project, by_config=by_config)
    for trained in trained_epochs(run):
        with run.stage_store.fetch_artifact(trained.record, "observations") as path:
            observed = read_table(path, schema=OBSERVATIONS).columns
        updates = read_updates(run, trained)
        order = epoch_order(run, trained.record, observed, updates, notice=pytest.fail)
        yield run, trained, updates, observed, order


@pytest.mark.parametrize("name", ["easy_skip", "mixup", "weights"])
def test_the_samples_of_every_update_are_those_whose_losses_make_its_loss(name, projects):
    for run, trained, updates, observed, order in orders(projects(name), by_config=False):
        table, seen = plan_of(run, trained.epoch), []
        for row in range(trained.count):
            ids = order.samples(run.config, epoch=trained.epoch, row=row).ids_B
            losses = observed["loss"][np.searchsorted(observed["sample_id"], ids)]
            losses = losses * (1 if table is None else table.weight_by_id(ids))
            told = updates.columns["train/loss"][row]
            assert np.mean(losses) == pytest.approx(told, rel=1e-5)
            seen += ids.tolist()
        assert len(set(seen)) == len(seen) == trained.record.values["samples"]


def test_an_order_of_the_data_set_needs_the_config_that_names_it(projects):
    name = "repeats"
    with pytest.raises(InputError, match=r"goes by the data set.*name the run by its config"):
        viewed(projects(name), 2, by_config=False)
    run, trained, _, _, order = next(orders(projects(name), by_config=True))
    rows = [order.samples(run.config, epoch=0, row=row).ids_B for row in range(trained.count)]
    assert sum(map(len, rows)) == trained.record.values["samples"]


def test_a_sample_that_comes_again_has_no_loss_of_its_own_there(projects):
    body = viewed(projects("repeats"), 3)
    again = [one for one in body["samples"] if one.get("repeat")]
    first = [one for one in body["samples"] if not one.get("repeat")]
    assert again
    assert all(one["loss"] is None and one["label"] >= 0 for one in again)
    assert all(one["loss"] is not None for one in first)


def test_whoever_is_mixed_with_whom_is_named_with_its_share(projects):
    body = viewed(projects("mixup"), 4)
    mixed = [one["mixed_with"] for one in body["samples"] if one["mixed_with"] is not None]
    of_batch = {}
    for one in body["samples"]:
        of_batch.setdefault(one["micro_batch"], set()).add(one["sample_id"])
    assert 0 < len(mixed) < len(body["samples"])
    assert all(one["how"] == "mixup" and 0 < one["share"] <= 0.5 for one in mixed)
    for one in body["samples"]:
        if one["mixed_with"] is not None:
            assert one["mixed_with"]["sample_id"] in of_batch[one["micro_batch"]]
            assert one["mixed_with"]["sample_id"] != one["sample_id"]


def test_gradients_rate_clip_and_what_came_before(projects):
    body = viewed(projects("easy_skip"), 8)
    gradients = body["gradients"]
    assert {"run", "epoch", "update", "samples", "gradients", "rate"} <= set(body)
    assert (body["epoch"], body["update"], body["update_of_epoch"]) == (1, 8, 2)
    assert (body["updates_in_epoch"], body["rate"]) == (6, 0.01)
    groups = list(gradients["groups"].values())
    assert sorted(gradients["groups"]) == ["body", "head"]
    assert np.sqrt(np.square(groups).sum()) == pytest.approx(gradients["norm"], rel=1e-5)
    assert body["clip"] == {
        "norm": 1.0, "value": None, "clipped": gradients["norm"] > gradients["norm_clipped"],
    }  # fmt: skip
    assert [one["update"] for one in body["before"]["updates"]] == [3, 4, 5, 6, 7]
    assert [one["in_this_epoch"] for one in body["before"]["updates"]] == [False] * 4 + [True]
    assert body["before"]["of"] == 7
    assert body["before"]["median"]["loss"] is None, "of fewer than 16 there is none"
    assert [one["epoch"] for one in body["epochs"]] == [0, 1]


def test_earlier_losses_are_those_of_the_same_sample_in_earlier_epochs(projects):
    now = {one["sample_id"]: one["earlier"] for one in viewed(projects("easy_skip"), 8)["samples"]}
    (_, _, _, observed, _), *_ = orders(projects("easy_skip"), by_config=True)
    for sample_id, earlier in now.items():
        row = int(np.searchsorted(observed["sample_id"], sample_id))
        assert earlier == [
            {
                "epoch": 0,
                "loss": pytest.approx(float(observed["loss"][row])),
                "correct": bool(observed["correct"][row]),
            }
        ]


def test_without_a_number_it_is_the_largest_spike_and_says_how(projects):
    body = viewed(projects("easy_skip"))
    assert body["update"] > 16
    assert set(body["spike"]) == {"of", "value", "median", "ratio"}
    value = body["loss"] if body["spike"]["of"] == "train/loss" else body["gradients"]["norm"]
    assert body["spike"]["value"] == value
    assert viewed(projects("easy_skip"), epoch=2)["epoch"] == 2
    with pytest.raises(InputError, match="--epoch 7: blobs@1 has trained epochs 0 to 2"):
        viewed(projects("easy_skip"), epoch=7)


@pytest.mark.parametrize("name", list(RUNS))
def test_a_commit_gives_an_update_the_samples_that_the_epochs_order_gives_it(name, projects):
    run, trained, _, _, order = list(orders(projects(name), by_config=True))[-1]
    whole = [
        order.samples(run.config, epoch=trained.epoch, row=row) for row in range(trained.count)
    ]
    ends_U = np.cumsum([len(one.ids_B) for one in whole])
    ids_N = np.concatenate([one.ids_B for one in whole])
    recorded = Recorded({}, {"sample_id": ids_N}, ends_U)
    open_ = OpenEpoch(trained.epoch, trained.count, None, 0, [[0, 0]], recorded)
    for row, expected in enumerate(whole):
        found = committed_samples(run.config, open_, row=row)
        assert found.ids_B.tolist() == expected.ids_B.tolist()
        assert found.micro_batch_B.tolist() == expected.micro_batch_B.tolist()
        assert found.repeats_B.tolist() == expected.repeats_B.tolist()
        assert found.mixed == expected.mixed


def test_an_update_of_an_epoch_that_is_not_done_is_told_as_when_it_is(tmp_path, home):
    project = unfinished_project(tmp_path)
    told = [view_of(project, 9), view_of(project, 2)]
    assert told[0].body["updates_committed"] == 4
    assert told[0].body["updates_in_epoch"] == 6
    assert "this is of its last commit, at update 4 of 6" in told[0].notes[0]
    assert told[1].notes == []
    with pytest.raises(InputError, match=r"1 to 10, .*; epoch 1 is not done, and committed up to "):
        view_of(project, 11)
    with pytest.raises(InputError, match=r"--replay: update 9 is of an epoch that is not done"):
        check_replay(find_run(str(project.config)), hook=None, update=9)
    BareRun(project.config)()
    done = view_of(project, 9).body
    of_open = {name: value for name, value in told[0].body.items() if name != "updates_committed"}
    assert [one["epoch"] for one in of_open.pop("epochs")] == [0]  # the other is not validated
    assert of_open == {name: value for name, value in done.items() if name != "epochs"}


def view_of(project, update):
    return view_update(
        find_run(str(project.config)), update=update, epoch=None, names=SampleNames,
        notice=pytest.fail,
    )  # fmt: skip
