"""What is measured of gradients, and what happens to numbers that are not finite."""

import copy

import numpy as np
import pytest
import torch
from support.numbers.tiny_model import (
    NUM_CLASSES,
    WIDTH,
    Net,
    bits,
    new_state,
    run_epoch,
    samples,
)
from torch import nn

from epochal.data.errors import NonFinite, TargetError
from epochal.data.types import Window, seed_64
from epochal.engine.checkpoint.folder import load_checkpoint, save_checkpoint
from epochal.engine.checkpoint.serialize import load_state, split_state
from epochal.engine.config.numerics import EmaConfig, GradientsConfig, PrecisionConfig
from epochal.engine.loop.epoch import spikes
from epochal.engine.loop.gradients import MAX_SKIPPED, Gradients
from epochal.engine.model.companions import companions_of
from epochal.engine.model.ema import WeightAverage
from epochal.engine.model.precision import new_scaler
from epochal.engine.model.state import TrainingState
from epochal.engine.model.step import StepOutput

CPU = torch.device("cpu")


def train(state, x, y, *, batch_size=8, step=None, precision=None, resume=None, start=0,
          on_progress=None, **gradients):  # fmt: skip
    return run_epoch(
        state, x, y, batch_size=batch_size, accumulate=gradients.pop("accumulate", 1), step=step,
        precision=precision or PrecisionConfig(), start=start, on_progress=on_progress,
        resume=resume, gradients=gradients,
    )  # fmt: skip


def poisoned(*rows, count=64):
    x, y = samples(count)
    x[list(rows)] = torch.nan
    return x, y


def test_a_skipped_update_changes_nothing_and_is_counted():
    x, y = poisoned(20)  # in the third of eight updates
    state, without = (new_state(lambda: Net(dropout=0, norm=False)) for _ in range(2))
    state.ema = WeightAverage(state.model, EmaConfig(decay=0.9))
    result = train(state, x, y, on_nonfinite="skip")
    assert (result.num_updates, result.num_skipped) == (8, 1)
    assert (state.updates_done, state.updates_skipped) == (7, 1)
    assert result.updates["gradients/skipped"].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    keep = torch.tensor([row for row in range(64) if not 16 <= row < 24])
    train(without, x[keep], y[keep])
    ours, theirs = bits(state)[0], bits(without)[0]
    assert ours == theirs
    assert all(torch.isfinite(one).all() for one in state.ema.tensors.values())
    row = result.observations["sample_id"].tolist().index(200)
    assert np.isnan(result.observations["loss"][row])


def test_a_run_that_only_skips_ends_with_a_reason():
    x, y = samples(MAX_SKIPPED * 2 + 8)
    x[8:] = torch.inf
    with pytest.raises(NonFinite, match=f"the last {MAX_SKIPPED} updates were skipped"):
        train(new_state(), x, y, batch_size=2, on_nonfinite="skip")


def test_skipped_updates_with_others_between_them_do_not_end_the_run():
    x, y = samples(4 * MAX_SKIPPED + 8)
    x[::4] = torch.inf  # every second update of two samples
    result = train(new_state(), x, y, batch_size=2, on_nonfinite="skip")
    assert result.num_skipped > MAX_SKIPPED


def test_the_average_takes_in_the_weights_of_an_update_by_its_number():
    state = new_state()
    state.ema = WeightAverage(state.model, EmaConfig(decay=0.9))
    initial = state.model.head.weight.detach().clone()
    train(state, *samples(8))
    expected = torch.lerp(initial, state.model.head.weight.detach(), 1 - 2 / 11)
    torch.testing.assert_close(state.ema.tensors["head.weight"], expected)


def test_parameters_that_the_optimizer_does_not_hold_gather_no_gradients():
    state = new_state()
    state = TrainingState(state.model, torch.optim.SGD(state.model.head.parameters(), lr=0.1))
    train(state, *samples(16))
    assert state.model.body[0].weight.grad is None


def test_by_default_it_ends_the_run_and_names_the_samples():
    x, y = poisoned(20)
    with pytest.raises(NonFinite, match=r"update 3 of 8: .*samples of a non-finite loss: 200"):
        train(new_state(lambda: Net(norm=False)), x, y)


def test_float16_skips_what_overflows_and_lowers_its_scale():
    state = new_state()
    config = PrecisionConfig(dtype="float16")
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    result = train(state, *samples(64), precision=config)
    scale = result.updates["gradients/scale"]
    skipped = result.updates["gradients/skipped"] > 0
    assert skipped[0]
    assert scale[:2].tolist() == [2.0**24, 2.0**23]
    assert not skipped[-1]
    assert result.num_skipped == skipped.sum() == state.updates_skipped
    assert np.isfinite(result.updates["gradients/norm"][~skipped]).all()


