"""The page on reliability: its example runs, and it names every fault that there is."""

import re
from pathlib import Path

from epochal.data.testing.plan import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()


def test_the_example_for_a_storage_of_ones_own_runs():
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    exec(compile(example, "docs/reliability.md", "exec"), {})


def test_every_fault_is_told():
    rows = re.findall(r"^\| ([a-z_, ]+) \|", PAGE, flags=re.MULTILINE)
    told = {name for row in rows for name in row.split(", ")}
    assert {kind for kinds in KINDS.values() for kind in kinds} - {"kill_after"} <= told
