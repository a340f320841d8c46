"""What a shell is given at TAB."""

import json

import pytest
from support.runs.project import call, environment

from epochal.flows import cli
from epochal.flows.terminal import completion
from epochal.tasks.runs.find_run import stores_file


@pytest.fixture
def folder(tmp_path, home, monkeypatch):
    """Configs, a store beside them with two runs, and one elsewhere that was used before."""
    here = tmp_path / "here"
    for name in ("store/runs/blobs", "store/runs/bert", "elsewhere/store/runs/older", "notes"):
        (here / name).mkdir(parents=True)
    for name in ("run.yaml", "run.py", "other.yml", ".hidden.yaml"):
        (here / name).touch()
    stores_file().parent.mkdir(parents=True, exist_ok=True)
    known = [f"file://{here}/elsewhere/store", "s3://bucket/store", 7]
    stores_file().write_text(json.dumps(known))
    monkeypatch.delenv("EPOCHAL_STORE", raising=False)
    monkeypatch.chdir(here)
    return here


def test_configs_are_files_that_may_be_some_and_the_ways_to_them(folder):
    assert completion.configs("") == ["elsewhere/", "notes/", "other.yml", "run.yaml", "store/"]
    assert completion.configs("ru") == ["run.yaml"]
    assert completion.configs(f"{folder}/o") == [f"{folder}/other.yml"]
    assert completion.configs("./r") == ["./run.yaml"]
    assert completion.configs("nowhere/") == []


def test_runs_are_those_that_a_bare_name_would_find(folder, monkeypatch):
    assert completion.runs("b") == ["bert", "blobs"]
    assert completion.runs("o") == ["older", "other.yml"]
    assert completion.runs("elsewhere/store/") == [
        "elsewhere/store/older",
        "elsewhere/store/runs/",
    ]
    monkeypatch.setenv("EPOCHAL_STORE", str(folder / "elsewhere/store"))
    assert completion.runs("b") == []
    assert completion.runs("ol") == ["older"]


def test_stores_are_those_that_were_used_and_folders(folder):
    assert completion.stores("st") == ["store", "store/"]
    assert f"{folder}/elsewhere/store" in completion.stores("/")


def test_without_a_home_or_with_a_broken_list_there_are_just_no_names(folder, monkeypatch):
    stores_file().write_text("{broken")
    assert completion.runs("old") == []
    stores_file().unlink()
    assert completion.runs("blo") == ["blobs"]


def completed(words, *, shell="bash"):
    """What the completion of a shell prints for the last of the words."""
    given = {
        "bash": {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
        "zsh": {"_TYPER_COMPLETE_ARGS": words},
        "fish": {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    with environment(_EPOCHAL_COMPLETE=f"complete_{shell}", **given):
        return call_as_program()


def call_as_program():
    """As `call`, where click ends the process by itself."""
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.app(args=[], prog_name="epochal")
    return out.getvalue()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_options_and_names(folder, shell):
    assert "samples" in completed("epochal sa", shell=shell)
    assert "--hardest" in completed("epochal samples x --har", shell=shell)
    assert "blobs" in completed("epochal show bl", shell=shell)
    assert "run.yaml" in completed("epochal train r", shell=shell)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_shown(shell):
    with environment(_EPOCHAL_COMPLETE=f"source_{shell}"):
        text = call_as_program()
    assert "_EPOCHAL_COMPLETE=complete_" in text


def test_the_ways_to_install_it_are_in_the_help():
    text = call("--help").out
    assert "--install-completion" in text
    assert "--show-completion" in text
