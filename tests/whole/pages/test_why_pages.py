"""docs/why.md and docs/query.md: their commands and cells run, and print what they show."""

import shlex
import shutil

import pytest
from support.pages import DOCS, ROOT, blocks, commands, files
from support.runs.bare_run import BareRun
from support.runs.project import call, environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The digits, four epochs of them; a second generation whose rate falls later."""
    folder = tmp_path_factory.mktemp("pages")
    without = shutil.ignore_patterns("store")  # of who has run the demo
    shutil.copytree(ROOT / "examples" / "digits", folder / "digits", ignore=without)
    config = folder / "digits" / "digits.yaml"
    config.write_text(config.read_text().replace("epochs: 12", "epochs: 4"))
    for name, text in files(DOCS["why.md"]).items():
        (folder / "digits" / name).write_text(text)
    with environment(HOME=str(folder)):
        for sets in ({}, {"schedule.decay": 2}):
            BareRun(config, **sets)().run.close()
    return folder / "digits"


@pytest.mark.parametrize("page", ["why.md", "query.md"])
def test_the_commands_of_the_page_run_and_print_what_it_shows(page, digits, monkeypatch):
    monkeypatch.chdir(digits)
    asked = commands(DOCS[page], "console")
    assert asked
    for command, shown in asked:
        done = call(*shlex.split(command)[1:])
        assert done.code == 0, f"{command}\n{done.out}{done.err}"
        for line in filter(str.strip, shown):
            assert line in done.out.splitlines(), f"{command}: {line!r} is not in\n{done.out}"


@pytest.mark.parametrize("page", ["why.md", "query.md"])
def test_the_cells_of_the_page_run(page, digits, monkeypatch):
    monkeypatch.chdir(digits)
    cells = [block for block in blocks(DOCS[page], "python") if not block.startswith("# look.py")]
    names = {}
    exec("\n".join(cells), names)
    frame = names["best"].to_pandas() if "best" in names else names["worst"].to_pandas()
    assert len(frame)
