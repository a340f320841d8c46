"""Mixup and CutMix: the numbers of a loop by hand, shares as they are defined, no state."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.numbers.tiny_model import Net, cross_entropy, new_state, run_epoch, samples
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment
from torch import nn

from epochal.data.errors import ConfigError, TargetError, TrainingFailed
from epochal.data.types import seed_64
from epochal.engine.config.mixing import MixingConfig
from epochal.engine.loop.mixing import MixedBatch, MixedStep, Mixer, beta_symmetric, plan_mixing
from epochal.engine.model.build import build_loss
from epochal.engine.model.step import DefaultStep
from epochal.tasks.config.run import RunConfig

SEED, EPOCH, BATCH = 5, 2, 8
IDS = np.arange(4000, dtype=np.int64) * 3


def plan(ids=IDS, size=(12, 10), epoch=EPOCH, **options):
    return plan_mixing(MixingConfig(**options), ids, seed=SEED, epoch=epoch, size_HW=size)


class Pictures(nn.Module):
    """A convolution over images of 3 × 2."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(24, 4)

    def forward(self, x):
        return self.head(self.dropout(torch.relu(self.conv(x)).flatten(1)))


def pictures(count=61):
    x, y = samples(count)
    return x.reshape(-1, 1, 3, 2), y


def train(state, x, y, config, *, step=None, weights=None, accumulate=1):
    return run_epoch(
        state, x, y, batch_size=BATCH, accumulate=accumulate, weights=weights, epoch=EPOCH,
        step=step or MixedStep(cross_entropy()), seed=SEED, mixing=config,
    )  # fmt: skip


def by_hand(state, x, y, config, *, weights=None):
    """The loop that a person would write, mixing row by row; shares and boxes are looked up."""
    model, optimizer = state.model, state.optimizer
    model.train()
    losses = []
    for index, low in enumerate(range(0, len(y), BATCH)):
        torch.manual_seed(seed_64(SEED, "step", EPOCH, index))
        x_B, y_B = x[low : low + BATCH], y[low : low + BATCH]
        ids = np.arange(low, low + len(y_B)) * 10
        found = plan_mixing(
            config, ids, seed=SEED, epoch=EPOCH, size_HW=tuple(x.shape[-2:]) if x.ndim > 2 else None
        )
        share = torch.tensor(found.share_B, dtype=torch.float32)
        mixed = x_B.clone()
        for row, partner in enumerate(found.partner_B):
            if found.cut_B[row]:
                top, bottom, left, right = found.box_B4[row]
                inside, outside = x_B[partner].clone(), x_B[row].clone()
                if found.swapped_B[row]:
                    inside, outside = outside, inside
                outside[..., top:bottom, left:right] = inside[..., top:bottom, left:right]
                mixed[row] = outside
            else:
                mixed[row] = x_B[row] * share[row] + x_B[partner] * (1 - share[row])
        logits = model(mixed)
        criterion = nn.CrossEntropyLoss(reduction="none")
        loss = criterion(logits, y_B) * share + criterion(logits, y_B[found.partner_B]) * (
            1 - share
        )
        losses.append(loss.detach())
        total = loss.mean() if weights is None else (loss * weights[low : low + BATCH]).sum()
        total = total if weights is None else total / len(y_B)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return torch.cat(losses)


@pytest.mark.parametrize(
    ("make", "data", "options"),
    [
        (Net, samples, {"mixup": 0.2}),
        (Net, samples, {"mixup": 3.0, "probability": 0.5}),
        (Pictures, pictures, {"cutmix": 1.0}),
        (Pictures, pictures, {"mixup": 0.4, "cutmix": 1.0, "switch": 0.3}),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_and_losses_are_bitwise_those_of_a_loop_by_hand(make, data, options, weighted):
    x, y = data(61)
    weights = torch.linspace(0.5, 1.5, 61) if weighted else None
    config = MixingConfig(**options)
    ours, theirs = new_state(make), new_state(make)
    result = train(ours, x, y, config, weights=weights)
    losses = by_hand(theirs, x, y, config, weights=weights)
    for name, tensor in theirs.model.state_dict().items():
        assert torch.equal(tensor, ours.model.state_dict()[name]), name
    assert np.array_equal(result.observations["loss"], losses.numpy())
    assert np.array_equal(result.observations["label"], y.numpy())
    assert result.accuracy is not None


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 8.0])
def test_shares_follow_the_beta_distribution(alpha):
    random = np.random.default_rng(0)
    found = beta_symmetric(alpha, random.random(20_000), random.random(20_000))
    assert stats.kstest(found, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert ((found >= 0) & (found <= 1)).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 20), st.integers(0, 50))
