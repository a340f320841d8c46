"""Config of data, batches and sampling: defaults, bounds, and the phase of an epoch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from epochal.data.config.loader import DataConfig, LoaderConfig, SamplingConfig


def full_epochs(epochs, **fields):
    config = SamplingConfig(**fields)
    return [epoch for epoch in range(epochs + 1) if config.is_full(epoch, epochs=epochs)]


def test_defaults_need_nothing_but_a_batch_size():
    assert SamplingConfig().policy == "none"
    loader = LoaderConfig(batch_size=32)
    assert (loader.workers, loader.drop_last, loader.validation_batch_size) == (0, False, None)
    assert DataConfig(target="data:train").files == ()


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (LoaderConfig, {}),
        (LoaderConfig, {"batch_size": 0}),
        (LoaderConfig, {"batch_size": 8, "workers": -1}),
        (LoaderConfig, {"batch_size": 8, "workers": 10_000}),
        (LoaderConfig, {"batch_size": 8, "batchsize": 8}),
        (LoaderConfig, {"batch_size": 8, "validation_batch_size": 0}),
        (SamplingConfig, {"policy": "easyskip"}),
        (SamplingConfig, {"confidence": 0.0}),
        (SamplingConfig, {"confidence": 1.1}),
        (SamplingConfig, {"confidence": float("nan")}),
        (SamplingConfig, {"revisit": 0}),
        (SamplingConfig, {"floor": 0.0}),
        (SamplingConfig, {"floor": 1.5}),
        (SamplingConfig, {"warm_up": -1}),
        (SamplingConfig, {"final_full": -1}),
        (DataConfig, {"target": "data:train", "version": ""}),
        (DataConfig, {"target": "data:train", "files": [" "]}),
        (DataConfig, {"target": "data"}),
    ],
)
def test_what_cannot_be_is_refused(model, fields):
    with pytest.raises(ValidationError):
        model(**fields)


@pytest.mark.parametrize("model", [DataConfig, LoaderConfig, SamplingConfig])
def test_every_field_has_help(model):
    assert all(field.description for field in model.model_fields.values())


def test_warm_up_and_an_eighth_at_the_end_are_full():
    assert full_epochs(16) == [0, 14, 15]
    assert full_epochs(9) == [0, 7, 8]
    assert full_epochs(4, warm_up=0) == [3]
    assert full_epochs(4, warm_up=2, final_full=0) == [0, 1]
    assert full_epochs(3, final_full=9) == [0, 1, 2]


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 5))
def test_without_a_final_phase_the_length_of_the_run_plays_no_part(epochs, more, warm_up):
    config = SamplingConfig(warm_up=warm_up, final_full=0)
    for epoch in range(epochs + 1):
        assert config.is_full(epoch, epochs=epochs) == config.is_full(epoch, epochs=epochs + more)


def test_the_key_holds_what_acts_and_leaves_the_phases_to_their_truth_value():
    assert SamplingConfig(policy="easy_skip").key_slice() == {
        "policy": "easy_skip",
        "confidence": 0.9,
        "revisit": 2,
        "floor": 0.1,
    }
    assert SamplingConfig(warm_up=5, final_full=7).key_slice() == SamplingConfig().key_slice()
