"""The pages of README and docs/: their blocks, tables, links and commands."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]


README = (ROOT / "README.md").read_text()


DOCS = {
    path.relative_to(ROOT / "docs").as_posix(): path.read_text()
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if "_build" not in path.parts
}
"""Path below docs/ → text."""

PLACES = {ROOT / "README.md": README, **{ROOT / "docs" / name: text for name, text in DOCS.items()}}
"""Every page, by its path."""


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def rows(text, heading):
    """The rows of the tables whose first heading is `heading`: lists of cells."""
    found, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            inside = False
        elif cells[0] == heading:
            inside = True
        elif inside and not cells[0].startswith("---"):
            found.append(cells)
    return found


def prose(text):
    """A page without its blocks and its code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]+`", "", text)


def links(text):
    """(file, anchor) of each link that leads to no other host; either may be empty."""
    return [
        (path, anchor)
        for path, anchor in re.findall(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)", prose(text))
    ]


def anchors(text):
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    found = []
    for heading in re.findall(r"^#{1,4} +(.+?) *$", text, flags=re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.append(anchor if anchor not in found else f"{anchor}-{found.count(anchor)}")
    return set(found)


def files(text):
    """Name → text of the files that a page has its reader write: they begin `# name.yaml`."""
    return {
        block.splitlines()[0].removeprefix("# "): block
        for block in (*blocks(text, "python"), *blocks(text, "yaml"))
        if re.match(r"# \w+\.(py|yaml)\n", block)
    }


def commands(text, language):
    """Each command of a page's blocks, its continued lines joined: (command, lines shown below).

    In `console` and `text` blocks a command stands behind `$ `, and what it prints below it; in
    `sh` and `bash` blocks each line is one.
    """
    found, prompted = [], language in {"console", "text"}
    for block in blocks(text, language):
        if prompted and not block.startswith("$ "):
            continue
        for line in whole_lines(block, prompted=prompted):
            if prompted and not line.startswith("$ "):
                found[-1][1].append(line)
            elif line.strip() and not line.startswith("#"):
                found.append((line.removeprefix("$ "), []))
    return found


def whole_lines(block, *, prompted):
    """A block's lines; what a backslash or an open quotation continues is one with its command."""
    line = ""
    for part in block.replace("\\\n", " ").splitlines():
        line = f"{line}\n{part}" if line else part
        is_command = line.startswith("$ ") if prompted else not line.startswith("#")
        if not is_command or line.count("'") % 2 == 0:
            yield line
            line = ""
    if line:
        yield line


def calls(command):
    """The arguments of every call of `epochal` in a line of a shell."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|()<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    found, before = [], ""
    for word in lexer:
        if set(word) <= set(";&|()<>"):
            found.append([])
        elif word == "epochal" and before != "cd":
            found.append(["epochal"])
        elif found and found[-1]:
            found[-1].append(word)
        before = word
    return [one[1:] for one in found if one]