def test_the_norm_of_a_scaled_loss_is_that_of_the_loss():
    x, y = samples(16)
    norms = []
    for dtype in ("bfloat16", "float16"):
        state = new_state(lambda: Net(dropout=0))
        config = PrecisionConfig(dtype=dtype)
        state.scaler = new_scaler(config, CPU)
        if state.scaler is not None:
            state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        norms.append(train(state, x, y, precision=config, clip_norm=0.1).updates)
    plain, scaled = norms
    np.testing.assert_allclose(scaled["gradients/norm"], plain["gradients/norm"], rtol=0.05)
    np.testing.assert_allclose(scaled["gradients/norm_clipped"], 0.1, rtol=1e-3)


def test_a_loss_that_is_not_finite_ends_a_float16_run_too():
    config = PrecisionConfig(dtype="float16")
    state = new_state(lambda: Net(norm=False))
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with pytest.raises(NonFinite, match="update 3 of 8"):
        train(state, *poisoned(20), precision=config)


def test_scale_and_skips_come_back_with_a_state():
    config = PrecisionConfig(dtype="float16")
    state, other = new_state(), new_state(seed=9)
    for one in (state, other):
        one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    train(state, *samples(64), precision=config)
    assert state.updates_skipped
    load_state(other, copy.deepcopy(split_state(state)))
    assert other.scaler.state_dict() == state.scaler.state_dict()
    assert (other.updates_done, other.updates_skipped) == (
        state.updates_done,
        state.updates_skipped,
    )
    x, y = samples(40, seed=3)
    assert train(state, x, y, precision=config).updates.keys()
    train(other, x, y, precision=config)
    assert bits(state) == bits(other)


def test_a_resume_inside_an_accumulation_is_bitwise_with_a_scaler_and_skips():
    config = PrecisionConfig(dtype="float16")
    x, y = samples(61)
    captured = {}

    def keep(progress):
        if progress.micro_steps == 5:
            captured["partial"] = copy.deepcopy(progress.capture())
            captured["parts"] = copy.deepcopy(split_state(progress.state))

    options = {"precision": config, "accumulate": 3, "on_nonfinite": "skip", "update_ratio": True}
    whole = new_state()
    whole.scaler = new_scaler(config, CPU)
    unbroken = train(whole, x, y, on_progress=keep, **options)
    resumed = new_state(seed=9)
    resumed.scaler = new_scaler(config, CPU)
    load_state(resumed, captured["parts"])
    result = train(resumed, x, y, resume=captured["partial"], start=5, **options)
    assert bits(whole) == bits(resumed)
    for name, column in unbroken.updates.items():
        np.testing.assert_array_equal(column, result.updates[name], err_msg=name)


def test_the_ratio_is_how_far_the_weights_moved():
    x, y = samples(8)
    state = new_state(lambda: Net(dropout=0))
    before = [one.detach().clone() for one in state.model.parameters()]
    result = train(state, x, y, update_ratio=True)
    moved = [a.detach() - b for a, b in zip(state.model.parameters(), before, strict=True)]
    expected = nn.utils.get_total_norm(moved) / nn.utils.get_total_norm(before)
    assert result.updates["gradients/update_ratio"][0] == pytest.approx(float(expected), rel=1e-6)


def test_the_clip_rate_is_the_share_of_updates_that_were_clipped():
    result = train(new_state(), *samples(64), clip_norm=1e9)
    assert result.clip_rate == 0
    result = train(new_state(), *samples(64), clip_norm=1e-3)
    assert result.clip_rate == 1


@pytest.mark.parametrize(
    ("depth", "groups"),
    [(1, ("body", "head")), (2, ("body.0", "body.1", "head")), (9, ("body.0", "body.1", "head"))],
)
def test_groups_of_norms_go_as_deep_as_they_are_told(depth, groups):
    assert Gradients(new_state(), GradientsConfig(depth=depth)).groups == groups


def test_a_spike_is_far_above_the_median_of_what_came_before():
    norms = np.ones(100)
    norms[[3, 15, 20, 70]] = 50, 50, 50, 4.9
    assert np.flatnonzero(spikes(norms)).tolist() == [20]
    assert not spikes(np.zeros(0)).any()
    assert not spikes(np.full(40, np.nan)).any()


