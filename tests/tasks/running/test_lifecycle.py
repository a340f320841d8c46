"""The life of a run: which one a flow works on."""

import pytest
from support.project import Project

from epochal.tasks.config.load import load_config
from epochal.tasks.running.lifecycle import active_run, prepare
from epochal.tasks.running.run import working_on


def test_a_second_try_in_the_same_process_opens_the_run_again(tmp_path, tracker):
    config = load_config(Project(tmp_path / "project", epochs=1).config)
    with working_on(prepare(config, reporter=None)) as prepared:
        with pytest.raises(OSError, match="first try"), active_run(config) as first:
            assert first.run is prepared
            first.run.run_stage(next(first.run.stages()))
            raise OSError("the first try")
        with active_run(config) as second:
            for stage in second.run.stages():
                second.run.run_stage(stage)
    assert [one["cached"] for one in second.result()["stages"]] == [True, False, False, False]
