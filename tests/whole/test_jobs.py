"""Real kinds of jobs: each is killed in the middle of an epoch and ends in the same bytes."""

import signal

import pytest
from support.runs.jobs import CONFIGS, EXAMPLES, Job, require_packages

JOBS = [path for path in CONFIGS if path.parent.name not in {"digits", "own_project", "sweep"}]
DEMO = EXAMPLES / "digits" / "digits.yaml"
FEW_DIGITS = {"train_data__args__validation_fraction": "0.85"}
SHORT = {
    "characters": {"schedule__decay": "1"},
    "mobilevit": {**FEW_DIGITS, "loader__batch_size": "32"},
    "vit_timm": {**FEW_DIGITS, "loader__batch_size": "32"},
}
by_name = pytest.mark.parametrize("path", JOBS, ids=lambda path: path.parent.name)


def lines(path):
    """Lines that say something."""
    text = path.read_text().splitlines()
    return [line for line in text if line.strip() and not line.lstrip().startswith("#")]


def test_every_kind_of_job_is_there():
    assert {path.parent.name for path in JOBS} == {
        "image_folder", "mobilevit", "vit_timm", "bert", "language_model", "table",
        "segmentation", "contrastive", "fine_tuning", "characters",
    }  # fmt: skip


@by_name
def test_a_job_takes_at_most_ten_lines_more_than_the_demo(path):
    assert len(lines(path)) <= len(lines(DEMO)) + 10


@pytest.mark.slow
@by_name
def test_a_job_killed_inside_an_epoch_ends_in_the_bytes_of_an_unbroken_one(path, tmp_path):
    name = path.parent.name
    require_packages(name)
    job = Job.made(path, tmp_path, **SHORT.get(name, {}))
    unbroken = job.run("unbroken")
    assert unbroken.code == 0
    assert unbroken.digests
    assert job.run("again") == unbroken
    assert job.run("killed", killed=True).code == -signal.SIGKILL
    resumed = job.run("killed")
    assert resumed.resumed["train/1"] > 0
    assert resumed.digests == unbroken.digests


@pytest.mark.slow
@pytest.mark.server
@by_name
def test_the_command_killed_inside_an_epoch_ends_in_the_weights_of_an_unbroken_one(
    path, tmp_path, tracker, prefect_api
):
    name = path.parent.name
    require_packages(name)
    job = Job.made(path, tmp_path, **SHORT.get(name, {}))
    unbroken = job.train("unbroken").result
    again = job.train("again").result
    assert again["weights_sha256"] == unbroken["weights_sha256"]
    assert job.train("killed", killed=True).code == -signal.SIGKILL
    resumed = job.train("killed")
    assert resumed.result["weights_sha256"] == unbroken["weights_sha256"]
    assert resumed.result["metrics"] == unbroken["metrics"]
    assert resumed.resumed_at > 0
