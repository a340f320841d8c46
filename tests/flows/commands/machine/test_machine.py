"""`doctor`, `status`, `logs` and `watch`: what a person is told of this machine and its runs."""

import json
import threading
import time
from types import SimpleNamespace

import pytest
from support.runs.bare_run import BareRun, finished_project
from support.runs.project import Project, call

from epochal.data.documents import dump_document
from epochal.flows.commands.machine import doctor, watch
from epochal.tasks.config.load import load_config
from epochal.tasks.reporting import SilentReporter
from epochal.tasks.running.journal import Journal, attempts


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_project(tmp_path_factory.mktemp("finished"))


def checks(done, name):
    return [one for one in done.json["checks"] if one["name"] == name]


def test_doctor_finds_nothing_wrong_here_and_tries_the_store(home, tmp_path):
    done = call("doctor", "--store", str(tmp_path / "store"), "--json")
    assert done.code == 0, done.out
    assert done.json["problems"] == 0
    assert {one["level"] for one in done.json["checks"]} <= {"ok", "warning"}
    assert "never overwrites" in checks(done, "store")[0]["found"]
    assert {"versions", "cores", "memory", "device", "prefect", "mlflow"} <= {
        one["name"] for one in done.json["checks"]
    }


def test_doctor_names_a_version_that_bites_with_what_to_do(home, monkeypatch):
    installed = doctor.metadata.version
    monkeypatch.setattr(
        doctor.metadata, "version", lambda name: "0.160" if name == "fastapi" else installed(name)
    )
    done = call("doctor", "--json")
    assert done.code == 2
    (found,) = checks(done, "fastapi")
    assert "does not import" in found["found"]
    assert found["remedy"] == 'pip install "fastapi<0.151"'


