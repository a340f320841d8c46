"""Sphinx's settings for the site of these pages: `make docs`. The pages are read on GitHub too."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

project = "Epochal"
copyright = author = "the authors of Epochal"  # noqa: A001 - Sphinx's name
html_title = "Epochal"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 4  # `page.md#a-heading`, as GitHub makes them
myst_links_external_new_tab = True
suppress_warnings = [
    "misc.highlighting_failure",  # blocks show parts of files and of output
]
smartquotes = False  # of `--option` in a sentence it makes a dash

default_role = "code"  # docstrings put names into single backticks
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True


def on_the_site(app, name, source):
    """What a page shows of files outside docs/, and where links that leave docs/ lead here."""
    text = source[0]
    up = "../" * name.count("/")
    if name == "index":
        readme = (ROOT / "README.md").read_text()
        text = text.replace("<!-- README -->", readme.replace("](docs/", "]("))
        text = text.replace("<!-- further pages -->", _further(app, text))
    if name == "cli":
        text = text.replace("<!-- commands -->", _commands())
    if name == "examples":
        text = text.replace("<!-- examples -->", _examples())
    text = re.sub(r"\]\((?:\.\./)+README\.md(#[\w-]+)?\)", f"]({up}index.md)", text)
    text = re.sub(
        r"\]\((?:\.\./)*examples/(\w+)(?:/[\w.]*)?\)",
        lambda match: f"]({up}examples.md#{match[1].replace('_', '-')})",
        text,
    )
    source[0] = re.sub(r"\[([^\]]+)\]\((?:\.\./)+[\w./]+\)", r"\1", text)


def _further(app, text):
    """A part of the contents with the pages that no other part names: a new page is on the site."""
    named = {line.strip() for line in text.splitlines()} | {"index"}
    further = sorted(
        name for name in app.env.found_docs if name not in named and not name.startswith("how-to/")
    )
    if not further:
        return ""
    return "\n".join(("```{toctree}", ":caption: More", ":hidden:", "", *further, "```"))


def _commands():
    """The help of every command, as Typer has it."""
    import typer
    from typer.cli import get_docs_for_click

    from epochal.flows.cli import app

    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="epochal")
    text = get_docs_for_click(obj=command, ctx=context, name="epochal", title="-")
    return text[text.index("\n## ") :]  # behind a list of the commands that cuts their help


def _examples():
    parts = []
    sources = [*(ROOT / "examples").glob("*/*.yaml"), *(ROOT / "examples").glob("*/*.py")]
    for folder in sorted({path.parent for path in sources}):
        parts.append(f"### {folder.name}\n")
        for path in (*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*.py"))):
            language = {".yaml": "yaml", ".py": "python"}[path.suffix]
            parts.append(f"`{path.relative_to(ROOT)}`\n\n```{language}\n{path.read_text()}```\n")
    return "\n".join(parts)


def indented_is_literal(app, what, name, obj, options, lines):
    """In docstrings what stands further in, behind an empty line, is shown as it is written."""
    for place in range(len(lines) - 1, 0, -1):
        if lines[place].startswith("    ") and not lines[place - 1].strip():
            before = next((line for line in reversed(lines[:place]) if line.strip()), "")
            if not before.startswith("    "):
                lines[place:place] = ["::", ""]


def setup(app):
    app.connect("source-read", on_the_site)
    app.connect("autodoc-process-docstring", indented_is_literal)
    return {"parallel_read_safe": True}
