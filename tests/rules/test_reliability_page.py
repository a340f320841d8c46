"""The pages on reliability: their examples run, and they name every fault that there is."""

import os
import re
from pathlib import Path

import pytest

from epochal.data.testing.plan import KINDS
from epochal.data.testing.s3.faults import HOWS

DOCS = Path(__file__).parents[2] / "docs"
PROOF = (DOCS / "proof.md").read_text()
STORAGE = (DOCS / "how-to" / "test-a-storage.md").read_text()


EXAMPLES = re.findall(r"^```python\n(.*?)^```", STORAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(3))
def test_the_examples_for_a_storage_of_ones_own_run(number, tmp_path, monkeypatch):
    assert len(EXAMPLES) == 3
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    exec(compile(EXAMPLES[number], "docs/how-to/test-a-storage.md", "exec"), {})


def test_every_way_in_which_a_request_fails_is_told():
    assert all(f"`{how}`" in STORAGE for how in HOWS)


def test_every_fault_is_told():
    rows = re.findall(r"^\| ([a-z_, ]+) \|", PROOF, flags=re.MULTILINE)
    told = {name for row in rows for name in row.split(", ")}
    assert {kind for kinds in KINDS.values() for kind in kinds} - {"kill_after"} <= told
