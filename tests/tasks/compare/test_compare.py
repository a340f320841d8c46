"""Runs side by side: what differs, what is shared, where the numbers part."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call, environment

from epochal.data.errors import InputError
from epochal.flows.commands.inspect.compare import draw
from epochal.tasks.compare.compare import _unequal, compare_runs
from epochal.tasks.runs.find_run import find_run

HALVED = "{kind: multi_step, milestones: [1], factor: 0.5}"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Generation 2 halves the rate from epoch 1 on; 3 has another model and is not done."""
    folder = tmp_path_factory.mktemp("compare")
    with environment(HOME=str(folder)):
        project = Project(folder / "project", epochs=2, sampling={"policy": "none"})
        BareRun(project.config)().run.close()
        BareRun(project.config, schedule=HALVED)().run.close()
        model = (project.folder / "model.py").read_text().replace("Dropout(0.2)", "Dropout(0.4)")
        project.write("model.py", model)
        one = BareRun(project.config, name="other")
        one.run.close()
    return project.store


def compared(store, *names):
    return compare_runs([find_run(f"{store}/{name}") for name in names]).as_object()


def test_fields_shared_epochs_and_where_the_numbers_part(store):
    body = compared(store, "blobs@1", "blobs@2")
    assert body["runs"] == ["blobs@1", "blobs@2"]
    assert body["differs"]["schedule.kind"] == ["constant", "multi_step"]
    assert body["differs"]["schedule.factor"] == [None, 0.5]
    assert all(path.startswith("schedule.") for path in body["differs"])
    assert (body["shared_epochs"], body["shared_with_first"], body["code"]) == (1, [2, 1], {})
    assert body["epochs_done"] == [2, 2]
    parting = body["parting"]
    assert (parting["epoch"], parting["update"]) == (1, 7)
    assert parting["metrics"]["train/learning_rate"] == 7
    assert parting["metrics"]["train/loss"] == 8, "the step with the other rate comes after it"


def test_metrics_and_curves_have_a_value_for_each_run(store):
    body = compared(store, "blobs@1", "blobs@2")
    assert all(len(values) == 2 for values in body["metrics"].values())
    assert {"train/loss", "validation/accuracy", "best/epoch"} <= set(body["metrics"])
    first, second = body["epochs"]["train/loss"]
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert body["metrics"]["train/loss"] == [first[1], second[1]]


def test_changed_code_is_told_and_a_run_that_is_not_done_parts_nowhere_yet(store):
    body = compared(store, "blobs@1", "other")
    assert (body["shared_epochs"], body["parting"], body["differs"]) == (0, None, {})
    assert [text.partition(":")[0] for text in body["code"]["other@1"]] == [
        "model model.py in Net.__init__"
    ]
    assert body["metrics"]["train/loss"][1] is None
    assert body["epochs_done"] == [2, 0]


def test_one_run_alone_or_twice_is_refused(store):
    with pytest.raises(InputError, match="expected 2 to 32"):
        compared(store, "blobs@1")
    with pytest.raises(InputError, match="blobs@2 is named twice"):
        compared(store, "blobs@1", "blobs@2", "blobs")


def test_the_terminal_shows_it_within_80_columns(store, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = call("compare", "blobs@1", "blobs@2", "--store", str(store))
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "1 epochs are shared: computed once, the same bytes in all" in lines
    assert "  update 7: train/learning_rate" in lines
    many = call("compare", "blobs@1", "blobs@2", "other", "--store", str(store), "--json")
    assert many.json["runs"] == ["blobs@1", "blobs@2", "other@1"]


def test_curves_are_drawn_on_one_scale_by_logarithms_where_they_fall_far():
    assert draw([[1.0, 0.1, 0.01], [1.0, None, 1.0]], width=9) == ["█▅▁", "█ █"]
    assert draw([[0.5, 0.75, 1.0]], width=9) == ["▁▅█"]
    assert draw([list(range(1, 9))], width=4) == ["▁▃▆█"]
    assert draw([[2.0, 2.0]], width=9) == ["▁▁"]


def test_the_first_unequal_update_of_each_metric_is_found():
    import numpy as np

    one = {"a": np.array([1.0, 2.0, np.nan]), "b": np.array([1.0, 1.0, 1.0]), "c": np.ones(3)}
    other = {"a": np.array([1.0, 2.5, np.nan]), "b": np.array([0.0, 1.0, 1.0]), "d": np.ones(3)}
    assert _unequal([(11, one), (11, other)]) == {"b": 11, "a": 12}
