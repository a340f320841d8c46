"""A sample of the proof: a run that ends or fails at an operation, then one to the same bytes."""

import pytest
from robustness.proof import LEVEL, SWEEPS, WRITES, lives, own_threads
from support.runs.proof_policies import POLICIES, policy_lives

from epochal.data.testing.plan import FaultPlan

EVERY = {"store": 557, "disk": 397, "s3": 720}
"""Of the operations, in the sample; `make proof` takes all."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(one, marks=[pytest.mark.slow] * (one == "s3")) for one in SWEEPS],
)
def place(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("proof")
        patch.setenv("HOME", str(folder))
        with lives(request.param, folder) as proof:
            yield request.param, proof


def sweeps(place, *, every):
    where, proof = place
    for kind, only in SWEEPS[where]:
        points = proof.points(kind, every=every, only=only)
        assert points
        yield kind, proof.sweep(FaultPlan(kind, level=LEVEL[where]), points)


def test_a_run_goes_on_after_a_fault_to_the_same_bytes(place):
    for kind, count in sweeps(place, every=EVERY[place[0]]):
        assert (kind, count.mismatches) == (kind, ())
        if kind in {"kill", "kill_after", "torn", "power", "zero_length"}:
            assert count.killed == count.points
        if kind == "enospc":  # what passes is waited for
            assert count.stopped > 0


@pytest.mark.slow
def test_a_run_goes_on_after_a_fault_at_more_operations(place):
    for kind, count in sweeps(place, every=23):
        assert (kind, count.mismatches) == (kind, ())


@pytest.mark.parametrize(
    ("policy", "every"),
    [
        pytest.param("importance, noise", 97, marks=pytest.mark.slow),
        *(pytest.param(one, 5, marks=pytest.mark.slow) for one in POLICIES),
    ],
)
def test_a_policy_gives_the_same_tables_after_a_kill(policy, every, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with own_threads():
        proof = policy_lives(policy, tmp_path)
        count = proof.sweep(FaultPlan("kill"), proof.points("kill", every=every))
    assert (count.mismatches, count.killed) == ((), count.points)
    kept = [
        one["kept"] for one in proof.unbroken.found["records"].values() if "kept_fraction" in one
    ]
    assert len(kept) == 4
    assert min(kept) < 60  # it left some out


def test_the_run_of_the_proof_has_all_that_it_should(place):
    where, proof = place
    found = proof.unbroken.found
    kept = [one["kept"] for one in found["records"].values() if "kept" in one]
    assert min(kept) < max(kept)  # an epoch trained on fewer
    artifacts = {name.rpartition("/")[2] for name in found["digests"]}
    assert artifacts == {"model", "optimizer", "state", "ema", "observations", "updates", "samples"}
    assert any(path.endswith("/thinned.json") for path in found["objects"])
    if where != "disk":
        assert proof.unbroken.operations.count("put_new") >= len(WRITES) * 50
