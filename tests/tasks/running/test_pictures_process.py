"""Pictures drawn by a process that outlives the command: the same ones, once, or by the next."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.runs.project import Project, environment
from support.stores.tracking_store import Database

from epochal.data.errors import ConfigError
from epochal.tasks.config.load import load_config
from epochal.tasks.run_data.sample_images import NoImage
from epochal.tasks.running import pictures_process, run_pictures
from epochal.tasks.running.lifecycle import active_run, prepare
from epochal.tasks.running.pictures_process import BATCH_SYSTEMS, draws_beside, wait_until_drawn
from epochal.tasks.running.run_pictures import DATA_MAP, KEPT, REPORT
from epochal.tasks.running.tracked_run import sync_run
from epochal.tasks.runs.find_run import find_run
from epochal.tasks.tracking.background import PICTURES_DUE_TAG, PICTURES_TAG
from epochal.tasks.tracking.connection import connect

NAMES = {DATA_MAP, KEPT, REPORT}


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    monkeypatch.setenv("EPOCHAL_PICTURES", "beside")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A run of two epochs that is done, with images as items."""
    folder = tmp_path_factory.mktemp("pictures")
    project = Project(folder / "project", epochs=2)
    project.write(
        "pictures.py",
        """
        from torch import nn
        from torch.utils.data import TensorDataset
        from blobs import blobs

        def pictures(split):
            x, y = blobs(split).tensors
            return TensorDataset(x.reshape(-1, 1, 2, 3), y)

        def Net():
            return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
        """,
    )
    with environment(HOME=str(folder / "home")):
        run(config_of(project))
    return project


def config_of(project, *more):
    sets = [
        *(f"{split}_data={{target: 'pictures:pictures', args: {{split: {split}}}}}"
          for split in ("train", "validation")),
        "model={target: 'pictures:Net'}", "sampling.final_full=0", *more,
    ]  # fmt: skip
    return load_config(project.config, overrides=sets)


def run(config):
    """Runs what is left of it; how its delivery ended."""
    with active_run(config) as active:
        for stage in active.run.stages():
            active.run.run_stage(stage)
    return active.delivered


def delivered(config):
    """MLflow's id of the run, which is delivered whole."""
    result = run(config)
    assert result.problem is None
    return result.run_id


