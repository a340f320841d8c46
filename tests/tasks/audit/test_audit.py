"""Which epochs an audit computes again."""

from types import SimpleNamespace

from epochal.tasks.audit.audit import chosen

STAGES = [SimpleNamespace(number=epoch, known_key=f"{epoch:064x}") for epoch in range(30)]


def epochs(share, seed=0, stages=STAGES):
    return [stage.number for stage in chosen(stages, share=share, seed=seed)]


def test_a_share_is_that_many_epochs_in_order_and_one_at_least():
    assert [len(epochs(share)) for share in (0.001, 0.1, 0.11, 1)] == [1, 3, 4, 30]
    assert epochs(1) == list(range(30))


def test_a_seed_chooses_the_same_epochs_again_and_another_one_others():
    assert epochs(0.2, seed=1) == epochs(0.2, seed=1, stages=STAGES[::-1])
    assert epochs(0.2, seed=1) != epochs(0.2, seed=2)
    assert {epoch for seed in range(20) for epoch in epochs(0.2, seed)} == set(range(30))
