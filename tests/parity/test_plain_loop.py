"""Weights after 50 updates are bitwise those of a loop that a person would write."""

import itertools

import pytest
import torch
from support.numbers.tiny_model import batches, cross_entropy, new_state, num_updates, samples
from torch import nn

from epochal.data.types import seed_64
from epochal.engine.config.numerics import EmaConfig, GradientsConfig, PrecisionConfig
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.model.ema import WeightAverage
from epochal.engine.model.precision import new_scaler, prepared

UPDATES, BATCH = 50, 4
TYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
CPU = torch.device("cpu")


class Images(nn.Module):
    """Convolution, BatchNorm, dropout, and a weight that is never used."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(4 * 6, 4)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x.reshape(-1, 1, 2, 3))))
        return self.head(self.dropout(x.flatten(1)))


def by_hand(make, options, x, y, *, accumulate, clip, precision, zeroing, ema, rate):
    """The loop; gives model, optimizer and average. Nothing of the engine is in it."""
    state = new_state(make, **options)  # the same initial weights
    model, optimizer = state.model, state.optimizer
    if precision.get("channels_last"):
        model = model.to(memory_format=torch.channels_last)
    dtype = TYPES[precision.get("dtype", "float32")]
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16)
    average = {name: one.detach().clone() for name, one in model.state_dict().items()}
    base = optimizer.param_groups[0]["lr"]
    criterion = nn.CrossEntropyLoss(reduction="sum")
    lows = list(range(0, len(y), BATCH))
    total = num_updates(len(y), batch_size=BATCH, accumulate=accumulate)
    model.train()
    if zeroing == "zero":
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
    else:
        optimizer.zero_grad(set_to_none=True)
    update = done = 0
    for index, low in enumerate(lows):
        torch.manual_seed(seed_64(5, "step", 0, index))
        window = lows[index // accumulate * accumulate :][:accumulate]
        size = min(window[-1] + BATCH, len(y)) - window[0]
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = criterion(model(x[low : low + BATCH]), y[low : low + BATCH])
        scaler.scale(loss.float() / size).backward()
        if low != window[-1]:
            continue
        for group in optimizer.param_groups:
            group["lr"] = base * rate((update + 0.5) / total)
        scaler.unscale_(optimizer)
        if "clip_value" in clip:
            nn.utils.clip_grad_value_(model.parameters(), clip["clip_value"])
        if "clip_norm" in clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip["clip_norm"])
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=zeroing == "none")
        update += 1
        if ema is not None and scaler.get_scale() >= before:
            done += 1
            decay = min(ema, (1 + done) / (10 + done))
            blend(average, model.state_dict(), decay)
    assert update == total == UPDATES
    return model, optimizer, average


def blend(average, weights, decay):
    for name, one in weights.items():
        if one.is_floating_point():
            average[name].lerp_(one, 1 - decay)
        else:
            average[name].copy_(one)


def ours(make, options, x, y, *, accumulate, clip, precision, zeroing, ema, rate):
    config = PrecisionConfig(**precision)
    state = new_state(make, **options)
    prepared(state.model, config)
    state.scaler = new_scaler(config, CPU)
    if ema is not None:
        state.ema = WeightAverage(state.model, EmaConfig(decay=ema))
    result = train_epoch(
        state,
        batches(x, y, batch_size=BATCH, accumulate=accumulate),
        Recipe(
            cross_entropy(),
            gradients=GradientsConfig(accumulate=accumulate, zeroing=zeroing, **clip),
            precision=config,
            rate=rate,
            seed=5,
        ),
        epoch=0,
        num_updates=UPDATES,
    )
    return state, result


def check(make=Images, **case):
    plain = {
        "options": {}, "accumulate": 1, "clip": {}, "precision": {}, "zeroing": "none",
        "ema": None, "rate": lambda epoch: 1.0,
    }  # fmt: skip
    case = {**plain, **case}
    accumulate = case["accumulate"]
    count = BATCH * (accumulate * (UPDATES - 1) + 1) - 1  # a short tail, and a short batch in it
    x, y = samples(count)
    options = case.pop("options")
    model, optimizer, average = by_hand(make, options, x, y, **case)
    state, result = ours(make, options, x, y, **case)
    assert result.num_updates == UPDATES
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state.model.state_dict()[name]), name
    moments = [one for slot in optimizer.state.values() for one in slot.values()]
    found = [one for slot in state.optimizer.state.values() for one in slot.values()]
    for one, other in zip(moments, found, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    if case["ema"] is not None:
        for name, tensor in average.items():
            assert torch.equal(tensor, state.ema.tensors[name]), name


CLIPS = {"none": {}, "norm": {"clip_norm": 0.5}, "both": {"clip_value": 0.05, "clip_norm": 0.1}}


@pytest.mark.parametrize(
    ("accumulate", "clip", "dtype"), list(itertools.product([1, 3], CLIPS, TYPES))
)
def test_accumulation_clips_and_precision(accumulate, clip, dtype):
    check(accumulate=accumulate, clip=CLIPS[clip], precision={"dtype": dtype}, ema=0.9)


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1, "amsgrad": True}),
    "rmsprop": (torch.optim.RMSprop, {"centered": True}),
    "nadam": (torch.optim.NAdam, {}),
    "adafactor": (torch.optim.Adafactor, {}),
    "adagrad": (torch.optim.Adagrad, {"lr_decay": 0.01}),
}


@pytest.mark.parametrize(
    ("optimizer", "zeroing"), list(itertools.product(OPTIMIZERS, ["none", "zero"]))
)
def test_optimizers_and_what_a_gradient_is_before(optimizer, zeroing):
    kind, options = OPTIMIZERS[optimizer]
    check(options={"optimizer": kind, **options}, zeroing=zeroing, accumulate=2)


def test_a_schedule_within_the_epoch():
    check(rate=lambda epoch: 1.0 - 0.9 * epoch, ema=0.99, clip={"clip_norm": 1.0})


def test_images_in_the_other_memory_order():
    check(precision={"channels_last": True, "dtype": "bfloat16"}, accumulate=2)