def test_doctor_tells_servers_stores_and_variables_that_do_not_work(home, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy")
    (tmp_path / "file").write_text("")
    done = call("doctor", "--store", str(tmp_path / "file"))
    assert done.code == 2
    out = " ".join(done.out.split())
    for told in ("✗ prefect", "! mlflow", "✗ environment HTTPS_PROXY", "✗ store", "3 problems"):
        assert told in out


def test_doctor_tries_a_config_as_its_start_would(home, tmp_path):
    project = Project(tmp_path / "project")
    done = project("doctor")
    assert done.code == 0, done.out
    assert [one["found"] for one in checks(done, "data")] == [
        "train_data: 180 samples", "validation_data: 90 samples",
    ]  # fmt: skip
    broken = project("doctor", model__target="model:Nit")
    assert broken.code == 2
    assert "did you mean 'Net'?" in checks(broken, "run")[0]["found"]
    assert not [one for one in project.store.rglob("*") if one.is_file()]


def journal_of(project, **told):
    journal = Journal(load_config(project.config), SilentReporter())
    journal.found(reference="blobs@1", store=project.store.as_uri())
    journal._tell(**told)
    return journal


def test_status_shows_runs_at_work_with_where_they_stand(home, tmp_path):
    assert "no run works here" in call("status").out
    project = Project(tmp_path / "project")
    journal = journal_of(project, epoch=1, update=4, num_updates=12, doing="train · epoch 1")
    journal.linked("MLflow", "http://127.0.0.1:5000/#/runs/1")
    shown = call("status")
    assert "epoch 1 of 4, update 4 of 12" in shown.out
    assert "MLflow   http://127.0.0.1:5000/#/runs/1" in shown.out
    (found,) = call("status", "--json").json["runs"]
    assert (found["run"], found["reference"], found["update"]) == ("blobs", "blobs@1", 4)
    journal.close("finished")
    assert call("status", "--json").json == {"runs": [], "servers": []}


def test_logs_are_printed_by_attempt_and_say_what_ended_without_a_word(home, tmp_path):
    project = Project(tmp_path / "project")
    first, second = journal_of(project), journal_of(project)
    first.printed("first words")
    first.close("finished")
    second.printed("second words")
    note = attempts("blobs")[0].log.with_suffix(".json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "began": 1.0}))  # that one is dead
    done = call("logs", "blobs")
    assert "second words" in done.out
    assert "first words" not in done.out
    assert "ended without a word" in done.err
    assert "first words" in call("logs", "blobs", "--attempt", "2").out
    assert call("logs", "blobs", "--tail", "1").out.splitlines() == [
        attempts("blobs")[0].log.read_text().splitlines()[-1]
    ]
    assert [one["alive"] for one in call("logs", "blobs", "--json").json["attempts"]] == [False] * 2


def test_followed_logs_end_with_the_attempt(home, tmp_path):
    journal = journal_of(Project(tmp_path / "project"))
    following = threading.Timer(0.2, lambda: (journal.printed("late"), journal.close("finished")))
    following.start()
    done = call("logs", "blobs", "--follow")
    following.join()
    assert [line.split()[-1] for line in done.out.splitlines()[-2:]] == ["late", "finished"]


def attempt_elsewhere(project):
    body = {"started_ms": 17 * 10**11, "host": "elsewhere", "pid": 7, "folder": "/there"}
    path = project.store / "runs" / "blobs" / "attempts" / "1-a.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dump_document({**body, "plan": "blobs@1"}))


def test_of_a_run_without_a_log_here_it_is_said_where_it_worked(finished, home):
    attempt_elsewhere(finished)
    done = call("logs", str(finished.config), "--set", "epochs=2")
    assert done.code == 2
    assert "was on elsewhere (pid 7" in " ".join(done.err.split())


def test_watch_prints_a_run_that_is_done_and_ends(finished, home):
    done = call("watch", str(finished.config), "--set", "epochs=2")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["0", "1"]
    assert lines[2].startswith("blobs@1 is done: best accuracy")


def test_watch_follows_by_commits_alone_and_ends_when_the_process_has(home, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "PLAIN_EVERY_S", 0.0)
    changes = {"checkpoint": {"every_updates": 2}, "gradients": {"accumulate": 1}}
    project = Project(tmp_path / "project", epochs=2, **changes)
    run = BareRun(project.config)
    stages = list(run.run.stages())
    for stage in stages[:3]:
        run.run.run_stage(stage)
    looks = []

    def sleep(_):
        looks.append(len(looks))
        if len(looks) == 2:
            for stage in stages[3:]:
                run.run.run_stage(stage)

    clock = SimpleNamespace(sleep=sleep, monotonic=time.monotonic, time=time.time)
    monkeypatch.setattr(watch, "time", clock)
    done = call("watch", str(project.config))
    assert done.code == 0, done.err
    assert len(looks) == 2
    assert "epoch 1 of 2 · no commit inside it yet" in done.err
    assert "left" in done.err
    assert done.out.count("epoch") == 3


def test_watch_says_that_the_process_is_gone_with_75(home, tmp_path):
    project = Project(tmp_path / "project", epochs=2)
    run = BareRun(project.config)
    run.run.run_stage(next(run.run.stages()))
    journal_of(project).close("error")
    done = call("watch", str(project.config))
    assert done.code == 75
    assert "epoch 0 has not" in " ".join(done.err.split())


def test_an_attempt_on_another_machine_is_newer_than_one_that_failed_here(home, tmp_path):
    project = Project(tmp_path / "project", epochs=1)
    run = BareRun(project.config)
    journal_of(project).close("error")
    attempt_elsewhere(project)  # of long ago: this machine's is what counts
    assert call("watch", str(project.config)).code == 75
    run()
    done = call("watch", str(project.config))
    assert done.code == 0, done.err


def test_a_wrong_name_is_told_by_each(home, tmp_path):
    for command in ("logs", "watch"):
        done = call(command, "nobody")
        assert (done.code, "there is no run 'nobody'" in " ".join(done.err.split())) == (2, True)
