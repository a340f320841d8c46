"""Policies in whole runs: tables, records, keys, batches and a user's own function."""

import pytest
from support.numbers.stage_keys import FACTS, keys
from support.runs.bare_run import BareRun
from support.runs.project import Project
from support.runs.proof_policies import OWN
from support.stores.sample_files import read_samples

from epochal.data.errors import ConfigError, TargetError
from epochal.data.tables.schemas import SAMPLES
from epochal.data.tables.writing import read_table
from epochal.tasks.planning.stage import RunInputs

SETTINGS = {
    "importance": "{policy: importance}",
    "infobatch": "{policy: infobatch, final_full: 0}",
    "kakurenbo": "{policy: kakurenbo, final_full: 0}",
    "cvnets": "{policy: cvnets, confidence: 0.5, every: 1, count: 1, final_full: 0}",
    "seta": "{policy: seta, final_full: 0}",
    "hard_mining": "{policy: hard_mining, label_noise: drop, noise_from: 1, batch: sqrt}",
    "selective_backprop": "{policy: selective_backprop}",
    "curriculum": "{policy: curriculum}",
    "random": "{policy: random, shares: [1.0, 0.5, 0.25], batch: proportional}",
    "custom": "{policy: custom, target: 'own:hardest', args: {share: 0.5}}",
}


@pytest.fixture
def project(tmp_path, home):
    made = Project(tmp_path / "project", epochs=3, sampling={"policy": "none"})
    made.write("own.py", OWN)
    return made


def records_of(run):
    return {(one.stage, one.epoch): one for one in run.view.records.values()}


def tables_of(run):
    found = {}
    for (stage, epoch), record in records_of(run).items():
        if stage == "mine":
            with run.session.stage_store.fetch_artifact(record, "samples") as path:
                found[epoch] = (read_samples(path), read_table(path, schema=SAMPLES).metadata)
    return found


# Each policy's plans are tested by themselves; the way into a run is the same for all.
_FEW = {"importance", "random", "custom"}


@pytest.mark.parametrize(
    "policy",
    [one if one in _FEW else pytest.param(one, marks=pytest.mark.slow) for one in SETTINGS],
)
def test_a_run_trains_on_what_its_policy_planned_and_says_how_much(project, policy):
    run = BareRun(project.config, sampling=SETTINGS[policy])()
    records, tables = records_of(run), tables_of(run)
    for epoch in (0, 1):
        table, metadata = tables[epoch]
        values = records["mine", epoch].values
        assert (
            values["kept"] == table["keep"].sum() == records["train", epoch + 1].values["samples"]
        )
        assert metadata["policy"] == policy
        assert float(metadata["kept_fraction"]) == values["kept_fraction"]
        assert float(metadata["label_noise"]) == values["label_noise"]
    assert any(records["mine", epoch].values["kept"] < 180 for epoch in (0, 1))
    again = BareRun(project.config, sampling=SETTINGS[policy], store=f"file://{project.folder}/b")()
    assert again.digests == run.digests


def test_weights_of_the_table_reach_the_loss(project):
    """The same samples at other weights lead elsewhere."""
    heavy, light = (
        BareRun(project.config, sampling=f"{{policy: importance, max_weight: {cap}}}")().weights
        for cap in (1.0, 4.0)
    )
    assert heavy != light


def test_micro_batches_shrink_with_the_kept_share(project):
    options = {"gradients": "{accumulate: 1}"}
    found = {}
    for rule in ("fixed", "sqrt", "proportional"):
        sampling = f"{{policy: random, budget: 0.25, batch: {rule}, final_full: 0}}"
        run = BareRun(project.config, sampling=sampling, **options)()
        found[rule] = records_of(run)["train", 1].values["updates"]
    # 45 samples in batches of 16, 8 and 5: those of 4 would leave a single one
    assert found == {"fixed": 3, "sqrt": 6, "proportional": 9}


