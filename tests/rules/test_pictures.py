"""The pictures of docs/concepts.md are those that their script draws, and each is told in words."""

import re
import runpy

from support.pages import DOCS, ROOT

FOLDER = ROOT / "docs" / "pictures"


def test_each_picture_is_as_its_script_draws_it():
    drawn = runpy.run_path(str(FOLDER / "draw.py"))["PICTURES"]
    assert {path.stem for path in FOLDER.glob("*.svg")} == {one.__name__ for one in drawn}
    for one in drawn:
        assert (FOLDER / f"{one.__name__}.svg").read_text() == str(one())


def test_each_picture_of_a_page_is_there_and_is_told_in_words():
    for name, text in DOCS.items():
        for words, path in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text):
            assert ((ROOT / "docs" / name).parent / path).is_file()
            assert len(words) > 20
