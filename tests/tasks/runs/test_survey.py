"""What a start reads: records and sizes of all stages; an artifact only where a stage loads it."""

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call, environment

from epochal.data.stage_store.status import PRUNED
from epochal.data.store import open as opening

EPOCHS = 12


@dataclass(frozen=True)
class Operation:
    """One operation. path: of the object or folder; read_bytes: what was given out."""

    name: str
    path: str
    read_bytes: int = 0

    @property
    def is_of_artifact(self):
        """Whether it is a table or a part of a checkpoint: of a stage, named by its digest."""
        folder, _, name = self.path.rpartition("/")
        return folder.startswith("stages/") and len(name.partition(".")[0]) == 64


class CountedBackend:
    """A backend whose operations are noted."""

    def __init__(self, inner, operations):
        self._inner, self._operations = inner, operations

    def __getattr__(self, name):
        given = getattr(self._inner, name)
        if not callable(given) or name in {"map", "scratch"}:
            return given

        def noted(path, *args, **kwargs):
            answer = given(path, *args, **kwargs)
            size = len(answer) if name == "read" else 0
            self._operations.append(Operation(name, path, size))
            return answer

        return noted

    @contextmanager
    def fetch(self, path):
        with self._inner.fetch(path) as local:
            self._operations.append(Operation("fetch", path, local.stat().st_size))
            yield local


@contextmanager
def counted():
    """Inside the block: the operations of every store that is opened there, in order."""
    operations = []
    original = opening.backend_at
    opening.backend_at = lambda address: CountedBackend(original(address), operations)
    try:
        yield operations
    finally:
        opening.backend_at = original


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project of many epochs that make tables and averages, done once."""
    with environment(HOME=str(tmp_path_factory.mktemp("home"))):
        project = Project(
            tmp_path_factory.mktemp("survey") / "project",
            epochs=EPOCHS,
            ema={"decay": 0.9},
            sampling={"policy": "easy_skip", "confidence": 0.7, "final_full": 0},
        )
        BareRun(project.config)()
        yield project


def test_a_cached_run_reads_no_artifact_and_asks_twice_for_each_stage(project):
    with counted() as operations:
        run = BareRun(project.config)()
    assert all(outcome.cached for outcome in run.outcomes)
    stages, data_sets, plans = len(run.view.stages), 2, 1
    found = Counter((one.name, one.path.partition("/")[0]) for one in operations)
    assert found == {
        ("listing", "stages"): stages,
        ("read", "stages"): stages,  # the records
        ("read", "fingerprints"): data_sets,
        ("listing", "runs"): 1,
        ("read", "runs"): plans,
    }
    assert not [one for one in operations if one.is_of_artifact]


def test_one_more_epoch_loads_each_artifact_of_its_parents_once(project):
    with counted() as operations:
        run = BareRun(project.config, epochs=EPOCHS + 1)()
    session = run.session
    trained = session.run.record_of(session.run.stage("train", EPOCHS - 1))
    mined = session.run.record_of(session.run.stage("mine", EPOCHS - 1))
    made = [session.run.stage("train", EPOCHS), session.run.stage("mine", EPOCHS)]
    own = session.run.record_of(made[0])
    read = Counter(
        one.path for one in operations if one.is_of_artifact and one.name in {"fetch", "read"}
    )
    assert read == {
        **{
            f"stages/{trained.key}/{trained.artifacts[name].file}": 1
            for name in ("model", "optimizer", "state", "ema")
        },
        f"stages/{mined.key}/{mined.artifacts['samples'].file}": 2,  # by `train` and by `mine`
        f"stages/{own.key}/{own.artifacts['observations'].file}": 1,
    }


def test_commits_inside_a_finished_epoch_are_deleted(project):
    run = BareRun(project.config)
    left = project.store / "stages" / run.view.stage("train", 0).key / "partial" / "left.json"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"{}")
    again = BareRun(project.config)
    assert not left.exists()
    assert again.view.is_whole
    assert again.notices == []


def test_what_gc_has_removed_and_a_stage_needs_is_told_before_anything_is_computed(tmp_path, home):
    project = Project(tmp_path / "project", epochs=2, sampling={"policy": "none"})
    run = BareRun(project.config)()
    trained, folder = run.view.record("train", 0), run.session.stage_store
    folder.put_side_file(trained.key, PRUNED, {"artifacts": ["optimizer"]})
    folder.store.delete(f"stages/{trained.key}/{trained.artifacts['optimizer'].file}")
    folder.store.delete(f"stages/{run.view.stage('train', 1).key}/record.json")
    again = BareRun(project.config)
    assert not again.view.is_done(again.view.stage("train", 0))
    (told,) = [text for text in again.notices if text.startswith("train · epoch 0")]
    assert "`epochal gc` has removed its optimizer, which a later stage needs" in told


def test_a_linked_folder_of_stages_stops_the_run_before_its_start(tmp_path):
    """Nothing may be set aside through the link, and what it leads to is not used."""
    project = Project(tmp_path / "project", epochs=1)
    (tmp_path / "elsewhere").mkdir()
    project.store.mkdir()
    (project.store / "stages").symlink_to(tmp_path / "elsewhere")
    done = call("train", str(project.config))
    assert done.code == 2
    assert "stages: a symbolic link" in done.err.replace("\n", " ")
    assert "put a folder in its place" in done.err.replace("\n", " ")
    assert not list((tmp_path / "elsewhere").iterdir())
