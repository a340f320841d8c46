"""What the README and docs/ say is so: fields, defaults, commands, examples and queries."""

import re
from pathlib import Path
from typing import get_args

import duckdb
import numpy as np
import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from epochal.data.addresses import normalise_store
from epochal.data.config import DataConfig, LoaderConfig, SamplingConfig
from epochal.data.errors import StoreRefused
from epochal.data.samples import read_samples, update, write_samples
from epochal.data.schemas import OBSERVATIONS, SAMPLES, UPDATES
from epochal.data.tables import write_table
from epochal.data.types import Target
from epochal.engine.batch_norm_config import BatchNormConfig
from epochal.engine.config import EmaConfig, GradientsConfig, MetricsConfig, MetricTarget
from epochal.engine.optimizer_config import FrozenParameters, OptimizerConfig, ParameterGroup
from epochal.engine.schedule import ScheduleConfig
from epochal.tasks.config import CheckpointConfig, RunConfig
from epochal.tasks.load_config import build_config, load_config
from epochal.tasks.targets import call_target
from epochal.tasks.tracking_config import TrackingConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PARTS: dict[str, tuple[type[BaseModel], ...]] = {
    "": (RunConfig, Target, DataConfig, MetricTarget),
    "loader.": (LoaderConfig,),
    "optimizer.": (OptimizerConfig,),
    "optimizer.groups.": (ParameterGroup,),
    "optimizer.frozen.": (FrozenParameters,),
    "schedule.": get_args(get_args(ScheduleConfig)[0]),
    "batch_norm.": (BatchNormConfig,),
    "gradients.": (GradientsConfig,),
    "ema.": (EmaConfig,),
    "sampling.": (SamplingConfig,),
    "metrics.": (MetricsConfig,),
    "checkpoint.": (CheckpointConfig,),
    "tracking.": (TrackingConfig,),
}
FIELDS = {
    f"{prefix}{name}": (model, field)
    for prefix, models in PARTS.items()
    for model in models
    for name, field in model.model_fields.items()
}
OWN_WORDS = (
    "schedule.warmup", "schedule.rise", "schedule.final", "folder", "schedule.kind", "schedule",
    "name",
)  # fmt: skip
"""Fields whose default the table tells in other words, or that mean two things."""

NUM_SAMPLES, EPOCHS = 12, 3


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def sources():
    packages = ("data", "engine", "tasks", "flows")
    return [path.read_text() for one in packages for path in (ROOT / one).rglob("*.py")]


def rows(text, heading):
    """The rows of the tables whose first heading is `heading`: lists of cells."""
    found, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            inside = False
        elif cells[0] == heading:
            inside = True
        elif inside and not cells[0].startswith("---"):
            found.append(cells)
    return found


def documented_fields():
    found = {}
    for cells in rows(DOCS["config.md"], "field"):
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
        return f"[{', '.join(value)}]"
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
    for choice in re.findall(r"'(\w+)'", str(field.annotation)):
        assert f"`{choice}`" in documented_fields()[name][1]


def test_the_yaml_examples_of_the_docs_are_configs(tmp_path):
    examples = [
        example
        for text in DOCS.values()
        for block in blocks(text, "yaml")
        for example in yaml.safe_load_all(block)
    ]
    assert len(examples) > 3
    for example in examples:
        config = with_parts(example, tmp_path)
        for metric in config.metrics.validation:
            if not isinstance(metric, str):
                made = call_target(metric, field="metrics", folder=tmp_path)
                assert hasattr(made, "compute")


def test_the_readmes_first_project_passes_the_checks_before_the_start(tmp_path):
    from epochal.tasks.session import open_session

    for language, suffix in (("python", "py"), ("yaml", "yaml")):
        for block in blocks(README, language):
            name = block.splitlines()[0].removeprefix("# ")
            assert name.endswith(f".{suffix}")
            (tmp_path / name).write_text(block)
    session = open_session(load_config(tmp_path / "points.yaml"))
    assert len(session.stages) == 11
    assert session.data["train_data"].known.num_samples == 2000


@pytest.fixture(scope="module")
def commands():
    import typer

    from epochal.flows.cli import app

    return typer.main.get_command(app).commands


def test_every_command_is_in_the_readmes_table_and_no_other(commands):
    named = {cells[0].strip("`").split()[1] for cells in rows(README, "command")}
    assert named == set(commands)


def test_every_option_that_the_docs_name_is_one(commands):
    known = {name for one in commands.values() for param in one.params for name in param.opts}
    known |= {"--pool", "--type"}  # of `prefect worker start`
    for text in (README, *DOCS.values()):
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known


def test_what_the_readme_says_is_missing_is_missing(commands):
    missing = README.partition("## What it does not do yet")[2]
    assert missing
    for name in ("gc", "verify", "report"):
        assert (f"`{name}`" in missing) != (name in commands)


@pytest.mark.parametrize("name", CheckpointConfig.model_fields)
def test_a_field_that_nothing_reads_is_said_to_do_nothing(name):
    missing = README.partition("## What it does not do yet")[2]
    is_read = any(f".{name}" in text for text in sources())
    assert (f"`checkpoint.{name}`" in missing) != is_read


