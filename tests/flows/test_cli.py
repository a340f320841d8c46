"""The command line: exit codes, and messages that say what was found and what to do."""

import io
import json
import os
import re
import subprocess
import sys

import pytest
import typer
from support.runs.project import Project, call

from epochal.data import errors
from epochal.flows import cli, console

COMMANDS = (
    "train", "plan", "runs", "show", "samples", "report", "export", "verify", "gc", "deploy", "up",
    "down",
)  # fmt: skip
WITH_CONFIG = ("train", "plan", "deploy", "show", "samples")


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project")


def test_help_names_every_command():
    done = call("--help")
    assert done.code == 0
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", done.out), command


def test_version_names_what_it_works_with():
    done = call("--version")
    assert done.code == 0
    assert re.fullmatch(r"epochal \S+, Python \S+, torch \S+, prefect \S+, mlflow \S+\n", done.out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_every_option_of_it_too(command):
    done = call(command, "-h")
    assert done.code == 0
    assert "Usage" in done.out
    found = typer.main.get_command(cli.app).commands[command]
    assert found.help
    assert all(parameter.help for parameter in found.params), found.params


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian", "x.yaml"], "No such command 'trian'"),
        (["train"], "Missing argument 'CONFIG'"),
        (["train", "x.yaml", "--epochs", "3"], "No such option: --epochs"),
        (["train", "x.yaml", "--set"], "--set"),
        (["export", "x"], "Missing option '--out'"),
        (["samples", "x", "--hardest", "0"], "--hardest"),
        (["samples", "x", "--forgotten", "0"], "--forgotten"),
        (["up", "extra"], "unexpected extra argument"),
        (["down", "--port", "3"], "No such option: --port"),
    ],
)
def test_a_wrong_command_line_is_exit_2_with_the_usage(arguments, said):
    done = call(*arguments)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


@pytest.mark.parametrize("command", WITH_CONFIG)
def test_a_config_that_is_not_there_is_exit_2(command, home, tmp_path):
    done = call(command, str(tmp_path / "nothing.yaml"))
    assert done.code == 2
    assert "nothing.yaml" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["train", "plan", "deploy"])
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimiser.args.lr=1", "optimiser: there is no such key; did you mean 'optimizer'?"),
        ("loader.batchsize=4", "loader.batchsize: there is no such key; did you mean 'batch_size'"),
        ("epochs", "expected path=value"),
        ("epochs=many", "epochs: found 'many'"),
        ("name=a b", "name: found 'a b'"),
    ],
)
def test_a_wrong_field_is_exit_2_and_the_nearest_right_one_is_named(
    command, override, said, project
):
    done = call(command, str(project.config), "--set", override)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


def test_json_is_one_object_on_the_last_line_of_standard_output(project):
    done = project("plan")
    assert done.code == 0
    (line,) = done.out.splitlines()
    assert done.json["run"] == "blobs"
    assert line.startswith("{")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.ConfigError("epochs: found 0"), 2, "error: epochs: found 0"),
        (errors.NonFinite("loss is NaN"), 3, "error: loss is NaN"),
        (errors.StoreUnavailable("the disk is full"), 75, "error: the disk is full"),
        (KeyboardInterrupt(), 75, "run the same command to go on"),
        (OSError(28, "No space left on device"), 75, "No space left on device"),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code, said, monkeypatch):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(console, "print_json", fails)
    monkeypatch.setenv("PREFECT_HOME", "/nowhere/that/is")
    done = call("down", "--json")
    assert done.code == code
    assert said in done.err
    assert done.out == ""


def test_a_defect_of_our_own_is_not_hidden(monkeypatch):
    def fails(*_, **__):
        raise AssertionError("ours")

    monkeypatch.setattr(console, "print_json", fails)
    monkeypatch.setenv("PREFECT_HOME", "/nowhere/that/is")
    with pytest.raises(AssertionError, match="ours"):
        cli.run(["down", "--json"])


def test_the_program_ends_with_the_code_of_its_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "epochal.flows.cli", "plan", str(tmp_path / "no.yaml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no.yaml" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_takes_characters_that_its_encoding_lacks(encoding, monkeypatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    cli._prepare_outputs()
    console.say_note("train · epoch 3 → 4 ✓")
    console.out.print("✓ ≥")
    console.print_json({"metrics": {"größe ✓": 1}})
    for stream in (out, err):
        stream.flush()
    assert b"epoch 3 ? 4 ?" in err.buffer.getvalue()
    line = out.buffer.getvalue().decode("ascii").splitlines()[-1]
    assert json.loads(line) == {"metrics": {"größe ✓": 1}}


def test_an_output_that_was_closed_takes_everything(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    cli._prepare_outputs()
    console.say_note("train · epoch 3 → 4 ✓")
    console.print_json({"run": "blobs"})
    for stream in (sys.stdout, sys.stderr):
        stream.close()


def test_an_error_of_the_users_code_under_any_command_is_theirs(monkeypatch):
    from epochal.engine.loop.epoch import constant_rate

    def fails(*_, **__):
        raise FileNotFoundError(2, "No such file or directory", "labels.txt")

    monkeypatch.setattr(console, "print_json", lambda _: fails())
    done = call("down", "--json")
    assert done.code == 75
    monkeypatch.setitem(fails.__globals__, "__name__", constant_rate.__module__)
    done = call("down", "--json")
    assert done.code == 3
    assert "labels.txt" in done.err


def test_an_output_whose_reader_is_gone_ends_nothing(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        monkeypatch.setattr(console.err, "quiet", False)
        console.say_note("train · epoch 3")
        console.say_note("train · epoch 4")