def test_the_mean_share_is_that_of_the_larger_part(alpha, epoch):
    # The own sample has the larger part: E[max(b, 1 − b)] for b from Beta(alpha, alpha).
    beta = stats.beta(alpha, alpha)
    expected = 2 * beta.expect(lambda b: b, lb=0.5, ub=1) if alpha >= 0.3 else None
    share_B = plan(mixup=alpha, epoch=epoch).share_B
    assert (share_B >= 0.5).all()
    if expected is not None:
        spread = share_B.std() / np.sqrt(len(share_B))
        assert abs(share_B.mean() - expected) < 5 * spread + 1e-3


def test_the_share_under_cutmix_is_the_area_and_pixels_are_counted():
    x = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 2, 12, 10).contiguous()
    y = torch.arange(8) % 4
    mixed = Mixer(MixingConfig(cutmix=1.0), seed=SEED, epoch=EPOCH)((x, y), IDS[:8])
    found = plan(IDS[:8], cutmix=1.0)
    own = (mixed.input == x).float().mean((1, 2, 3))
    assert torch.allclose(own, mixed.share_B)
    assert torch.equal(mixed.partner_target, y[found.partner_B])
    assert (mixed.share_B >= 0.5).all()
    assert found.swapped_B.any()


def test_the_share_of_the_mixed_and_of_the_cut_is_as_asked():
    found = plan(mixup=0.5, cutmix=1.0, probability=0.6, switch=0.25)
    untouched = (found.share_B == 1) & ~found.cut_B
    assert abs(untouched.mean() - 0.4) < 0.05
    assert abs(found.cut_B.mean() - 0.6 * 0.25) < 0.03


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=2, max_size=40, unique=True), st.randoms())
def test_partners_are_a_permutation_that_the_order_of_the_rows_does_not_change(ids, random):
    ids = np.array(ids)
    found = plan(ids, mixup=0.2)
    assert sorted(found.partner_B) == list(range(len(ids)))
    assert (found.partner_B != np.arange(len(ids))).all()
    shuffled = np.array(random.sample(range(len(ids)), len(ids)))
    other = plan(ids[shuffled], mixup=0.2)
    assert np.array_equal(ids[shuffled][other.partner_B], ids[found.partner_B][shuffled])
    assert np.array_equal(other.share_B, found.share_B[shuffled])


def test_another_epoch_mixes_otherwise():
    assert not np.array_equal(plan(mixup=1.0).share_B, plan(mixup=1.0, epoch=3).share_B)
    assert not np.array_equal(plan(mixup=1.0).partner_B, plan(mixup=1.0, epoch=3).partner_B)


def test_smoothed_labels_are_those_of_torch():
    x, y = samples(61)
    y[5] = -100
    ours, theirs = (new_state(optimizer=torch.optim.SGD) for _ in range(2))
    train(ours, x, y, MixingConfig(label_smoothing=0.1))
    smooth = MixedStep(cross_entropy(label_smoothing=0.1))
    train(theirs, x, y, None, step=smooth)
    for name, tensor in theirs.model.state_dict().items():
        assert torch.allclose(tensor, ours.model.state_dict()[name], atol=1e-5), name


