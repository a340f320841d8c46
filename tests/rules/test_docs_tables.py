"""What the README and docs/ say of tables is so: columns, queries and recipes."""

import re
from pathlib import Path

import duckdb
import numpy as np
import pytest
from support.pages import DOCS, README, blocks, rows
from support.stores.sample_files import read_samples, write_samples

from epochal.data.samples.table import update
from epochal.data.tables.schemas import OBSERVATIONS, SAMPLES, TEXT_IDS, UPDATES
from epochal.data.tables.writing import write_table

NUM_SAMPLES, EPOCHS = 12, 3


@pytest.mark.parametrize(
    "schema", [OBSERVATIONS, SAMPLES, UPDATES, TEXT_IDS], ids=lambda one: one.name
)
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
    table, observed, mined, updates = None, [], [], []
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
        mined.append(str(folder / f"samples-{epoch}.parquet"))
        kept = table.with_plan(keep_N=ids % 3 <= epoch, weight_N=np.ones(NUM_SAMPLES))
        write_samples(kept, Path(mined[-1]))
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
    return {**paths, "observations": observed, "mined": mined}


QUERIES = blocks(DOCS["tables.md"], "sql")


def ask(query, tables):
    return duckdb.execute(query, {name: tables[name] for name in re.findall(r"\$(\w+)", query)})


@pytest.mark.parametrize("query", QUERIES)
def test_the_queries_of_the_docs_run(query, tables):
    assert ask(query, tables).fetchall()


def test_the_queries_of_the_docs_find_what_they_are_for(tables):
    found = [ask(query, tables).fetchall() for query in QUERIES]
    hardest, by_class, kept, suspects, resting, spread, one, clipped = found
    assert len(hardest) == 5
    assert hardest[0][-1] >= hardest[-1][-1]
    assert by_class[0] == (2, 4, 1, 0)
    assert kept == [(0, [1.0, 1.0, 1.0]), (1, [0.0, 1.0, 1.0]), (2, [0.0, 0.0, 1.0])]
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
