"""Whole runs and what they cost: a file per stage, read again, whatever became of some of them."""

import json
import re

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call, environment

from epochal.data.documents import dump_document
from epochal.data.errors import TrainingFailed
from epochal.data.stage_store.status import side_path
from epochal.flows.console import REST_WIDTH, goodput_lines, goodput_table
from epochal.tasks.goodput.run import (
    RunGoodput,
    goodput_points,
    other_causes,
    run_goodput,
    stage_goodput,
)
from epochal.tasks.goodput.sign_of_life import SignOfLife
from epochal.tasks.goodput.stopwatch import CAUSES
from epochal.tasks.goodput.totals import GOODPUT, Totals


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with environment(HOME=str(folder)):
        project = Project(folder / "project", epochs=2, validation={"every_updates": 2})
        return project, BareRun(project.config)()


def of(run, kind, epoch):
    return stage_goodput(run.session.stage_store, run.view.stage(kind, epoch).known_key)


def test_each_stage_of_a_run_says_what_it_cost(finished):
    _, run = finished
    assert of(run, "initialise", None).seconds.keys() <= {"orchestration", "commit"}
    assert "validation" in of(run, "validate", 0).seconds
    assert "mining" in of(run, "mine", 1).seconds
    trained = of(run, "train", 1)
    assert trained.samples == run.view.record("train", 1).values["samples"]
    assert trained.seconds.keys() >= {
        "data", "forward_backward", "optimizer", "validation", "commit",
    }  # fmt: skip
    assert (trained.resumed, trained.unknown_losses) == (0, 0)
    assert trained.peak_host_bytes > 1 << 20


def test_an_epoch_is_its_stages_together_and_the_run_is_all_of_them(finished):
    _, run = finished
    goodput = run_goodput(run.view, run.session.stage_store)
    assert list(goodput.epochs) == [0, 1]
    assert goodput.unknown == 0
    parts = [of(run, kind, 1) for kind in ("train", "validate", "mine")]
    together = sum(part.wall_seconds for part in parts)
    assert goodput.epochs[1].wall_seconds == pytest.approx(together)
    whole = sum(one.wall_seconds for one in goodput.epochs.values())
    whole += of(run, "initialise", None).wall_seconds
    assert goodput.whole.wall_seconds == pytest.approx(whole)
    assert 0 < goodput.whole.share < 1


def test_the_clock_is_in_no_record_and_no_artifact(finished, tmp_path):
    project, run = finished
    with environment(HOME=str(tmp_path)):
        again = BareRun(
            Project(tmp_path / "again", epochs=2, validation={"every_updates": 2}).config
        )()
    assert again.digests == run.digests
    records = {
        path.parent.name: path.read_bytes() for path in project.store.glob("stages/*/record.json")
    }
    other = again.session.stage_store.store
    assert {key: other.read(f"stages/{key}/record.json") for key in records} == records


def test_a_run_that_failed_and_went_on_has_lost_what_followed_its_last_commit(tmp_path, home):
    project = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    sets = {"checkpoint__every_updates": 2, "loader__batch_size": 10}

    def run(**variables):
        with environment(**variables):
            made = BareRun(project.config, **sets)
            made.work.goodput.signs = SignOfLife(tmp_path / "alive.json")
            return made()

    with pytest.raises(TrainingFailed, match="on fire"):
        run(FAIL_AT_CALL="8", STEP_SECONDS="0.01")
    done = run()
    assert done.resumed[("train", 0)] >= 4
    found = of(done, "train", 0)
    assert (found.resumed, found.unknown_losses, found.samples) == (1, 0, 180)
    assert found.seconds["lost"] > 0
    assert not (tmp_path / "alive.json").exists()


