"""The life of a run: which one a flow works on."""

import pytest
from support.runs.project import Project

from epochal.tasks.config.load import load_config
from epochal.tasks.running.lifecycle import active_run, prepare
from epochal.tasks.running.run import working_on


def work(config, *, stages=None):
    """The run after its stages; with `stages` the try fails after that many."""
    with active_run(config) as active:
        for number, stage in enumerate(active.run.stages()):
            if number == stages:
                raise OSError("the first try")
            active.run.run_stage(stage)
    return active


def test_a_second_try_in_the_same_process_opens_the_run_again(tmp_path, tracker):
    config = load_config(Project(tmp_path / "project", epochs=1).config)
    with working_on(prepare(config, reporter=None)) as prepared:
        with pytest.raises(OSError, match="first try"):
            work(config, stages=1)
        assert len(prepared.outcomes) == 1
        result = work(config).result()
    assert [one["cached"] for one in result["stages"]] == [True, False, False, False]
