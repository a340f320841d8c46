"""Unbroken runs in which everything draws random numbers end in the same bytes."""

import random
import threading

import pytest
from support.numbers.drawing_data import few_processors
from support.runs.bare_run import BareRun
from support.runs.command import Command, Unbroken
from support.runs.drawing_project import drawing_project


@pytest.fixture
def others():
    """A thread of this process that draws from `random`, as those of Prefect and MLflow do."""
    ended = threading.Event()

    def draw():
        while not ended.wait(0.001):
            random.random()

    thread = threading.Thread(target=draw)
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.mark.slow
def test_two_unbroken_runs_agree_to_the_last_byte(tmp_path, home, monkeypatch, others):
    monkeypatch.setenv("ITEM_SECONDS", "0.003")
    project = drawing_project(tmp_path / "project")
    first, second = (
        made_by(project, store=f"./store-{number}", launch__kind="local") for number in range(2)
    )
    assert first == second


def made_by(project, **sets):
    """The digests of all that a run makes."""
    run = BareRun(project.config, **sets)
    try:
        return run().digests
    finally:
        run.session.trainer.close()


@few_processors
@pytest.mark.slow
@pytest.mark.server
def test_runs_of_the_command_agree_with_any_number_of_workers(tmp_path, tracker, prefect_api):
    ends, records = [], []
    for number in range(6):
        project = drawing_project(
            tmp_path / f"project-{number}",
            name=f"drawing-{number}",
            loader={"batch_size": 4, "workers": number % 3},
        )
        result = Command(project, STEP_SECONDS="0", ITEM_SECONDS="0.02").result()
        ends.append(Unbroken.of_result(result, tracker))
        stages = sorted(project.store.glob("stages/*/record.json"))
        records.append([(path.parent.name, path.read_text()) for path in stages])
    assert all(end == ends[0] for end in ends)
    assert all(record == records[0] for record in records)
