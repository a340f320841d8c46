"""What the README and docs/ say is so: fields, defaults, commands and examples."""

import ast
import re
import shlex
import shutil
from contextlib import suppress
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from support.pages import DOCS, PLACES, README, ROOT, anchors, blocks, calls, links, rows
from support.pages import commands as shell_commands

from epochal.data.config.augment import AugmentConfig, Operation
from epochal.data.config.batches import BatchesConfig
from epochal.data.config.dataset import BatchNames
from epochal.data.config.loader import DataConfig, LoaderConfig, SamplingConfig
from epochal.data.config.sampling import ScoringConfig
from epochal.data.errors import BadStore
from epochal.data.policies import POLICIES
from epochal.data.store.addresses import normalise_store
from epochal.data.types import Target
from epochal.engine.config.batch_norm import BatchNormConfig
from epochal.engine.config.mid_epoch import ValidationConfig
from epochal.engine.config.mixing import MixingConfig
from epochal.engine.config.numerics import (
    EmaConfig,
    GradientsConfig,
    MetricsConfig,
    MetricTarget,
    PrecisionConfig,
)
from epochal.engine.config.optimizer import FrozenParameters, OptimizerConfig, ParameterGroup
from epochal.engine.schedule.schedule import ScheduleConfig
from epochal.tasks.config.load import build_config, built, load_config
from epochal.tasks.config.parts import (
    AveragingConfig,
    CheckpointConfig,
    EarlyStoppingConfig,
    LaunchConfig,
    TrackingConfig,
    WarmStartConfig,
)
from epochal.tasks.config.run import RunConfig
from epochal.tasks.sweeps.config import SweepConfig
from epochal.tasks.user_code.targets import call_target

PARTS: dict[str, tuple[type[BaseModel], ...]] = {
    "": (RunConfig, Target, DataConfig, MetricTarget),
    "loader.": (LoaderConfig,),
    "batch.": (BatchNames,),
    "batches.": (BatchesConfig,),
    "optimizer.": (OptimizerConfig,),
    "optimizer.groups.": (ParameterGroup,),
    "optimizer.frozen.": (FrozenParameters,),
    "schedule.": get_args(get_args(ScheduleConfig)[0]),
    "batch_norm.": (BatchNormConfig,),
    "gradients.": (GradientsConfig,),
    "precision.": (PrecisionConfig,),
    "ema.": (EmaConfig,),
    "augment.": (AugmentConfig,),
    **{
        f"augment.{get_args(one.model_fields['kind'].annotation)[0]}.": (one,)
        for one in get_args(Operation)
    },
    "mixing.": (MixingConfig,),
    "validation.": (ValidationConfig,),
    "early_stopping.": (EarlyStoppingConfig,),
    "averaging.": (AveragingConfig,),
    "start.": (WarmStartConfig,),
    "sampling.": (SamplingConfig,),
    "sampling.scoring.": (ScoringConfig,),
    "metrics.": (MetricsConfig,),
    "checkpoint.": (CheckpointConfig,),
    "launch.": (LaunchConfig,),
    "tracking.": (TrackingConfig,),
}
FIELDS = {
    f"{prefix}{field.alias or name}": (model, field)
    for prefix, models in PARTS.items()
    for model in models
    for name, field in model.model_fields.items()
    if not (name == "kind" and prefix.startswith("augment."))  # the tables' own names
}
OWN_WORDS = (
    "schedule.warmup", "schedule.rise", "schedule.final", "folder", "schedule.kind", "schedule",
    "name",
)  # fmt: skip
"""Fields whose default the table tells in other words, or that mean two things."""


def sources():
    packages = ("data", "engine", "tasks", "flows")
    return [path.read_text() for one in packages for path in (ROOT / one).rglob("*.py")]


FIRST = {"none", "easy_skip", "importance", "random", "custom"}
"""The policies of the first pages; the others stand in sampling.md."""


def documented_fields():
    found = {}
    for page in ("config.md", "sampling.md", "augmentation.md"):
        for cells in rows(DOCS[page], "field"):
            name = cells[0].removesuffix("†").strip().strip("`")
            found.setdefault(name, cells)
    return found


def as_written(field):
    if field.is_required():
        return "needed"
    value = {} if field.default is PydanticUndefined else field.default
    if isinstance(value, BaseModel):  # the fields of another part have defaults of their own
        return value.target if isinstance(value, Target) else ""
    if isinstance(value, tuple):
        return f"[{', '.join(one if isinstance(one, str) else f'{one:g}' for one in value)}]"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def with_parts(example, folder):
    """A whole config around an example that has only some fields."""
    base = {
        "name": "docs",
        "epochs": 100,
        "model": {"target": "torch.nn:Identity"},
        "train_data": {"target": "points:points"},
        "validation_data": {"target": "points:points"},
        "optimizer": {"target": "torch.optim:SGD", "args": {"lr": 0.1}},
        "loader": {"batch_size": 4},
    }
    return build_config({**base, **example, "folder": str(folder)}, name="docs")


