"""How people are told what is wrong with a config: one line of the branch that was meant."""

import pytest
from support.runs.project import Project

from epochal.data.errors import ConfigError
from epochal.tasks.config.load import load_config

A_TARGET = 'mapping: {target: "module:attribute", args: {…}}; it'


@pytest.mark.parametrize(
    ("override", "found", "expected"),
    [
        ("model=a:B", "model: found 'a:B'", 'expected a mapping: {target: "a:B", args: {…}}; it'),
        ("train_data=[1]", "train_data: found [1]", f"expected a {A_TARGET}"),
        ("schedule=cosine", "schedule: found 'cosine'", "a mapping: {kind: cosine}; it is the"),
        ("launch=inline", "launch: found 'inline'", "a mapping: {kind: inline}; it is where"),
        ("sampling=none", "sampling: found 'none'", "a mapping: {policy: none}; it is which"),
        ("loader=16", "loader: found 16", "a mapping of batch_size, validation_batch_size, "),
        ("tracking.also=trackio", "also: found 'trackio'", "expected a list; it is further"),
        ("loader.workers=two", "loader.workers: found 'two'", "integer, without quotes, or 'auto'"),
        ("metrics.validation=[5]", "validation[0]: found 5", f"valid string, or a {A_TARGET}"),
        ("metrics.validation=[{target: a:b}]", "validation[0].name: is missing", "it is what"),
        ("metrics.validation=[{nam: a}]", "validation[0].nam: there is no", "mean 'name'?"),
        ("augment={train: [flip]}", "augment.train[0]: found 'flip'", "a mapping: {kind: flip}"),
        (
            "augment={train: [{kind: flip, probability: 2}]}",
            "augment.train[0].probability: found 2",
            "less than or equal to 1; it is",
        ),
    ],
)
def test_the_remedy_is_in_words_of_yaml_and_no_class_of_ours_is_named(
    tmp_path, override, found, expected
):
    with pytest.raises(ConfigError) as caught:
        load_config(Project(tmp_path).config, overrides=[override])
    text = str(caught.value)
    assert found in text
    assert expected in text
    assert not any(word in text for word in ("instance of", "dictionary", "constrained", "tuple"))
