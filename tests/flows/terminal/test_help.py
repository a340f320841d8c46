"""What `epochal --help` and the help of a command show."""

import re
import shlex
from types import SimpleNamespace

import pytest
import typer
from support.runs.project import call

from epochal.flows import cli
from epochal.flows.commands import servers as commands
from epochal.flows.terminal.help import EXAMPLES, PANELS, in_order, listed, panel_of


def commands_of(name):
    """A command, and those below it if it is a group."""
    found = typer.main.get_command(cli.app).commands[name]
    return [found, *getattr(found, "commands", {}).values()]


def test_every_command_stands_below_a_heading_and_none_is_there_twice():
    names = list(typer.main.get_command(cli.app).commands)
    assert [name for name in names if panel_of(name) is None] == []
    listed_names = [name for panel in PANELS.values() for name in panel]
    assert sorted(listed_names) == sorted(set(listed_names))
    assert names == in_order(names)
    assert in_order(["new", "plan", "train"]) == ["train", "plan", "new"]


@pytest.mark.parametrize("name", list(cli._MODULES))
def test_a_command_is_listed_with_the_words_of_its_own_help(name):
    (command, *_) = commands_of(name)
    told = listed(name, cli._MODULES[name])
    assert told.help.split("\n\n")[0].split() == command.help.split("\n\n")[0].split()


@pytest.mark.parametrize("name", list(cli._MODULES))
def test_a_flag_has_no_type_in_the_help(name):
    for command in commands_of(name):
        context = typer.Context(command, info_name=name, **cli.app.info.context_settings)
        for param in command.get_params(context):
            assert not getattr(param, "is_bool_flag", False) or param.metavar == ""
    assert "bool" not in call("--help").out


@pytest.mark.parametrize("name", list(cli._MODULES))
def test_an_argument_has_its_name_alone_and_an_option_the_word_for_its_value(name):
    groups = {"data": ["check", "show", "index"]}
    for words in [[name, below] for below in groups.get(name, ())] or [[name]]:
        text = call(*words, "--help").out
        assert not re.search(r"<(int|str|path|float|list|bool)", text)
        usage = " ".join(text[: text.index("╭")].split()).partition("[OPTIONS]")[2]
        assert "{" not in usage


def test_a_paragraph_of_help_has_the_width_of_the_terminal():
    (command, *_) = commands_of("watch")
    assert [len(part.splitlines()) for part in command.help.split("\n\n")] == [1, 1]


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_of_the_help_can_be_typed(line):
    assert len(line) <= 76  # so that it is one line of help at 80 columns
    program, name, *arguments = shlex.split(line, comments=True)
    assert program == "epochal"
    (command, *_) = commands_of(name)
    command.make_context(name, arguments)  # raises for an option that there is not


def test_examples_stand_at_the_end_of_a_commands_help():
    text = call("train", "--help").out
    assert text.index("Examples:") > text.index("--json")
    assert re.search(r"^ epochal train digits.yaml --set epochs=16 ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["trian"], "Did you mean 'train'?"), (["show", "x", "--jsno"], "Did you mean '--json'?")],
)
def test_the_command_or_option_that_was_meant_is_named(arguments, said):
    done = call(*arguments)
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize(("opens", "noted"), [(True, False), (False, True)])
def test_up_opens_both_pages_or_says_where_they_are(opens, noted, monkeypatch):
    there = SimpleNamespace(
        prefect_ui="http://p", prefect_api="http://p/api", mlflow_ui="http://m",
        work_pool="epochal", started=(), logs=(),
    )  # fmt: skip
    opened = []
    monkeypatch.setattr(commands.servers, "up", lambda **_: there)
    monkeypatch.setattr(commands.webbrowser, "open", lambda url: opened.append(url) or opens)
    done = call("up", "--open")
    assert opened == ["http://p", "http://m"]
    assert ("the pages are at http://p and http://m" in done.err) == noted
    assert call("up").code == 0
    assert len(opened) == 2


@pytest.mark.parametrize("words", [(), ("samples",), ("data", "index")])
def test_on_a_narrow_terminal_no_option_is_cut_and_no_line_is_too_wide(words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = call(*words, "--help").out
    assert "…" not in text
    lines = [line for line in text.splitlines() if not re.search(r"^ *epochal |OPTIONS", line)]
    assert max(map(len, lines)) <= 40
