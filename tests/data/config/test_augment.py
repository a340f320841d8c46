"""What a config of augmentation may say: what is wrong is an error that says what to do."""

import pytest

from epochal.data.config.augment import AugmentConfig

NORMALIZE = {"kind": "normalize", "mean": [0.5], "std": [0.5]}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"train": [{"kind": "flop"}]}, "'flip', 'crop'"),
        ({"train": [{"kind": "flip", "propability": 0.5}]}, "propability"),
        ({"train": [{"kind": "crop"}]}, "neither size nor padding"),
        ({"train": [{"kind": "color"}]}, "nothing is changed"),
        ({"train": [{"kind": "affine"}]}, "nothing is changed"),
        ({"train": [{"kind": "erase", "area": [0.4, 0.3]}]}, "runs down"),
        ({"train": [{"kind": "erase", "area": [0.4, 1.3]}]}, "at most 1"),
        ({"train": [{"kind": "resize", "size": 8, "shorter": 8}], "validation": []}, "either"),
        ({"train": [{**NORMALIZE, "std": [0.5, 0.5]}]}, "mean has 1 numbers, std 2"),
        ({"train": [{**NORMALIZE, "std": [0]}]}, "greater than 0"),
        ({"train": [NORMALIZE, {"kind": "color", "contrast": 0.1}]}, "put it first"),
        ({"train": [NORMALIZE]}, "validation is not said"),
        ({"train": [{"kind": "crop", "size": 8}]}, "validation is not said"),
        ({"validation": [{"kind": "flip"}]}, "'normalize'"),
        ([{"kind": "flip"}], "expected {train: "),
    ],
)
def test_what_is_wrong_is_refused_with_what_to_do(given, problem):
    with pytest.raises(ValueError, match=problem):
        AugmentConfig.model_validate(given)


def test_what_keeps_the_form_needs_no_word_about_validation():
    config = AugmentConfig.model_validate({"train": [{"kind": "flip"}, {"kind": "erase"}]})
    assert config.operations("validation") == ()


def test_a_key_holds_what_acts_on_that_part_and_is_not_as_usual():
    given = {
        "train": [{"kind": "flip", "probability": 0.5}, NORMALIZE],
        "validation": [NORMALIZE],
        "mask_fill": 255,
    }
    config = AugmentConfig.model_validate(given)
    assert config.key_slice("train") == {
        "operations": [{"kind": "flip"}, NORMALIZE],
        "mask_fill": 255,
    }
    assert config.key_slice("validation") == {"operations": [NORMALIZE], "mask_fill": 255}
    assert AugmentConfig.model_validate({"keep": ["x"]}).key_slice("train") == {}
