"""The site of docs/ is built without a warning: every link, anchor, block and docstring in it."""

import os
import re
import subprocess
import sys

import pytest
from support.pages import DOCS, ROOT

pytest.importorskip("sphinx", reason="pip install -e '.[docs]' builds the site")
pytest.importorskip("myst_parser")
pytest.importorskip("furo")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html",
         "-d", str(folder / "doctrees"), str(ROOT / "docs"), str(folder / "html")],
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_is_on_the_site_and_in_its_contents(site):
    front = (site / "index.html").read_text()
    for name in DOCS:
        page = name.removesuffix(".md") + ".html"
        assert (site / page).is_file()
        assert page == "index.html" or f'href="{page}"' in front or page.startswith("how-to/")


def test_no_page_needs_another_host_to_be_shown(site):
    for page in site.rglob("*.html"):
        for address in re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', page.read_text()
        ):
            assert not address.startswith(("http:", "https:", "//")), (page.name, address)


def test_the_reference_has_what_a_script_may_import(site):
    import epochal.engine

    text = (site / "reference.html").read_text()
    for name in (
        "epochal.train",
        "epochal.plan",
        "epochal.sweep",
        "epochal.samples",
        "epochal.data.errors.NotFound",
    ):
        assert f'id="{name}"' in text
    for name in epochal.engine.__all__:
        assert name in text


def test_the_commands_on_the_site_are_those_of_the_command_line(site):
    import typer

    from epochal.flows.cli import app

    text = (site / "cli.html").read_text()
    for name in typer.main.get_command(app).commands:
        assert f'id="epochal-{name}"' in text
