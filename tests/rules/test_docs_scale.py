"""What docs/scale.md says is so: commands that end in the same bytes, figures of the model."""

import shlex
import shutil
import subprocess
import sys
from importlib import import_module

import pytest
from support.pages import DOCS, ROOT, blocks, rows
from support.runs.project import Project, call
from support.trainers.forked_trainer import fork_trainers

from epochal.engine.shards.deal import shard_ends, shards_of
from epochal.engine.shards.group import Subtree, subtrees

PAGE = DOCS["scale.md"]
COMMANDS = [shlex.split(block.replace("\\\n", "")) for block in blocks(PAGE, "sh")]
FEWER = ("--set", "epochs=4", "--json")  # the least that the example's schedule has room for


@pytest.fixture
def model(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module("scale_model")


@pytest.fixture
def ran(tmp_path, tracker, prefect_api, monkeypatch):
    """What a command of the page prints, beside the examples."""
    fork_trainers(monkeypatch, Project(tmp_path / "warm", epochs=1))
    shutil.copytree(
        ROOT / "examples" / "digits",
        tmp_path / "examples" / "digits",
        ignore=shutil.ignore_patterns("store"),
    )
    monkeypatch.chdir(tmp_path)

    def run(words):
        assert words[0] == "epochal"
        done = call(*words[1:], *FEWER)
        assert done.code == 0, done.err
        return done.json

    return run


@pytest.mark.slow
@pytest.mark.server
def test_what_two_processes_make_by_the_page_is_cached_for_others(ran):
    two, four, plan = (ran(words) for words in COMMANDS if "store=" not in " ".join(words))
    assert not any(stage["cached"] for stage in two["stages"])
    assert all(stage["cached"] for stage in four["stages"])
    assert four["weights_sha256"] == two["weights_sha256"]
    assert all(stage["done"] for stage in plan["stages"])


@pytest.mark.slow
@pytest.mark.server
def test_the_commands_of_the_page_end_in_the_same_bytes(ran):
    found = [ran(words) for words in COMMANDS if words[1] == "train"]
    assert len(found) == 4
    assert {one["weights_sha256"] for one in found} == {found[0]["weights_sha256"]}
    assert sum(stage["cached"] for one in found for stage in one["stages"]) == 13


def test_the_picture_of_shards_is_that_of_the_code():
    ends = shard_ends(8, 4)
    assert ends == [2, 4, 6, 8]
    (picture,) = blocks(PAGE, "text")
    for processes in (1, 2, 3, 4):
        (line,) = [one for one in picture.splitlines() if one.startswith(f"{processes} process")]
        told = [[int(one) for one in part.split()] for part in line[11:].split("│")]
        own = [shards_of(rank, processes=processes, shards=4) for rank in range(processes)]
        assert told == [list(one) for one in own]
    assert subtrees(range(2)) == [Subtree(0, 2)]


def test_the_tables_of_the_page_are_those_of_the_model(model):
    for table in model.page(model.read()).split("\n\n"):
        assert table in PAGE


def test_the_page_has_every_part_of_the_model(model):
    (one, *_) = model.scenarios(model.read())
    told = [cells[0] for cells in rows(PAGE, "part") if len(cells) == 2]
    assert told == list(model.parts(one.job, one.machine, 1))


def test_one_process_pays_for_no_other(model):
    for one in model.scenarios(model.read()):
        found = model.parts(one.job, one.machine, 1)
        assert found["ordered sum"] == found["small messages"] == found["observations"] == 0


def test_a_sum_sends_the_bytes_of_an_all_reduce(model):
    (one, *_) = model.scenarios(model.read())
    bare = model.replace(one.machine, transfer_s=0.0, add_s=0.0, bytes_per_s=1.0)
    for processes in (2, 4, 8):
        expected = 2 * (processes - 1) / processes * 4 * 1000
        assert model.sum_s(bare, 1000, 8, processes) == pytest.approx(expected)
    assert model.sum_s(bare, 1000, 8, 3) > 2 * 2 / 3 * 4 * 1000  # shards that are no subtree


def test_the_busiest_process_has_the_most_micro_batches(model):
    (one, *_) = model.scenarios(model.read())
    job = model.replace(one.job, accumulate=9, shards=8)
    assert [model.most_micro_batches(job, processes) for processes in (1, 3, 8)] == [9, 3, 2]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["sum", "train"])
def test_the_benchmarks_of_the_page_print_ratios(what):
    assert f"`python benchmarks/ranks.py {what}`" in PAGE
    done = subprocess.run(
        [sys.executable, "benchmarks/ranks.py", what, "--rounds", "1", "--floats", "100000"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "ratio" in done.stdout
