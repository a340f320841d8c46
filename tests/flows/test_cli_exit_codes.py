"""docs/exit-codes.md, cell by cell: who failed, when, and what the command returns."""

import ast
import re
import signal
from pathlib import Path

import httpx
import mlflow
import pytest
from support.pages import DOCS, README, rows
from support.runs.failing_code import FAILING, metric, target
from support.runs.project import Project

TESTS = Path(__file__).parents[1]
COLUMNS = ("before the start", "at work")
TABLE = {cells[0]: cells[1:] for cells in rows(DOCS["exit-codes.md"], "what failed")}
SIGNALLED = """
    import signal
    from model import Net

    class Model(Net):
        def __init__(self, built=False):
            super().__init__()
            self.built = built
            if built:
                signal.raise_signal(signal.SIGUSR1)

        def forward(self, x):
            if self.training and self.calls == 3:
                signal.raise_signal(signal.SIGHUP)
            return super().forward(x)
"""


def signalled(built):
    return f"{{target: 'signalled:Model', args: {{built: {built}}}}}"


def no_room(monkeypatch):
    from epochal.data.stage_store.stages import StageStore

    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StageStore, "put_side_file", fails)


def no_server(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")


SETS = {
    ("your code raises", "before the start"): {"model": target("Model", built="exit")},
    ("your code raises", "at work"): {"model": target("Model", kind="exit")},
    ("your code gives", "before the start"): {"metrics__validation": metric(given="text", after=0)},
    ("your code gives", "at work"): {"metrics__validation": metric(given="text")},
    ("an input", "before the start"): {"epochs": 0},
    ("the numbers", "at work"): {
        "optimizer__args": "{lr: 1.0e+30}",
        "gradients__clip_norm": "null",
    },
    ("the store", "before the start"): {"store": "./model.py/store"},
    ("the store", "at work"): no_room,
    ("Prefect's server", "before the start"): no_server,
    ("MLflow can", "before the start"): {"tracking__uri": "sqlite:///{folder}/model.py"},
    ("a signal", "before the start"): {"model": signalled("true")},
    ("a signal", "at work"): {"model": signalled("false")},
}
"""(How its row begins, column) → what makes it fail: changes to the config, or to the process."""

ELSEWHERE = {
    ("Prefect's server", "at work"): (
        "robustness/test_servers_away.py", "test_a_server_that_dies_in_the_middle_costs_no_epoch",
    ),
    ("MLflow is", "before the start"): (
        "tasks/preflight/test_tracker.py", "test_a_tracker_that_is_away_is_no_mistake",
    ),
    ("MLflow is", "at work"): (
        "robustness/test_servers_away.py",
        "test_an_mlflow_server_that_dies_in_the_middle_gets_all_points_later",
    ),
    ("your code ends", "before the start"): (
        "tasks/launch/test_local_misbehaving.py",
        "test_before_the_start_it_is_a_mistake_of_the_input",
    ),
    ("your code ends", "at work"): (
        "tasks/launch/test_local_misbehaving.py",
        "test_whatever_ends_training_is_told_with_the_users_line",
    ),
    ("the terminal's", "before the start"): (
        "flows/test_cli.py", "test_an_output_takes_characters_that_its_encoding_lacks",
    ),
    ("the terminal's", "at work"): (
        "flows/test_cli.py", "test_an_output_takes_characters_that_its_encoding_lacks",
    ),
}  # fmt: skip
"""Cells whose test is that of their source."""


@pytest.fixture
def project(tmp_path, tracker, prefect_api):
    made = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    made.write("failing.py", FAILING)
    made.write("signalled.py", SIGNALLED)
    return made


def said(cell):
    row, column = cell
    (codes,) = [codes for name, codes in TABLE.items() if name.startswith(row)]
    return codes[COLUMNS.index(column)]


@pytest.mark.parametrize("cell", SETS, ids=", ".join)
def test_the_code_is_that_of_the_page(cell, project, monkeypatch):
    sets = SETS[cell]
    if callable(sets):
        sets(monkeypatch)
        sets = {}
    sets = {
        name: value.replace("{folder}", str(project.folder)) if isinstance(value, str) else value
        for name, value in sets.items()
    }
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    done = project("train", **sets)
    assert str(done.code) == said(cell), done.err
    assert "error: " in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    if cell[1] == "before the start":
        assert not list(project.store.glob("stages/*/record.json"))


def test_every_cell_of_the_page_has_a_test():
    cells = {
        (name, column)
        for name, codes in TABLE.items()
        for column, code in zip(COLUMNS, codes, strict=True)
        if code
    }
    tested = {
        (name, column)
        for row, column in (*SETS, *ELSEWHERE)
        for name in TABLE
        if name.startswith(row)
    }
    assert tested == cells
    for file, name in ELSEWHERE.values():
        tree = ast.parse((TESTS / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_readmes_codes_are_those_of_the_page():
    page = {cells[0]: cells[1] for cells in rows(DOCS["exit-codes.md"], "code")}
    assert {cells[0]: cells[1] for cells in rows(README, "code")}.items() <= page.items()


def frames_in(text):
    """The functions whose frames are shown, all of them of the user's file."""
    frames = re.findall(r'^  File "(.*)", line \d+, in (\w+)$', text, flags=re.MULTILINE)
    assert {Path(file).name for file, _ in frames} == {"failing.py"}
    return [function for _, function in frames]


def test_where_the_users_code_failed_is_in_the_terminal_in_prefect_and_in_mlflow(
    project, tracker, prefect_api
):
    done = project("train", model=target("Model", kind="key"))
    assert done.code == 3
    assert frames_in(done.err) == ["forward", "fail", "lookup"]
    body = {"sort": "TIMESTAMP_DESC", "limit": 50}
    logged = [one["message"] for one in httpx.post(f"{prefect_api}/logs/filter", json=body).json()]
    (record,) = [text for text in logged if text.startswith("train · epoch 0: KeyError")]
    (run,) = mlflow.MlflowClient(tracker).search_runs(
        [one.experiment_id for one in mlflow.MlflowClient(tracker).search_experiments()]
    )
    for text in (record, run.data.tags["epochal.error"]):
        assert frames_in(text) == ["forward", "fail", "lookup"]
    assert run.info.status == "FAILED"


def test_debug_shows_all_frames(project, tmp_path):
    done = project("train", "--debug", model=target("Model", built="key"))
    assert done.code == 2
    assert "Traceback (most recent call last)" in done.err
    assert "flows/commands/train.py" in done.err
    assert f'File "{project.folder}/failing.py"' in done.err