def test_accumulation_from_an_epoch_on():
    config = GradientsConfig(accumulate=4, accumulate_from=2)
    assert [config.accumulated(epoch) for epoch in range(4)] == [1, 1, 4, 4]
    assert config.key_slice(0) == GradientsConfig().key_slice(0)
    assert config.key_slice(2) == GradientsConfig(accumulate=4).key_slice(2)


def parted(model, batch):
    logits = model(batch[0])
    ce = nn.functional.cross_entropy(logits, batch[1], reduction="none")
    l2 = logits.square().mean()
    return StepOutput(ce + 0.1 * l2, logits, target=batch[1], parts={"ce": ce, "l2": l2})


def test_each_part_of_a_loss_is_logged_with_the_weight_of_its_samples():
    x, y = samples(22)
    plain = run_epoch(new_state(), x, y, batch_size=4, accumulate=3, step=parted)
    updates = plain.updates
    np.testing.assert_allclose(
        updates["train/loss"], updates["train/loss/ce"] + 0.1 * updates["train/loss/l2"], rtol=1e-5
    )


@pytest.mark.parametrize("accumulate", [1, 3])
def test_parts_may_be_whole_numbers(accumulate):
    def step(model, batch):
        output = parted(model, batch)
        right_B = output.outputs.argmax(1) == batch[1]
        parts = {"right": right_B.long(), "of": torch.tensor(2), "sure": right_B}
        return StepOutput(output.loss_B, output.outputs, target=batch[1], parts=parts)

    result = run_epoch(new_state(), *samples(22), batch_size=4, accumulate=accumulate, step=step)
    right_U, of_U = (result.updates[f"train/loss/{name}"] for name in ("right", "of"))
    sizes_U = np.full(len(right_U), 4 * accumulate)
    sizes_U[-1] = 22 - sizes_U[:-1].sum()
    assert float(right_U @ sizes_U) == pytest.approx(result.observations["correct"].sum())
    np.testing.assert_allclose(of_U, 2.0, rtol=1e-6)
    np.testing.assert_array_equal(result.updates["train/loss/sure"], right_U)


def test_parts_must_be_the_same_for_each_batch():
    calls = []

    def step(model, batch):
        output = parted(model, batch)
        calls.append(1)
        parts = {"ce": output.parts["ce"]} if len(calls) > 2 else output.parts
        return StepOutput(output.loss_B, output.outputs, target=batch[1], parts=parts)

    with pytest.raises(TargetError, match="its parts were ce, l2, now they are ce"):
        run_epoch(new_state(), *samples(40), step=step)


class Complex(nn.Module):
    """Complex weights beside real ones: a transform of the input, whose size goes into a head."""

    def __init__(self, dtype=torch.complex64):
        super().__init__()
        self.mix = nn.Linear(WIDTH, 8, dtype=dtype)
        self.head = nn.Linear(8, NUM_CLASSES, dtype=dtype.to_real())

    def forward(self, x_BD):
        return self.head(self.mix(x_BD.to(self.mix.weight.dtype)).abs())


