"""From YAML and --set to a RunConfig; errors name field, value, and what to write instead."""

from pathlib import Path

import pytest
import yaml
from support.runs.project import Project

from epochal.data.errors import ConfigError
from epochal.tasks.config.load import build_config, load_config
from epochal.tasks.config.run import RunConfig

BASE = {
    "name": "run",
    "epochs": 4,
    "model": {"target": "model:Net"},
    "train_data": {"target": "epochal.data.datasets:digits", "args": {"split": "train"}},
    "validation_data": {"target": "epochal.data.datasets:digits"},
    "optimizer": {"target": "torch.optim:SGD", "args": {"lr": 0.1}},
    "schedule": {"kind": "warmup_stable_decay", "warmup": 1, "decay": 1},
    "loader": {"batch_size": 32},
}


def write(folder: Path, **changes) -> Path:
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}))
    return path


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides=overrides)
    return str(caught.value)


def test_the_folder_is_that_of_the_file(tmp_path):
    assert load_config(write(tmp_path)).folder == str(tmp_path)


def test_the_example_of_the_readme_is_valid():
    path = Path(__file__).parents[3] / "examples/digits/digits.yaml"
    config = load_config(path)
    assert (config.name, config.epochs, config.sampling.policy) == ("digits", 12, "easy_skip")


def test_a_config_survives_json(tmp_path):
    config = load_config(write(tmp_path))
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_set_changes_one_field_and_adds_missing_groups(tmp_path):
    config = load_config(
        write(tmp_path),
        overrides=[
            "epochs=9",
            "optimizer.args.lr=1e-3",
            "gradients.clip_norm=2",
            "loader.workers=2",
        ],
    )
    assert config.epochs == 9
    assert config.optimizer.args["lr"] == 0.001
    assert config.gradients.clip_norm == 2.0
    assert config.loader.workers == 2


def test_set_takes_lists_and_groups(tmp_path):
    config = load_config(
        write(tmp_path),
        overrides=[
            "schedule={kind: multi_step, milestones: [1, 2]}",
            "metrics.validation=[accuracy]",
        ],
    )
    assert config.schedule.kind == "multi_step"


@pytest.mark.parametrize("override", ["epochs", "=3", "a..b=1", "epochs.x=1"])
def test_a_set_that_is_none_is_refused(tmp_path, override):
    assert "--set" in error_of(write(tmp_path), override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epoch=3", ["epoch", "no such key", "'epochs'"]),
        ("loader.batchsize=3", ["loader.batchsize", "'batch_size'"]),
        ("schedule.warmpu=3", ["schedule.warmpu", "'warmup'"]),
        ("gradients.clipnorm=3", ["gradients.clipnorm", "'clip_norm'"]),
        ("train_data.arg={}", ["train_data.arg", "'args'"]),
        ("epochs=0", ["epochs", "found 0", "greater than or equal to 1"]),
        ("epochs=three", ["epochs", "'three'", "integer"]),
        ("epochs=2.5", ["epochs", "2.5"]),
        ("seed=-1", ["seed", "-1"]),
        ("sampling.policy=easyskip", ["sampling.policy", "'easyskip'", "easy_skip"]),
        ("sampling.confidence=1.5", ["sampling.confidence", "1.5"]),
        (
            "schedule={factor: 0.5}",
            ["schedule.kind: is missing", "constant, multi_step", "plateau"],
        ),
        ("schedule.kind=ReduceLROnPlateau", ["scheduler of torch", "{kind: plateau, factor:"]),
        ("schedule=StepLR", ["schedule: found 'StepLR'", "{kind: step, size: STEP_SIZE"]),
        ("optimizer=[{target: a:b}, {target: a:b}]", ["there are 2 optimizers: a run has one"]),
        (
            "optimizer={g: {target: a:b}, d: {target: a:b}}",
            ["optimizer: there are 2 optimizers", "optimizer.groups", "docs/config.md"],
        ),
        ("schedule.kind=cosin", ["schedule.kind", "'cosin'", "cosine"]),
        ("model.target=nomodule", ["model.target", "'nomodule'", "module"]),
        ("optimizer.args={}", ["optimizer", "lr"]),
        ("optimizer.args.lr=-1", ["optimizer", "lr", "-1"]),
        ("name=a/b", ["name", "'a/b'"]),
        ("schedule.warmup=9", ["schedule"]),
        ("device=tpu", ["device", "'tpu'"]),
    ],
)
def test_an_error_names_field_value_and_remedy(tmp_path, override, words):
    text = error_of(write(tmp_path), override)
    for word in ["c.yaml", *words]:
        assert word in text