def test_soft_targets_and_numbers_are_mixed_themselves():
    x, y = samples(24)
    soft = torch.nn.functional.one_hot(y, 4).float()
    hard_state, soft_state = (new_state(optimizer=torch.optim.SGD) for _ in range(2))
    train(hard_state, x, y, MixingConfig(mixup=0.4))
    train(soft_state, x, soft, MixingConfig(mixup=0.4))
    for name, tensor in hard_state.model.state_dict().items():
        assert torch.allclose(tensor, soft_state.model.state_dict()[name], atol=1e-4), name
    step = MixedStep(DefaultStep(build_loss(nn.MSELoss, {})))
    batch = Mixer(MixingConfig(mixup=0.4), seed=SEED, epoch=EPOCH)((x, x), IDS[:24])
    assert torch.allclose(step(nn.Identity(), batch).loss_B, torch.zeros(24), atol=1e-6)


@pytest.mark.parametrize(
    ("data", "options", "problem"),
    [
        ((torch.zeros(4, 6), torch.zeros(4).long()), {"cutmix": 1.0}, "it takes images"),
        ((torch.zeros(4, 6).int(), torch.zeros(4).long()), {"mixup": 1.0}, "floating-point"),
        ((torch.zeros(4, 6), torch.zeros(4, 6).long()), {"mixup": 1.0}, "targets of classes"),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_an_error(data, options, problem):
    with pytest.raises(TargetError, match=problem):
        Mixer(MixingConfig(**options), seed=1, epoch=0)(data, IDS[:4])


def test_mixing_nothing_is_a_config_error():
    with pytest.raises(ValueError, match="give one of them"):
        MixingConfig(probability=0.5)


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=2)


MIXING = {"mixing": "{mixup: 0.4, probability: 0.8}"}


def test_a_mixed_epoch_goes_on_to_the_same_bytes_and_workers_change_nothing(tmp_path, project):
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole", **MIXING)()
    assert whole.weights != BareRun(project.config, store=f"file://{tmp_path}/plain")().weights
    often = {"checkpoint__every_updates": 1, **MIXING}
    with environment(FAIL_AT_CALL="9"), pytest.raises(TrainingFailed):
        BareRun(project.config, **often)()
    again = BareRun(project.config, **often)()
    assert again.resumed
    assert again.digests == whole.digests
    text = (project.folder / "blobs.py").read_text()
    listed = "list(zip(centres[labels] + noise + shift, labels))"
    text = text.replace("TensorDataset(centres[labels] + noise + shift, labels)", listed)
    assert listed in text  # a TensorDataset is read in this process
    project.write("blobs.py", text)
    counts = {}
    for workers in (0, 2):
        store = f"file://{tmp_path}/workers-{workers}"
        counts[workers] = BareRun(project.config, store=store, loader__workers=workers, **MIXING)()
    assert counts[0].digests == counts[2].digests


STEP = """
    from epochal.engine import StepOutput
    from torch.nn.functional import cross_entropy

    class Own:
        {mark}

        def __call__(self, model, batch):
            outputs = model(batch[0])
            return StepOutput(cross_entropy(outputs, batch[1], reduction="none"), outputs)
"""


@pytest.mark.parametrize("known", [False, True])
def test_a_step_of_ones_own_must_say_that_it_takes_mixed_batches(project, known):
    mark = "takes_mixed_batches = True" if known else "pass"
    project.write("own.py", STEP.format(mark=mark))
    options = {**MIXING, "step": "{target: 'own:Own'}"}
    if known:
        assert BareRun(project.config, epochs=1, **options)().weights
        return
    with pytest.raises(ConfigError, match="takes_mixed_batches = True"):
        BareRun(project.config, **options)


def test_a_loss_for_the_whole_batch_is_refused(project):
    project.write("loss.py", "import torch\ndef mean(o, t):\n    return o.square().mean()\n")
    with pytest.raises(TargetError, match="one loss for each sample"):
        BareRun(project.config, loss="{target: 'loss:mean'}", sampling="{policy: none}", **MIXING)


def test_mixed_batches_keep_their_form():
    batch = MixedBatch(torch.zeros(2, 1), torch.zeros(2), torch.ones(2), torch.ones(2))
    assert batch[1] is batch.target
    assert "mixing" in RunConfig.model_fields
