"""`epochal.why`, `compare` and `query` as a script or a notebook calls them."""

import pytest
from support.runs.bare_run import finished_project

import epochal


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return finished_project(tmp_path_factory.mktemp("library"))


def test_why_gives_the_update_its_samples_as_a_frame_and_calls_a_hook(project):
    seen = []
    found = epochal.why(
        project.config, update=8, replay=True,
        hook=lambda model, batch, output, at: seen.append((at.update, len(output.loss_B))),
    )  # fmt: skip
    assert (found["update"], found["replayed"], seen) == (8, True, [(8, 16), (8, 16)])
    frame = found.to_pandas()
    assert frame.index.name == "sample_id"
    assert frame["loss"].tolist() == [one["loss"] for one in found["samples"]]
    assert "every bit is as it was" in repr(found)
    with pytest.raises(epochal.InputError, match="add replay=True"):
        epochal.why(project.config, update=8, hook=print)
    with pytest.raises(epochal.InputError, match="leave epoch out"):
        epochal.why(project.config, update=8, epoch=1)


def test_query_gives_rows_and_compare_refuses_a_single_run(project):
    found = epochal.query(project.store, "select epoch, train_loss from epochs order by epoch")
    assert found["columns"] == ["epoch", "train_loss"]
    assert found.to_pandas()["epoch"].tolist() == [0, 1]
    with pytest.raises(epochal.InputError, match="expected 2 to 32"):
        epochal.compare(project.config)
