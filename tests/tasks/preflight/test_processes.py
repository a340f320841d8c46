"""What slows several processes down is said before they start."""

import os

import pytest
from support.runs.project import Project

from epochal.tasks.config.load import load_config
from epochal.tasks.preflight.processes import notes_on_processes

SHARED = ("gradients.shards=8", "launch.kind=local")
ELSEWHERE = ("launch.kind=elastic", "launch.nodes=2", "launch.address=10.0.0.1")


@pytest.fixture(autouse=True)
def processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))


def notes(folder, *sets, threads=1):
    config = load_config(Project(folder).config, overrides=[*SHARED, *sets])
    return list(notes_on_processes(config, threads=threads))


@pytest.mark.parametrize(
    ("sets", "threads"),
    [
        (("launch.processes=1", "gradients.accumulate=1"), 8),
        (("launch.processes=4", "gradients.accumulate=4"), 1),
        ((*ELSEWHERE, "launch.processes=4", "gradients.accumulate=4"), 2),
    ],
)
def test_nothing_is_said_where_all_is_well(sets, threads, tmp_path):
    assert notes(tmp_path, *sets, threads=threads) == []


def test_processes_without_a_micro_batch_are_told_what_to_do(tmp_path):
    (text,) = notes(tmp_path, "launch.processes=4", "gradients.accumulate=1")
    assert "3 of 4 processes have nothing to do" in text
    assert "gradients.accumulate: 4, loader.batch_size: 4 deals" in text  # 16 at once before


def test_more_threads_than_processors_are_told(tmp_path):
    (text,) = notes(tmp_path, "launch.processes=2", threads=4)
    assert "2 processes of 4 threads each share 4 processors; threads: 2 is quicker" in text