class Log:
    """What MLflow has of a run."""

    def __init__(self, tracker, run_id):
        self.client, self.run_id = connect(tracker), run_id

    @property
    def files(self):
        found = [
            *self.client.list_artifacts(self.run_id),
            *self.client.list_artifacts(self.run_id, "figures"),
        ]
        return {one.path for one in found if not one.is_dir} & NAMES

    @property
    def all(self):
        """MLflow's database, and the pictures."""
        database = Database(Path(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")))
        return database.dump(), {name: self.read(name) for name in NAMES}

    @property
    def owed(self):
        tags = self.client.get_run(self.run_id).data.tags
        return tags[PICTURES_DUE_TAG] != tags.get(PICTURES_TAG)

    @property
    def status(self):
        return self.client.get_run(self.run_id).info.status

    def read(self, name):
        return Path(self.client.download_artifacts(self.run_id, name)).read_bytes()


def replacing(monkeypatch, start):
    """Instead of the process that draws `start` is called with what would start it."""
    popen = subprocess.Popen

    def chosen(command, *args, **options):
        draws = pictures_process.__name__ in command
        return (start if draws else popen)(command, *args, **options)

    monkeypatch.setattr(pictures_process.subprocess, "Popen", chosen)


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """What processes were given to draw; none is started."""
    given, popen = [], subprocess.Popen

    def start(_, *, stdin, **__):
        given.append(tmp_path / f"job-{len(given)}")
        given[-1].write_bytes(stdin.read())
        return popen([sys.executable, "-c", ""])

    replacing(monkeypatch, start)
    return given


@pytest.fixture
def draw(monkeypatch):
    """Does in this process what another one is given to do."""
    monkeypatch.setattr(signal, "alarm", lambda _: None)
    monkeypatch.setattr(os, "nice", lambda _: None)
    monkeypatch.setattr(pictures_process.gc, "disable", lambda: None)

    def call(path):
        with path.open("rb") as given, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", SimpleNamespace(buffer=given))
            pictures_process.main()

    return call


@pytest.fixture
def killed(monkeypatch):
    """Each process that is to draw is killed at once; their number."""
    started, popen = [], subprocess.Popen

    def start(*args, **options):
        process = popen(*args, **options)
        os.kill(process.pid, signal.SIGKILL)
        started.append(process)
        return process

    replacing(monkeypatch, start)
    return started


def test_the_process_draws_what_the_command_would_have_drawn_without_torch(
    project, tracker, monkeypatch
):
    popen = subprocess.Popen

    def start(command, **options):
        return popen([command[0], "-X", "importtime", *command[1:]], **options)

    replacing(monkeypatch, start)
    config = config_of(project)
    of_process = Log(tracker, delivered(config))
    assert of_process.status == "FINISHED"
    wait_until_drawn()
    assert (of_process.files, of_process.owed) == (NAMES, False)
    drawn = {name: of_process.read(name) for name in NAMES}
    assert drawn[REPORT].count(b"<figure>") == 48  # the hardest samples and the suspects
    imported = {
        line.rpartition("|")[2].strip()
        for line in (Path.home() / ".epochal/pictures.log").read_text().splitlines()
    }
    assert "mlflow" in imported
    assert not imported & {"torch", "prefect"}
    of_process.client.delete_run(of_process.run_id)
    monkeypatch.setenv("EPOCHAL_PICTURES", "here")
    here = Log(tracker, delivered(config))
    assert {name: here.read(name) for name in NAMES} == drawn


def test_the_process_leads_a_session_of_its_own_and_is_waited_for(project, tracker, monkeypatch):
    started, popen = [], subprocess.Popen

    def start(command, **options):
        code = "import os; print(os.getsid(0) == os.getpid(), flush=True); input()"
        reading, writing = os.pipe()
        options |= {"stdin": reading, "stdout": subprocess.PIPE}
        process = popen([command[0], "-c", code], **options)
        os.close(reading)
        started.append((process, writing))
        return process

    replacing(monkeypatch, start)
    delivered(config_of(project))
    ((process, writing),) = started
    assert process.stdout.readline() == b"True\n"
    assert process.poll() is None  # the command did not wait
    os.write(writing, b"\n")
    os.close(writing)
    with process.stdout:
        assert process.stdout.read() == b""
    wait_until_drawn()
    assert process.wait() == 0


@pytest.mark.slow
def test_what_a_killed_process_leaves_undone_sync_draws(project, tracker, killed):
    log = Log(tracker, delivered(config_of(project)))
    wait_until_drawn()
    assert (len(killed), log.files, log.owed, log.status) == (1, set(), True, "FINISHED")
    found = find_run(f"{project.store}/{config_of(project).name}")
    result = sync_run(found, notice=lambda _: None, local_mlflow=None)
    assert (result.problem, log.files, log.owed) == (None, NAMES, False)


@pytest.mark.slow
def test_what_a_killed_process_leaves_undone_the_next_command_draws_itself(
    project, tracker, killed
):
    log = Log(tracker, delivered(config_of(project)))
    wait_until_drawn()
    assert delivered(config_of(project)) == log.run_id
    assert (len(killed), log.files, log.owed) == (1, NAMES, False)


def test_what_hinders_the_process_the_next_command_tells(project, tracker, killed, monkeypatch):
    from mlflow import MlflowClient

    delivered(config_of(project))

    def fail(*_, **__):
        raise OSError("the artifact server is away")

    monkeypatch.setattr(MlflowClient, "log_artifact", fail)
    assert "the artifact server is away" in run(config_of(project)).problem


@pytest.mark.slow
def test_a_process_that_slept_writes_nothing_over_what_is_newer(
    project, tracker, kept, draw, monkeypatch
):
    """The run goes on with another epoch meanwhile, and gets its new pictures first."""
    log = Log(tracker, delivered(config_of(project)))
    monkeypatch.setenv("EPOCHAL_PICTURES", "here")
    assert delivered(config_of(project, "epochs=3")) == log.run_id
    assert (log.files, log.owed) == (NAMES, False)
    before = log.all
    draw(kept[0])
    assert log.all == before


def test_nothing_is_written_of_a_run_that_is_at_work_again(project, tracker, kept, draw):
    log = Log(tracker, delivered(config_of(project)))
    log.client.update_run(log.run_id, status="RUNNING")
    draw(kept[0])
    assert log.files == set()


@pytest.mark.slow
def test_nothing_is_written_if_the_run_goes_on_while_they_are_drawn(
    project, tracker, kept, draw, monkeypatch
):
    log = Log(tracker, delivered(config_of(project)))
    drawn = run_pictures._pictures

    def meanwhile(*args):
        yield from drawn(*args)
        log.client.set_tag(log.run_id, PICTURES_DUE_TAG, "of an epoch more")

    monkeypatch.setattr(run_pictures, "_pictures", meanwhile)
    draw(kept[0])
    assert log.files == set()


@pytest.mark.slow
def test_of_two_that_draw_the_same_the_second_writes_nothing(project, tracker, kept, draw):
    log = Log(tracker, delivered(config_of(project)))
    draw(kept[0])
    before = log.all
    assert log.files == NAMES
    draw(kept[0])
    assert log.all == before


@pytest.mark.slow
def test_images_that_cannot_be_read_are_told_on_the_page(project, tracker, kept, draw, monkeypatch):
    def read(*_):
        raise NoImage("train_data: sample 7: its input is a song")

    monkeypatch.setattr("epochal.tasks.run_data.sample_images.read_images", read)
    log = Log(tracker, delivered(config_of(project)))
    draw(kept[0])
    assert log.read(REPORT).count(b"No pictures: train_data: sample 7") == 2


@pytest.mark.parametrize(
    ("pid", "parent", "variables", "drawn"),
    [
        (7, 5, {}, True),
        (1, 0, {}, False),
        (7, 1, {}, False),
        *((7, 5, {name: "1"}, False) for name in BATCH_SYSTEMS),
        (7, 1, {"EPOCHAL_PICTURES": "beside"}, True),
        (7, 5, {"EPOCHAL_PICTURES": "here"}, False),
    ],
)
def test_they_are_drawn_beside_where_a_process_outlives_the_command(
    pid, parent, variables, drawn, monkeypatch
):
    monkeypatch.delenv("EPOCHAL_PICTURES")
    for name in BATCH_SYSTEMS:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "getpid", lambda: pid)
    monkeypatch.setattr(os, "getppid", lambda: parent)
    assert draws_beside("file:///a/store") is drawn
    assert draws_beside("memory://a/store") is False


def test_another_word_for_where_they_are_drawn_is_refused_before_the_start(project, monkeypatch):
    monkeypatch.setenv("EPOCHAL_PICTURES", "later")
    with pytest.raises(ConfigError, match="EPOCHAL_PICTURES: found 'later'; expected 'here'"):
        prepare(config_of(project), reporter=None)


def test_a_process_that_hangs_is_ended_in_time(monkeypatch):
    alarms = []
    monkeypatch.setattr(signal, "alarm", alarms.append)
    monkeypatch.setattr(os, "nice", lambda _: None)
    monkeypatch.setattr(pictures_process.gc, "disable", lambda: None)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(ValueError, match="JSON"):
        pictures_process.main()
    assert alarms == [pictures_process.LIMIT_S]
