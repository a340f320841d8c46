"""The mean of checkpoints' weights: that of a sum by hand, in the types of the weights."""

import pytest
import torch

from epochal.data.errors import StateMismatch
from epochal.engine.checkpoint.averaging import averaged


def test_the_mean_is_that_of_a_sum_by_hand_in_the_types_of_the_weights():
    generator = torch.Generator().manual_seed(1)
    parts = [
        {
            "w": torch.randn(4, 3, generator=generator),
            "half": torch.randn(5, generator=generator).half(),
            "complex": torch.randn(2, generator=generator, dtype=torch.complex64),
            "count": torch.tensor(index),
            "flag": torch.tensor([index == 2]),
        }
        for index in range(3)
    ]
    before = [{name: one.clone() for name, one in part.items()} for part in parts]
    found = averaged(iter(parts))
    for name in ("w", "half", "complex"):
        wide = torch.complex128 if name == "complex" else torch.float64
        total = sum(part[name].to(wide) for part in parts) / 3
        assert torch.equal(found[name], total.to(parts[0][name].dtype)), name
    assert (int(found["count"]), found["flag"].tolist()) == (2, [True])
    assert all(torch.equal(one, old[name]) for part, old in zip(parts, before, strict=True)
               for name, one in part.items())  # fmt: skip


def test_checkpoints_of_two_models_have_no_mean():
    with pytest.raises(StateMismatch, match=r"w: stored \(3,\), the model wants \(2,\)"):
        averaged([{"w": torch.zeros(2)}, {"w": torch.zeros(3)}])
    with pytest.raises(ValueError, match="no checkpoint"):
        averaged([])
