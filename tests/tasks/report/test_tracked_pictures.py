"""The data map, the kept fraction and the report in MLflow: once, and never in the run's way."""

from pathlib import Path

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project
from support.stores.tracking_store import Database

from epochal.tasks.report.samples import NO_DATA
from epochal.tasks.running.run_pictures import DATA_MAP, KEPT, REPORT
from epochal.tasks.running.tracked_run import sync_run
from epochal.tasks.runs.find_run import find_run
from epochal.tasks.tracking.connection import connect


@pytest.fixture
def project(tmp_path, tracker):
    return Project(tmp_path / "project", epochs=3)


def synced(project, *overrides):
    notices = []
    found = find_run(str(project.config), overrides=overrides)
    result = sync_run(found, notice=notices.append, local_mlflow=None)
    return result, notices


def files(tracker, run_id):
    client = connect(tracker)
    found = [*client.list_artifacts(run_id), *client.list_artifacts(run_id, "figures")]
    return {one.path for one in found if not one.is_dir}


def test_a_whole_run_has_figures_and_a_report_and_they_are_written_once(project, tracker):
    BareRun(project.config)()
    result, notices = synced(project)
    assert (result.problem, notices) == (None, [])
    assert files(tracker, result.run_id) >= {DATA_MAP, KEPT, REPORT}
    path = Path(connect(tracker).download_artifacts(result.run_id, REPORT))
    page, changed = path.read_text(), path.stat().st_mtime_ns
    assert NO_DATA in page
    assert "Data map" in page
    database = Database(Path(tracker.removeprefix("sqlite:///")))
    before = database.dump()
    synced(project)
    assert (database.dump(), path.stat().st_mtime_ns) == (before, changed)


def test_a_run_without_mining_has_a_data_map_of_its_observations(project, tracker):
    BareRun(project.config, sampling="{policy: none}")()
    result, _ = synced(project, "sampling={policy: none}")
    assert files(tracker, result.run_id) >= {DATA_MAP, REPORT}
    assert KEPT not in files(tracker, result.run_id)


def test_an_upload_that_fails_is_told_and_the_next_command_makes_up_for_it(
    project, tracker, monkeypatch
):
    from mlflow import MlflowClient

    BareRun(project.config)()

    def fail(*_, **__):
        raise OSError("the artifact server is away")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", fail)
        result, notices = synced(project)
    assert "the artifact server is away" in result.problem
    assert "the next command delivers it" in notices[0]
    assert connect(tracker).get_run(result.run_id).info.status == "FINISHED"
    result, notices = synced(project)
    assert (result.problem, notices) == (None, [])
    assert files(tracker, result.run_id) >= {DATA_MAP, KEPT, REPORT}


def test_a_run_that_is_not_whole_has_none(project, tracker):
    BareRun(project.config, epochs=2)()
    BareRun(project.config, epochs=3)  # planned, not run
    result, _ = synced(project)
    assert REPORT not in files(tracker, result.run_id)


def test_the_run_itself_draws_its_samples_from_the_data_that_it_has_open(project, tracker):
    from epochal.tasks.config.load import load_config
    from epochal.tasks.running.lifecycle import active_run

    project.write(
        "pictures.py",
        """
        from torch import nn
        from torch.utils.data import TensorDataset
        from blobs import blobs

        def pictures(split):
            x, y = blobs(split).tensors
            return TensorDataset(x.reshape(-1, 1, 2, 3), y)

        def Net():
            return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
        """,
    )
    sets = [
        *(f"{split}_data={{target: 'pictures:pictures', args: {{split: {split}}}}}"
          for split in ("train", "validation")),
        "model={target: 'pictures:Net'}",
    ]  # fmt: skip
    with active_run(load_config(project.config, overrides=sets)) as active:
        for stage in active.run.stages():
            active.run.run_stage(stage)
    delivered = active.delivered
    assert delivered.problem is None
    page = Path(connect(tracker).download_artifacts(delivered.run_id, REPORT)).read_text()
    assert page.count("<figure>") == 48  # the hardest samples and the suspects
    assert "No pictures" not in page