def test_a_longer_run_of_a_flat_budget_goes_on_from_the_shorter_one(project):
    sampling = "{policy: importance, budget: 0.6}"
    BareRun(project.config, sampling=sampling)()
    longer = BareRun(project.config, sampling=sampling, epochs=5)()
    done = {(one.stage.kind, one.stage.epoch) for one in longer.outcomes if not one.cached}
    assert {epoch for _, epoch in done} == {3, 4}


def test_a_users_policy_is_checked_before_the_start(project):
    wrong = "{policy: custom, target: 'own:hardest'}"
    with pytest.raises(TargetError, match=r"sampling.args.*share"):
        BareRun(project.config, sampling=wrong)
    project.write("own.py", "def hardest(table, context, share):\n    return share\n")
    with pytest.raises(TargetError, match="sampling.target: it gave a float"):
        BareRun(project.config, sampling=SETTINGS["custom"])


def test_what_a_policy_goes_by_must_be_observed(project):
    project.write(
        "steps.py",
        """
        from epochal.engine.model.step import StepOutput

        def losses():
            def step(model, batch):
                return StepOutput((model(batch[0]) ** 2).mean(1), None)
            return step
        """,
    )
    step = {"step": "{target: 'steps:losses'}", "metrics": "{validation: [loss]}"}
    with pytest.raises(ConfigError, match="`el2n`"):
        BareRun(project.config, sampling="{policy: importance}", **step)
    run = BareRun(project.config, sampling="{policy: importance, score: loss}", **step)()
    assert records_of(run)["mine", 1].values["label_noise"] is None
    assert records_of(run)["mine", 1].values["kept"] < 180


def test_a_users_policy_is_in_the_keys_by_its_source_and_arguments():
    settings = {"policy": "custom", "target": "own:plan", "args": {"share": 0.5}}

    def found(sha256="a", **more):
        run_inputs = RunInputs(
            sources={**FACTS.sources, "sampling": {"own.py": sha256 * 64}},
            train_data=FACTS.train_data,
            validation_data=FACTS.validation_data,
        )
        return keys(run_inputs, sampling={**settings, **more})

    for other in (found("b"), found(args={"share": 0.6}), found(target="own:other")):
        assert other["train", 0] == found()["train", 0]
        assert other["mine", 0] != found()["mine", 0]


def test_only_the_budget_of_the_epoch_is_in_its_key():
    def found(**more):
        return keys(sampling={"policy": "random", "final_full": 0, **more})

    given = [1, 0.7, 0.6, 0.5, 0.4, 0.4, 0.4, 0.4]
    one, other = found(shares=given), found(shares=[*given[:5], 0.3])
    same = {place for place in one if one[place] == other[place]}
    assert ("mine", 3) in same
    assert ("train", 4) in same
    assert ("mine", 4) not in same
    flat = {"policy": "importance", "budget": 0.5}
    constant = {"schedule": {"kind": "constant"}, "sampling": flat}
    short, long = keys(**constant), keys(**constant, epochs=12)
    assert {place: long[place] for place in short} == short


def test_the_noise_rule_is_in_the_keys_from_the_epoch_on_in_which_it_acts():
    keep, drop = (
        keys(sampling={"policy": "easy_skip", "label_noise": one, "final_full": 0})
        for one in ("keep", "drop")
    )
    same = {place for place in keep if keep[place] == drop[place]}
    assert ("train", 2) in same
    assert ("mine", 1) in same
    assert ("mine", 2) not in same  # it plans epoch 3


def test_the_batch_rule_is_in_the_keys_of_the_epochs_that_it_can_shrink():
    options = {"policy": "easy_skip", "warm_up": 3, "final_full": 0}
    fixed, root = (keys(sampling={**options, "batch": one}) for one in ("fixed", "sqrt"))
    same = {place for place in fixed if fixed[place] == root[place]}
    assert ("train", 2) in same
    assert ("train", 3) not in same