class Mixed(nn.Module):
    """A part in float64 between two in float32."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(WIDTH, 8), nn.Linear(8, NUM_CLASSES)
        self.middle = nn.Linear(8, 8, dtype=torch.float64)

    def forward(self, x_BD):
        return self.head(self.middle(self.body(x_BD).double()).float())


class Sparse(nn.Module):
    """An embedding with sparse gradients in float64."""

    def __init__(self):
        super().__init__()
        self.embed = nn.EmbeddingBag(16, 8, sparse=True, dtype=torch.float64)
        self.head = nn.Linear(8, NUM_CLASSES, dtype=torch.float64)

    def forward(self, x_BD):
        return self.head(self.embed((x_BD.abs() * 4).long().clamp(max=15)))


NUMBER_TYPES = {
    "float64": (lambda: Net().double(), torch.float64, torch.optim.AdamW, {}),
    "bfloat16": (lambda: Net(norm=False).bfloat16(), torch.bfloat16, torch.optim.AdamW, {}),
    "complex64": (Complex, torch.float32, torch.optim.AdamW, {}),
    "complex128": (lambda: Complex(torch.complex128), torch.float64, torch.optim.SGD, {}),
    "sparse": (Sparse, torch.float64, torch.optim.SGD, {}),
    "mixed": (Mixed, torch.float32, torch.optim.AdamW, {}),
}


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.05}, {"clip_value": 0.002}])
@pytest.mark.parametrize("kind", NUMBER_TYPES)
def test_every_type_of_number_trains_as_in_a_loop_by_hand(kind, clip):
    make, dtype, optimizer, options = NUMBER_TYPES[kind]
    x, y = samples(40)
    x = x.to(dtype)
    ours, theirs = (new_state(make, optimizer, **options) for _ in range(2))
    result = run_epoch(ours, x, y, gradients={"update_ratio": True}, **clip)
    norms, clipped = [], []
    theirs.model.train()
    with torch.random.fork_rng():
        for index, low in enumerate(range(0, 40, 8)):
            torch.manual_seed(seed_64(5, "step", 0, index))
            loss = nn.functional.cross_entropy(theirs.model(x[low : low + 8]), y[low : low + 8])
            loss.float().backward() if loss.dtype == torch.bfloat16 else loss.backward()
            parameters = list(theirs.model.parameters())
            norms.append(wide_norm(parameters))
            if "clip_norm" in clip:
                factor = min(1.0, clip["clip_norm"] / (norms[-1] + 1e-6))
                for parameter in parameters:
                    parameter.grad.mul_(factor)
            if "clip_value" in clip:
                for parameter in parameters:
                    if parameter.grad.is_sparse:
                        parameter.grad = parameter.grad.coalesce()
                    grad = parameter.grad
                    grad = grad._values() if grad.is_sparse else grad
                    parts = torch.view_as_real(grad) if grad.is_complex() else grad
                    parts.clamp_(-clip["clip_value"], clip["clip_value"])
            clipped.append(wide_norm(parameters))
            theirs.optimizer.step()
            theirs.optimizer.zero_grad()
    low_precision = kind == "bfloat16"
    rtol = 2e-2 if low_precision else 1e-5
    np.testing.assert_allclose(result.updates["gradients/norm"], norms, rtol=rtol)
    np.testing.assert_allclose(result.updates["gradients/norm_clipped"], clipped, rtol=rtol)
    assert np.isfinite(result.updates["gradients/update_ratio"]).all()
    for name, tensor in theirs.model.state_dict().items():
        torch.testing.assert_close(
            ours.model.state_dict()[name], tensor, rtol=rtol, atol=1e-2 if low_precision else 1e-5
        )


def wide_norm(parameters):
    """The norm of all gradients, in float64."""
    total = 0.0
    for parameter in parameters:
        grad = parameter.grad
        grad = grad.coalesce()._values() if grad.is_sparse else grad
        wide = torch.complex128 if grad.is_complex() else torch.float64
        total += float(grad.to(wide).abs().square().sum())
    return total**0.5


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_norms_of_float64_gradients_are_float64(size):
    """In float32 the square of such a gradient is 0 or infinite, and its last digits are lost."""
    model = nn.Linear(3, 1, dtype=torch.float64)
    state = TrainingState(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.0))
    gradients = Gradients(state, GradientsConfig())
    gradients.begin()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, (1 + 1e-12) * size)
    update = gradients.update(torch.zeros(()), Window(1, last=True))
    assert update.total == pytest.approx((1 + 1e-12) * size * 2, rel=1e-15)


@pytest.mark.parametrize("kind", ["float64", "bfloat16", "complex64", "sparse"])
def test_checkpoints_and_averages_of_every_type_of_number_have_its_bits(kind, tmp_path):
    make, dtype, optimizer, options = NUMBER_TYPES[kind]
    x, y = samples(40)
    whole, again = (new_state(make, optimizer, **options) for _ in range(2))
    for state in (whole, again):
        state.ema = WeightAverage(state.model, EmaConfig(decay=0.9))
    run_epoch(whole, x.to(dtype), y)
    save_checkpoint(whole, tmp_path / "first")
    run_epoch(whole, x.to(dtype), y, epoch=1)
    load_checkpoint(again, tmp_path / "first")
    run_epoch(again, x.to(dtype), y, epoch=1)
    save_checkpoint(whole, tmp_path / "whole")
    save_checkpoint(again, tmp_path / "again")
    for name in ("model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_gradients_of_a_loss_that_is_trained_are_cleared_between_updates():
    """They are not the model's, and would add up for ever."""
    model, loss = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    parameters = [*model.parameters(), *loss.parameters()]
    state = TrainingState(
        model, torch.optim.SGD(parameters, lr=0.1), companions=companions_of(loss=loss)
    )
    gradients = Gradients(state, GradientsConfig())
    gradients.begin()
    for _ in range(2):
        value = loss(model(torch.ones(1, 2))).sum()
        value.backward()
        gradients.update(value.detach(), Window(1, last=True))
        assert all(parameter.grad is None for parameter in parameters)
