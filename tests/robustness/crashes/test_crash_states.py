"""A sample of the proof for crashes: what a run leaves of its store, and the run that goes on."""

import pytest
from robustness.crashes.crash_states import MODELS, checked, recorded_run, shared
from support.runs.forked_runs import in_a_child

from epochal.data.testing.crash import crash_states, drawn_states


def test_from_what_a_crash_leaves_a_run_goes_on_to_the_same_bytes(proof, tmp_path):
    def sample():
        run = recorded_run(proof.config, tmp_path / "disk")
        found = {}
        for name, model in MODELS.items():
            one = run.of_stage("train", 1)
            states = list(crash_states(run.recording, model, points=one))
            result = checked(proof, states[::3], every=27)
            result += checked(proof, drawn_states(run.recording, model, seed=1, count=1))
            gc = run.of_stage("gc", None)
            result += checked(proof, crash_states(run.recording, model, points=gc), every=100)
            found[name] = [result.states, result.lives, result.wrong]
        return found

    for name, (states, went_on, wrong) in in_a_child(tmp_path, sample).items():
        assert (name, wrong) == (name, [])
        assert states > 30
        assert went_on >= 3


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_from_more_of_what_a_crash_leaves_a_run_goes_on(model, proof):
    result = shared(proof, model, processes=1, every=16)
    assert result.wrong == ()
    assert result.states > 500
