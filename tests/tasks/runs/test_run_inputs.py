"""What keys need beyond the config."""

import pytest
from support.runs.project import Project

from epochal.tasks.config.load import load_config
from epochal.tasks.runs.run_inputs import source_files


@pytest.fixture
def nested(tmp_path):
    """A data set whose argument is a target of another module, and that one's of a third."""
    inner = {"target": "inner:make"}
    args = {"transform": [{"target": "outer:make", "args": {"inside": {"of": inner}}}]}
    project = Project(tmp_path, train_data={"target": "blobs:blobs", "args": args})
    for name in ("outer", "inner"):
        project.write(f"{name}.py", "def make(inside=None): return inside\n")
    return project


def test_code_of_targets_inside_args_is_in_the_source_digest(nested):
    before = source_files(load_config(nested.config))
    assert before["train_data"].keys() == {"blobs.py", "outer.py", "inner.py"}
    nested.write("inner.py", "def make(): return 1\n")
    after = source_files(load_config(nested.config))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"train_data"}