def test_every_field_of_the_config_is_documented():
    assert set(FIELDS) <= set(documented_fields())


def test_no_field_is_documented_that_is_not_there():
    assert set(documented_fields()) <= set(FIELDS)


@pytest.mark.parametrize("name", sorted(set(FIELDS) - set(OWN_WORDS)))
def test_the_documented_default_is_the_default(name):
    _, field = FIELDS[name]
    assert documented_fields()[name][2] == as_written(field)


@pytest.mark.parametrize(
    "name", [name for name, (_, field) in FIELDS.items() if "Literal" in str(field.annotation)]
)
def test_every_choice_is_documented(name):
    _, field = FIELDS[name]
    choices = set(re.findall(r"'(\w+)'", str(field.annotation)))
    for choice in choices & FIRST if name == "sampling.policy" else choices:
        assert f"`{choice}`" in documented_fields()[name][1]


def told_policies(page):
    return {cells[0].strip("`"): cells for cells in rows(page, "policy")}


def test_the_first_pages_name_the_policies_that_evidence_favours_and_sampling_md_the_others():
    published = set(POLICIES) - FIRST
    assert set(told_policies(DOCS["config.md"])) == FIRST - {"none"}
    assert published <= set(told_policies(DOCS["sampling.md"]))
    for name in published:
        assert f"`{name}`" not in README
        assert f"`{name}`" not in DOCS["config.md"]


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "none"])
def test_the_settings_and_defaults_of_a_policy_are_as_it_declares_them(name):
    policy = POLICIES[name]
    _, _, settings, defaults = told_policies(DOCS["config.md" if name in FIRST else "sampling.md"])[
        name
    ]
    assert set(re.findall(r"`(\w+)`", settings)) == set(policy.takes)
    start, end = policy.budget
    own = {
        "confidence": policy.confidence, "budget": start, "budget_end": end,
        "max_weight": policy.max_weight,
    }  # fmt: skip
    expected = [f"`{field}` {value:g}" for field, value in own.items() if field in policy.takes]
    revisit = "1 / `min_probability`" if callable(policy.revisit) else policy.revisit
    expected.append(f"`revisit` {revisit}")
    expected += [] if policy.batch == "fixed" else [f"`batch` {policy.batch}"]
    expected += [] if policy.ends_full else ["`final_full` 0"]
    assert defaults.split(", ") == expected


def test_the_yaml_examples_of_the_docs_are_configs(tmp_path):
    examples = [
        example
        for text in DOCS.values()
        for block in blocks(text, "yaml")
        for example in yaml.safe_load_all(block)
    ]
    assert len(examples) > 3
    (tmp_path / "steps.py").write_text("\n".join(blocks(DOCS["step.md"], "python")))
    for example in examples:
        if {"vary", "runs"} & example.keys():
            built(SweepConfig, example, name="docs/sweeps.md")
            continue
        config = with_parts(example, tmp_path)
        for metric in config.metrics.validation:
            if not isinstance(metric, str):
                made = call_target(metric, field="metrics", folder=tmp_path)
                assert hasattr(made, "compute")


def test_the_readmes_first_project_passes_the_checks_before_the_start(tmp_path):
    from epochal.tasks.running.open import open_run

    for language, suffix in (("python", "py"), ("yaml", "yaml")):
        for block in blocks(README, language):
            name = block.splitlines()[0].removeprefix("# ")
            assert name.endswith(f".{suffix}")
            (tmp_path / name).write_text(block)
    session = open_run(load_config(tmp_path / "points.yaml")).session
    assert len(session.run.stages) == 11
    assert session.data["train_data"].info.num_samples == 2000


PLANS = [block for block in blocks(README, "text") if block.startswith("$ epochal plan examples/")]
"""Those of data that no machine draws another way: torch's normal numbers are a processor's own."""


@pytest.mark.parametrize("block", PLANS, ids=lambda block: block.splitlines()[0])
def test_the_keys_that_the_readme_shows_are_those_of_its_runs(block, tmp_path):
    from epochal.tasks.running.open import open_run

    command, *lines = block.splitlines()
    _, _, _, path, _, override = shlex.split(command)
    shutil.copytree(ROOT / "examples" / "digits", tmp_path / "examples" / "digits")
    shutil.rmtree(tmp_path / "examples" / "digits" / "store", ignore_errors=True)
    session = open_run(load_config(tmp_path / path, overrides=[override])).session
    keys = {(stage.kind, stage.epoch): stage.key[:8] for stage in session.run.stages}
    line = re.compile(r"(\w+)(?: · epoch (\d+))? +(?:done|would run) +([0-9a-f]{8})")
    shown = [match.groups() for match in map(line.match, lines) if match is not None]
    assert len(shown) >= 3
    for kind, epoch, key in shown:
        assert keys[kind, None if epoch is None else int(epoch)] == key, (kind, epoch)


