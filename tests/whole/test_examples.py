"""The examples are what they say: they load, pass the checks before the start, and train."""

import sys
import sysconfig
from pathlib import Path

import pytest
from support.runs.bare_run import BareRun
from support.runs.jobs import CONFIGS, EXAMPLES, Job, require_packages
from support.runs.project import call

from epochal.tasks.config.load import load_config
from epochal.tasks.sweeps.members import load_sweep
from epochal.tasks.sweeps.work import SweepWork

OURS = [path for path in CONFIGS if path.parent.name in {"digits", "own_project", "mobilevit"}]
"""Those that need no package beside ours, and no file to be made first."""
SWEEP = EXAMPLES / "sweep" / "sweep.yaml"
WAVES = EXAMPLES / "own_project" / "waves.yaml"


@pytest.fixture
def waves(monkeypatch):
    """The example's module of data, imported as the config does it."""
    monkeypatch.syspath_prepend(str(WAVES.parent))
    import waves

    yield waves
    sys.modules.pop("waves", None)


def opened(path, store):
    from epochal.tasks.running.open import open_run

    return open_run(load_config(path, overrides=[f"store={store}"])).session


def test_there_are_examples():
    assert {path.parent.name for path in CONFIGS} >= {"digits", "own_project"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] * (path.parent.name == "fine_tuning"))
        for path in CONFIGS
    ],
    ids=lambda path: path.parent.name,
)
def test_an_example_passes_the_checks_before_the_start(path, tmp_path):
    require_packages(path.parent.name)
    session = opened(Job.made(path, tmp_path).config, tmp_path / "store")
    assert session.run.stages[0].kind == "initialise"
    mines = session.config.sampling.policy != "none"
    assert len(session.run.stages) == 1 + (2 + mines) * session.config.epochs
    assert not session.run.records


@pytest.mark.slow
def test_examples_in_one_process_do_not_take_each_others_modules(tmp_path):
    for path in (*OURS, OURS[0]):
        session = opened(path, tmp_path / "store")
        assert session.run_inputs.sources["model"].keys() <= {
            file.name for file in path.parent.glob("*.py")
        }


def test_samples_of_the_own_project_have_ids_of_their_own(tmp_path):
    session = opened(WAVES, tmp_path / "store")
    ids = session.data["validation_data"].sample_ids_N
    assert ids.tolist() == list(range(1_000_000, 1_000_400))


def test_a_wave_is_the_same_at_each_reading_but_for_the_noise_of_the_training(waves):
    import torch

    for split, is_same in (("train", False), ("validation", True)):
        data = waves.Waves(split, size=8)
        first, second = data[3], data[3]
        assert first["frequency"] == second["frequency"]
        assert torch.equal(first["signal"], second["signal"]) == is_same


def test_as_many_labels_are_wrong_as_the_readme_says(waves):
    wrong = sum(
        item["label"] != position % 4
        for position, item in enumerate(
            waves.Waves("train", size=1200, mislabelled=0.04)[row] for row in range(1200)
        )
    )
    assert wrong == 45
    assert "has 45 wrong labels among 1,200" in (EXAMPLES.parent / "README.md").read_text()


def test_the_perplexity_of_the_characters_falls(tmp_path, home):
    small = {
        "model__args": "{width: 16, depth: 1, length: 32}",
        "train_data__args": "{split: train, size: 40000, window: 32}",
        "validation_data__args": "{split: validation, size: 4000, window: 32}",
    }
    job = Job.made(EXAMPLES / "characters" / "characters.yaml", tmp_path)
    run = BareRun(
        job.config, **small, epochs=3, schedule__decay=1, launch__kind="inline", threads=1
    )
    first, *_, last = [
        one.record.values["metrics"]["perplexity"]
        for one in run().outcomes
        if one.stage.kind == "validate"
    ]
    assert last < first < 97  # characters that there are


def test_the_characters_are_those_of_pythons_own_library_and_of_other_files_for_validation(
    monkeypatch,
):
    monkeypatch.syspath_prepend(str(EXAMPLES / "characters"))
    from library import CHARACTERS, Library

    def text(split):
        data = Library(split, size=3000, window=100)
        assert len(data) == 29
        inputs, targets = data[0]
        assert inputs[1:].tolist() == targets[:-1].tolist()
        return "".join((CHARACTERS + "?")[one] for one in inputs)

    try:
        first, *_ = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
        assert first.read_text().startswith(text("validation"))
        assert text("train") != text("validation")
        assert text("train") == text("train")
    finally:
        sys.modules.pop("library")


def test_the_page_of_examples_names_each():
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    for path in CONFIGS:
        assert f"](../examples/{path.parent.name}/{path.name})" in page


def test_the_sweep_trains_24_epochs_for_runs_that_have_48(tmp_path):
    work = SweepWork.prepared(load_sweep(SWEEP, overrides=[f"store={tmp_path / 'store'}"]))
    assert (work.tree.epochs_distinct, work.tree.epochs_sum) == (24, 48)


@pytest.mark.slow
@pytest.mark.server
def test_the_sweep_runs(tmp_path, tracker, prefect_api):
    short = ("--set", f"store={tmp_path / 'store'}", "--set", "epochs=6", "--json")
    done = call("sweep", str(SWEEP), *short)
    assert done.code == 0, done.err
    assert done.json["epochs"] == {"distinct": 2 + 4 * 4, "sum": 24, "computed": 2 + 4 * 4}


@pytest.mark.server
def test_the_own_project_trains(tmp_path, tracker, prefect_api):
    store = f"store={tmp_path / 'store'}"
    short = ("--set", store, "--set", "epochs=2", "--set", "schedule.decay=0", "--json")
    done = call("train", str(WAVES), *short)
    assert done.code == 0, done.err
    metrics = done.json["metrics"]
    assert metrics["validation/shape_accuracy"] > 0.3
    assert metrics["validation/frequency_error"] < 3
    place = ("--store", str(tmp_path / "store"), "--json")
    view = call("samples", "waves", "--suspects", "20", *place)
    assert view.code == 0, view.err
    assert all(sample["margin"] is not None for sample in view.json["samples"])
    assert all(sample["confidence"] is not None for sample in view.json["samples"])
