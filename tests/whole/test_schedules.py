"""Schedules in whole runs: a user's function, durations in updates, what their keys hold."""

import pytest
from pydantic import ValidationError
from support.numbers.stage_keys import FACTS, config, keys
from support.runs.bare_run import BareRun, rates
from support.runs.project import Project, environment

from epochal.data.errors import ConfigError, TrainingFailed
from epochal.tasks.planning.stage import DatasetFacts, RunInputs
from epochal.tasks.runs.plan import make_plan
from epochal.tasks.stages.registry import list_stages

RATES = """
    def falling(t, by=0.1, until=99.0):
        return 1.0 - by * min(t, until)

    def wrong(t):
        return "much"

    def broken(t):
        return 1 / 0
"""
CUSTOM = "{kind: custom, target: 'rates:falling', args: {by: 0.2}}"


@pytest.fixture
def project(tmp_path, home):
    made = Project(tmp_path / "project", epochs=3, sampling={"policy": "none"})
    made.write("rates.py", RATES)
    return made


def test_a_users_function_gives_the_rate_and_resumes(project, tmp_path):
    whole = BareRun(project.config, schedule=CUSTOM, store=f"file://{tmp_path}/whole")()
    often = {"schedule": CUSTOM, "checkpoint__every_updates": 1}
    with environment(FAIL_AT_CALL="8"), pytest.raises(TrainingFailed):
        BareRun(project.config, **often)()
    again = BareRun(project.config, **often)()
    assert again.digests == whole.digests
    assert again.resumed
    expected = [0.01 * (1 - 0.2 * (1 + (update + 0.5) / 6)) for update in range(6)]
    assert rates(again, 1) == pytest.approx(expected, rel=1e-15)


def train_keys(project, **sets):
    run = BareRun(project.config, **sets)
    return [one.key for one in run.view.stages if one.kind == "train"]


def test_a_users_function_is_in_the_key_by_source_args_and_values(project):
    before = train_keys(project, schedule=CUSTOM)
    assert train_keys(project, schedule=CUSTOM, epochs=5)[:3] == before
    other = train_keys(project, schedule=CUSTOM.replace("0.2", "0.1"))
    assert other[0] != before[0]
    warm = train_keys(project, schedule=CUSTOM[:-1] + ", warmup: 1}")
    assert warm[0] != before[0]
    project.write("rates.py", RATES + "\n    # another comment\n")
    assert train_keys(project, schedule=CUSTOM)[0] == before[0]
    project.write("rates.py", RATES + "\n    OTHER = 1\n")
    assert train_keys(project, schedule=CUSTOM)[0] != before[0]


@pytest.mark.parametrize(("name", "words"), [
    ("wrong", "schedule: its target gave 'much' at epoch 0, expected the factor"),
    ("broken", "schedule: its target raised at epoch 0 ZeroDivisionError"),
    ("absent", "schedule.target: 'rates:absent': rates has no 'absent'"),
])  # fmt: skip
def test_a_function_that_gives_no_factor_ends_before_the_start(project, name, words):
    done = project("plan", schedule=f"{{kind: custom, target: 'rates:{name}'}}")
    assert done.code == 2
    assert words in done.err
    assert not project.store.exists()


UPDATES_UNIT = "{kind: multi_step, milestones: [3, 15], warmup: 3, unit: updates}"


def test_durations_in_updates_are_those_of_the_same_epochs(project):
    # 180 samples in micro-batches of 16, two to an update: six updates
    assert make_plan(BareRun(project.config).session.config).reports
    found = train_keys(project, schedule=UPDATES_UNIT)
    same = train_keys(project, schedule="{kind: multi_step, milestones: [0.5, 2.5], warmup: 0.5}")
    assert found == same
    run = BareRun(project.config, schedule=UPDATES_UNIT)()
    base = 0.01
    assert rates(run, 0) == pytest.approx(
        [base * 0.1 * part for part in (1 / 6, 3 / 6, 5 / 6)] + [base * 0.1] * 3
    )
    assert rates(run, 2) == pytest.approx([base * 0.1] * 3 + [base * 0.01] * 3)


def test_unread_data_leaves_keys_open_until_its_size_is_known(project):
    done = project("plan", schedule=UPDATES_UNIT)
    assert done.code == 0
    assert "not yet read" in done.out
    data = "{target: 'blobs:blobs', args: {split: train}, version: one}"
    assert project("plan", train_data=data, schedule=UPDATES_UNIT).code == 0
    BareRun(project.config, train_data=data)  # reads it
    run_inputs = RunInputs(
        sources={}, train_data=DatasetFacts("c" * 64), validation_data=DatasetFacts("d" * 64)
    )
    options = {"schedule": {"kind": "step", "size": 9, "unit": "updates"}, "sampling": {}}
    assert {key for place, key in keys(run_inputs, **options).items() if place[0] == "train"} == {
        None
    }


def test_updates_that_do_not_fit_into_the_run_are_refused():
    run_inputs = RunInputs(
        sources={}, train_data=DatasetFacts("c" * 64, 320), validation_data=FACTS.validation_data
    )
    options = {"schedule": {"kind": "constant", "warmup": 81, "unit": "updates"}, "sampling": {}}
    with pytest.raises(
        ConfigError, match="warmup: 8.1 epochs .* updates, of which an epoch has 10"
    ):
        list_stages(config(**options), run_inputs)


@pytest.mark.parametrize(("changes", "words"), [
    ({"sampling": {"policy": "easy_skip"}}, "sampling.policy: 'easy_skip' changes it"),
    ({"gradients": {"accumulate": 2, "accumulate_from": 3}, "sampling": {}},
     "gradients.accumulate_from: 3 changes it"),
])  # fmt: skip
def test_durations_in_updates_need_one_number_of_them(changes, words):
    with pytest.raises(ValidationError) as error:
        config(schedule={"kind": "step", "size": 9, "unit": "updates"}, **changes)
    assert words in str(error.value)