def test_files_that_are_missing_damaged_or_foreign_are_counted_and_harm_nothing(tmp_path, home):
    project = Project(tmp_path / "project", epochs=1)
    run = BareRun(project.config)()
    store = run.session.store
    keys = [stage.known_key for stage in run.view.stages]
    store.delete(side_path(keys[0], GOODPUT))
    store.delete(side_path(keys[1], GOODPUT))
    store.put_new(side_path(keys[1], GOODPUT), b"\0" * 300)
    store.delete(side_path(keys[2], GOODPUT))
    store.put_new(side_path(keys[2], GOODPUT), dump_document({"seconds": "many"}))
    goodput = run_goodput(run.view, run.session.stage_store)
    assert goodput.unknown == 3
    assert list(goodput.epochs) == [0]
    assert goodput.whole.seconds.keys() <= {"mining", "commit", "orchestration"}
    shown = call("show", str(project.config))
    assert shown.code == 0, shown.err
    assert "unknown  what 3 stages have cost" in shown.out
    for key in keys[1:]:
        store.delete(side_path(key, GOODPUT))
    assert run_goodput(run.view, run.session.stage_store) is None
    old = call("show", str(project.config))
    assert "goodput" not in old.out
    assert call("show", str(project.config), "--json").json["goodput"] is None
    page = tmp_path / "page.html"
    assert call("report", str(project.config), "--out", str(page)).code == 0
    assert "Goodput" not in page.read_text()
    assert call("verify", str(project.store)).code == 0


def test_verify_names_a_damaged_file(tmp_path, home):
    project = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    run = BareRun(project.config)()
    path = project.store / side_path(run.view.stages[0].known_key, GOODPUT)
    path.write_bytes(path.read_bytes()[:-9])
    found = call("verify", str(project.store))
    assert found.code == 75
    assert GOODPUT in found.err + found.out


def test_show_has_a_line_for_each_epoch_and_all_of_it_as_json(finished):
    project, run = finished
    with environment(COLUMNS="80"):
        shown = call("show", str(project.config)).out
    lines = shown[shown.index("epoch  seconds") :].splitlines()
    assert [one.split()[0] for one in lines] == ["epoch", "0", "1", "all", "memory"]
    assert "memory   host " in shown
    assert all(len(one.rstrip()) <= 80 for one in lines)
    body = call("show", str(project.config), "--json").json
    assert (
        json.loads(json.dumps(body["goodput"]))
        == run_goodput(run.view, run.session.stage_store).as_object()
    )
    assert set(body["goodput"]["run"]["seconds"]) == set(CAUSES)
    assert [one["epoch"] for one in body["goodput"]["epochs"]] == [0, 1]


def test_a_line_of_the_largest_run_fits_into_80_columns():
    long = Totals(
        dict.fromkeys(CAUSES, 1234567.8), samples=10**15, resumed=7, unknown_losses=3,
        peak_host_bytes=1 << 40, peak_child_bytes=1 << 40, peak_device_bytes=1 << 40,
        flops=1e20, possible_flops=3e20,
    )  # fmt: skip
    goodput = RunGoodput({999_999: long}, long, unknown=12)
    table = goodput_table(goodput)
    widths = [max(len(str(cell)) for cell in column._cells) for column in table.columns]
    widths = [
        max(width, len(str(one.header))) for width, one in zip(widths, table.columns, strict=True)
    ]
    assert widths[-1] <= REST_WIDTH
    assert sum(widths[:-1]) + 2 * 4 <= 44
    found = goodput_lines(goodput)
    assert all(len(one) <= 80 for one in found)
    assert "lost     3 of 7 times it is not known what was lost" in found
    assert "device   33.3% of the operations that it can do" in found


def test_points_of_training_have_each_cause_and_those_of_other_stages_one_name_each(finished):
    _, run = finished
    trained = goodput_points(run.view.record("train", 0), of(run, "train", 0))
    assert trained["goodput/optimizer_seconds"] > 0
    assert 0 < trained["goodput/share"] < 1
    assert trained["goodput/samples_per_second"] > 0
    names = set(trained)
    for kind in ("validate", "mine"):
        points = goodput_points(run.view.record(kind, 0), of(run, kind, 0))
        assert list(points) == [f"goodput/{kind}_stage_seconds"]
        assert not names & set(points)


def test_what_moved_no_weights_comes_longest_first():
    one = Totals({"data": 1.0, "forward_backward": 9.0, "optimizer": 5.0, "commit": 2.0})
    assert other_causes(one) == [("commit", 2.0), ("data", 1.0)]
    assert other_causes(Totals()) == []


def test_the_report_draws_the_seconds_by_cause(finished, tmp_path):
    project, _ = finished
    page = tmp_path / "page.html"
    assert call("report", str(project.config), "--out", str(page)).code == 0
    text = page.read_text()
    assert "Goodput: seconds by cause" in text
    assert "moved the weights" in text
    assert re.search(r"; memory at most [1-9][\d,]* MB \(host\)", text)
    assert "forward backward" in text