def test_all_problems_are_told_at_once(tmp_path):
    text = error_of(write(tmp_path), "epochs=0", "loader.batch_size=-1", "naem=x")
    assert all(word in text for word in ["epochs", "loader.batch_size", "naem"])


def test_a_missing_field_is_named_with_its_help(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in BASE.items() if k not in {"model", "loader"}}))
    text = error_of(path)
    assert "model: is missing; it returns a torch.nn.Module" in text
    assert "loader: is missing; it is batches" in text


def test_a_relative_folder_is_refused(tmp_path):
    assert "folder" in error_of(write(tmp_path), "folder=here")


def test_every_field_has_help():
    def models(model, seen):
        if model in seen:
            return
        seen.add(model)
        for name, field in model.model_fields.items():
            if name != "kind":
                assert field.description, f"{model.__name__}.{name}"
            from epochal.tasks.config.problems import _models

            for inner in _models(field.annotation):
                models(inner, seen)

    seen = set()
    models(RunConfig, seen)
    assert len(seen) >= 10


@pytest.mark.parametrize("written", ["batches", "sampler"])
@pytest.mark.parametrize("set_", ["batches", "sampler"])
def test_batches_may_be_called_by_their_former_name(tmp_path, written, set_):
    path = write(tmp_path, **{written: {"class_balanced": True}})
    config = load_config(path, overrides=[f"{set_}.repeats=3"])
    assert (config.batches.repeats, config.batches.class_balanced) == (3, True)
    dumped = config.model_dump(mode="json")
    assert "sampler" not in dumped
    assert load_config(write(tmp_path), overrides=[f"{set_}={{repeats: 2}}"]).batches.repeats == 2


def test_both_names_of_one_field_are_refused(tmp_path):
    path = write(tmp_path, sampler={"repeats": 2}, batches={"repeats": 2})
    assert "sampler: it is the former name of batches, which is there too" in error_of(path)
    assert "former name of batches" in error_of(path, "sampler.repeats=3")


def test_a_mistake_in_batches_is_told_by_the_name_of_now(tmp_path):
    assert "batches.repeats: found 0" in error_of(write(tmp_path, sampler={"repeats": 0}))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("epochs=true", "epochs: found True; input should be a valid integer"),
        ("epochs='2'", "epochs: found '2'; input should be a valid integer, without quotes"),
        ("epochs=2.0", "epochs: found 2.0; input should be a valid integer"),
        (
            "loader.drop_last=yes",
            "drop_last: found 'yes'; input should be a valid boolean, true or",
        ),
        (
            "loader.drop_last=1",
            "drop_last: found 1; input should be a valid boolean, true or false",
        ),
        (
            "gradients.clip_norm='1'",
            "clip_norm: found '1'; input should be a valid number, without",
        ),
        ("checkpoint.every_seconds=true", "checkpoint.every_seconds: found True"),
        ("gradients.clip_norm=.inf", "gradients.clip_norm: found inf"),
        ("optimizer.args.lr=.nan", "args.lr: found nan; expected the base learning rate"),
        ("optimizer.args.lr='0.1'", "args.lr: found '0.1'; expected the base learning rate"),
        ("seed=1" + "0" * 400, "larger than any floating-point number"),
        ("device=cuda:99999999999999999999", "device: found 'cuda:99999999999999999999'"),
        ('folder="/a\\0b"', "a text holds the character \\0"),
        ("loader.unknown=x", "loader.unknown: there is no such key; known here: batch_size"),
        ("loader.bach_size=1", "did you mean 'batch_size'?"),
        ("model.target=" + "a" * 5000 + ":b", "a target of 5002 characters"),
        ("name=" + "x" * 5000, "name: found"),
        (
            "loader.batch_size=" + "9" * 30,
            "batch_size: found 999999999999999999999999999999; input",
        ),
        ("metrics.best=" + "x" * 5000, "metrics.best: 'xxx"),
        ("model.args=" + "[" * 40 + "]" * 40, "nested deeper than 32"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_one_short_line(tmp_path, override, said):
    project = Project(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_config(project.config, overrides=[override])
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1400
    assert "\n" not in str(caught.value)


def test_a_rate_that_no_float_holds_is_refused_wherever_it_comes_from(tmp_path):
    plain = load_config(Project(tmp_path).config).model_dump(mode="json")
    plain["optimizer"]["args"]["lr"] = 10**400
    with pytest.raises(ConfigError, match="args.lr: found 1000.*; expected the base learning"):
        build_config(plain, name="x")