def test_the_readmes_exit_codes_are_those_of_the_errors():
    from epochal.data.errors import EpochalError, InputError, TrainingFailed, Unavailable

    codes = {int(cells[0]) for cells in rows(README, "code")}
    errors = (EpochalError, InputError, TrainingFailed, Unavailable)
    assert codes == {0, *(one.exit_code for one in errors)}


def test_links_between_the_pages_lead_somewhere():
    for folder, text in ((ROOT, README), *((ROOT / "docs", text) for text in DOCS.values())):
        for link in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
            assert (folder / link).is_file(), link


def test_the_stores_that_the_docs_accept_and_refuse_are_so():
    for written, is_ in rows(DOCS["config.md"], "written"):
        for address in re.findall(r"`([^`]+)`", written):
            if is_.startswith("refused"):
                with pytest.raises(StoreRefused):
                    normalise_store(address, folder=ROOT)
            elif not address.startswith("gs://"):  # its package need not be installed
                normalise_store(address, folder=ROOT)


def test_every_environment_variable_of_the_project_is_documented():
    for name in {name for text in sources() for name in re.findall(r"\bEPOCHAL_[A-Z_]+\b", text)}:
        assert f"`{name}`" in DOCS["deployment.md"] or name in UNDOCUMENTED


UNDOCUMENTED = {"EPOCHAL_SERVER"}
"""The mark of a server that was started in the background; nobody sets it."""


@pytest.mark.parametrize("schema", [OBSERVATIONS, SAMPLES, UPDATES], ids=lambda one: one.name)
def test_every_column_is_documented_in_order_with_its_type(schema):
    section = DOCS["tables.md"].partition(f"\n## {schema.name}\n")[2].partition("\n## ")[0]
    found = [(cells[0].strip("`"), cells[1]) for cells in rows(section, "column")]
    assert found == [(one.name, one.dtype) for one in schema.columns]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The tables of a run of three epochs, as stages write them: parameters of the queries."""
    folder = tmp_path_factory.mktemp("tables")
    random = np.random.default_rng(0)
    ids = np.arange(NUM_SAMPLES)
    table, observed, updates = None, [], []
    for epoch in range(EPOCHS):
        p_true = random.uniform(0.1, 0.9, NUM_SAMPLES)
        columns = {
            "sample_id": ids,
            "label": ids % 3,
            "loss": -np.log(p_true),
            "confidence": np.maximum(p_true, 1 - p_true),
            "p_true": p_true,
            "margin": np.where(ids == 5, -4.0, p_true),
            "el2n": 1 - p_true,
            "correct": p_true > 0.5,
        }
        table = update(table, columns, epoch=epoch, sample_ids_N=ids, labels_N=None, confidence=0.8)
        observed.append(str(folder / f"observations-{epoch}.parquet"))
        write_table(columns, Path(observed[-1]), schema=OBSERVATIONS, metadata={})
        updates += [
            (epoch + 1, "gradients/norm", 2.0 + epoch),
            (epoch + 1, "gradients/norm_clipped", 3.0),
        ]
    table = table.with_plan(keep_N=ids != 7, weight_N=np.ones(NUM_SAMPLES))
    paths = {name: str(folder / f"{name}.parquet") for name in ("samples", "updates")}
    write_samples(table, Path(paths["samples"]), metadata={"epoch": str(EPOCHS - 1)})
    columns = dict(zip(("step", "key", "value"), zip(*updates, strict=True), strict=True))
    write_table(columns, Path(paths["updates"]), schema=UPDATES, metadata={})
    return {**paths, "observations": observed}


QUERIES = blocks(DOCS["tables.md"], "sql")


def ask(query, tables):
    return duckdb.execute(query, {name: tables[name] for name in re.findall(r"\$(\w+)", query)})


@pytest.mark.parametrize("query", QUERIES)
def test_the_queries_of_the_docs_run(query, tables):
    assert ask(query, tables).fetchall()


def test_the_queries_of_the_docs_find_what_they_are_for(tables):
    suspects, resting, spread, one, clipped = (ask(query, tables).fetchall() for query in QUERIES)
    assert suspects[0] == (5, 2, -4.0, EPOCHS)
    assert resting == [(0, 4, 0), (1, 4, 1), (2, 4, 0)]
    assert len(spread) == NUM_SAMPLES
    assert [row[0] for row in one] == tables["observations"]
    assert clipped == [(3, 4.0, 3.0)]


def test_the_query_of_the_readme_runs(tables):
    (query,) = blocks(README, "sql")
    query = re.sub(r"'…[^']*'", "$samples", query)
    assert len(ask(query, tables).fetchall()) == 3


def test_the_pyarrow_recipe_runs(tables):
    recipe = next(one for one in blocks(DOCS["tables.md"], "python") if "pyarrow" in one)
    found = {"samples": tables["samples"]}
    exec(recipe, found)
    assert len(found["hardest"]) == 10
    assert found["hardest"][0]["loss"] == max(row["loss"] for row in found["hardest"])
    assert found["kept"] == pytest.approx(11 / 12)
    assert found["about"] == b"2"
    assert len(read_samples(Path(tables["samples"]))) == NUM_SAMPLES