@pytest.fixture(scope="module")
def commands():
    import typer

    from epochal.flows.cli import app

    return typer.main.get_command(app).commands


def test_every_command_is_in_the_readmes_table_and_no_other(commands):
    named = {cells[0].strip("`").split()[1] for cells in rows(README, "command")}
    assert named == set(commands)


def test_every_option_that_the_docs_name_is_one(commands):
    nested = [one for group in commands.values() for one in getattr(group, "commands", {}).values()]
    every = [*commands.values(), *nested]
    known = {name for one in every for param in one.params for name in param.opts}
    known |= {"--help", "--version"}  # of `epochal` itself
    known |= {"--install-completion", "--show-completion"}  # likewise
    known |= {"--pool", "--type", "--entrypoint"}  # of `prefect`
    known |= {"--signal", "--requeue", "--open-mode", "--time"}  # of `sbatch`
    known |= {"--nodes", "--ntasks-per-node"}  # likewise
    known |= {"--shm-size"}  # of `docker run`
    known |= {"--help", "--install-completion", "--show-completion"}  # of every command line
    known |= {"--logdir"}  # of `tensorboard`
    known |= {"--port", "--bucket"}  # of `python -m epochal.data.testing.s3`
    for text in (README, *DOCS.values()):
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known


def test_what_the_readme_says_is_missing_is_missing(commands):
    missing = README.partition("## What it does not do yet")[2]
    assert missing
    for name in ("gc", "verify", "report"):
        assert (f"`{name}`" in missing) != (name in commands)


def test_no_field_of_the_config_does_nothing():
    read = {
        node.attr
        for text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    fields = {name for models in PARTS.values() for one in models for name in one.model_fields}
    assert fields <= read


def test_the_readmes_exit_codes_are_those_of_the_errors():
    from epochal.data.errors import EpochalError, InputError, TrainingFailed, Unavailable

    codes = {int(cells[0]) for cells in rows(README, "code")}
    errors = (EpochalError, InputError, TrainingFailed, Unavailable)
    assert codes == {0, *(one.exit_code for one in errors)}


@pytest.mark.parametrize("page", PLACES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_of_a_page_lead_somewhere(page):
    for path, anchor in links(PLACES[page]):
        there = (page.parent / path).resolve() if path else page
        assert there.is_file(), path
        assert not anchor or anchor in anchors(PLACES[there]), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PLACES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_are_commands_with_options_that_they_have(page, commands):
    """As they stand there: a command, its options and as many arguments as it takes."""
    for language in ("sh", "bash", "console", "text"):
        for line, _ in shell_commands(PLACES[page], language):
            for name, *arguments in calls(line):
                if name.startswith("-"):
                    assert name in {"--help", "--version"}, line
                    continue
                assert name in commands, line
                parse(commands[name], arguments)


def parse(command, arguments):
    """Raises a usage error where the command does not take these arguments."""
    import typer

    if hasattr(command, "commands"):
        parse(command.commands[arguments[0]], arguments[1:])
        return
    with suppress(typer.Exit):  # of --help
        command.make_context(command.name, list(arguments))


def test_a_wrong_command_of_a_page_would_be_found(commands):
    for line in ("plan", "plan a.yaml b.yaml", "plan a.yaml --no", "data check"):
        name, *arguments = line.split()
        with pytest.raises(Exception, match=r"(?i)missing|extra argument|no such option"):
            parse(commands[name], arguments)
    assert calls("cd x && epochal plan 'a b' | head; epochal up # epochal no") == [
        ["plan", "a b"], ["up"],
    ]  # fmt: skip


def test_the_stores_that_the_docs_accept_and_refuse_are_so():
    for written, is_ in rows(DOCS["config.md"], "written"):
        for address in re.findall(r"`([^`]+)`", written):
            if is_.startswith("refused"):
                with pytest.raises(BadStore):
                    normalise_store(address, folder=ROOT)
            elif not address.startswith("gs://"):  # its package need not be installed
                normalise_store(address, folder=ROOT)


def test_every_environment_variable_of_the_project_is_documented():
    for name in {name for text in sources() for name in re.findall(r"\bEPOCHAL_[A-Z_]+\b", text)}:
        assert f"`{name}`" in DOCS["deployment.md"] or name in UNDOCUMENTED


UNDOCUMENTED = {"EPOCHAL_SERVER"}
"""The mark of a server that was started in the background; nobody sets it."""
