"""SQL over a store: views of all its runs, nothing else, and what is wrong told well."""

import json
import shutil
import uuid

import pyarrow.parquet as pq
import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment
from support.stores.s3_server import BUCKET

from epochal.data.errors import CorruptObject, InputError
from epochal.data.store.open import open_store
from epochal.data.tables.writing import UPDATES, read_table
from epochal.tasks.query.ask import OpenViews, plain
from epochal.tasks.query.views import VIEWS


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two generations of one run, whose first epoch is shared, and another one of one epoch."""
    folder = tmp_path_factory.mktemp("query")
    with environment(HOME=str(folder)):
        project = Project(folder / "project", epochs=2)
        schedule = "{kind: multi_step, milestones: [1], factor: 0.5}"
        for sets in ({}, {"schedule": schedule}, {"name": "other", "seed": 9, "epochs": 1}):
            BareRun(project.config, **sets)().run.close()
    return project.store


@pytest.fixture(scope="module")
def views(store):
    return opened(store)


def opened(store):
    return OpenViews.of_store(open_store(str(store)), notice=pytest.fail)


def ask(views, sql):
    return list(views.ask(sql).objects())


def test_every_view_has_a_run_and_a_generation_beside_its_rows(views):
    for name in VIEWS:
        found = ask(views, f"select distinct run, generation from {name} order by all")
        assert found == [
            {"run": "blobs", "generation": 1},
            {"run": "blobs", "generation": 2},
            {"run": "other", "generation": 1},
        ], name


def test_runs_and_epochs_tell_what_the_records_have(views):
    [first] = ask(views, "from runs where run = 'blobs' and generation = 1")
    assert (first["epochs"], first["epochs_done"], first["updates"]) == (2, 2, 12)
    assert json.loads(first["config"])["optimizer"]["args"] == {"lr": 0.01}
    rows = ask(
        views, "select epoch, train_loss, validation_loss, key from epochs where generation = 1"
    )
    assert [row["epoch"] for row in rows if row["train_loss"] and row["validation_loss"]] == [
        0,
        1,
        0,
    ]
    [[shared]] = views.ask(
        "select count(*) from epochs a join epochs b using (run, epoch, key) "
        "where a.generation = 1 and b.generation = 2"
    ).rows
    assert shared == 1, "the epoch that two generations share has one key"


def test_tables_are_those_of_each_run_the_shared_ones_of_both(store, views):
    [[steps]] = views.ask(
        "select max(step) from updates where run = 'blobs' and generation = 2"
    ).rows
    assert steps == 12
    counts = ask(
        views, "select run, generation, epoch, count(*) as n from observations group by all"
    )
    assert {(row["run"], row["generation"], row["epoch"]): row["n"] for row in counts}[
        "blobs", 1, 0
    ] == 180
    per_epoch = ask(views, "select epoch, avg(loss) l from observations group by all order by 1")
    assert all(row["l"] > 0 for row in per_epoch)
    files = [path for path in store.glob("stages/*/*.parquet") if schema_of(path) == "updates"]
    rows = sum(len(read_table(path, schema=UPDATES).columns["step"]) for path in files)
    [[distinct]] = views.ask(
        "select count(*) from (select distinct step, u.key, value, k.key from updates u "
        "join epochs k using (run, generation, epoch))"
    ).rows
    assert distinct == rows


def schema_of(path):
    return pq.read_metadata(path).metadata[b"epochal.schema"].decode()


def is_observations(path):
    return schema_of(path) == "observations"


def test_a_question_on_runs_or_one_epoch_opens_no_other_file(store, tmp_path):
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    views = opened(copy)
    [[key]] = views.ask("select key from epochs where run = 'other'").rows
    for path in copy.glob("stages/*/*.parquet"):
        if key not in str(path):
            path.unlink()
    assert len(ask(views, "from runs")) == 3
    assert ask(views, "select count(*) n from observations where run = 'other'") == [{"n": 180}]
    with pytest.raises(CorruptObject, match="`epochal verify` names what is damaged"):
        ask(views, "select count(loss) n from observations")


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from glob('/*')",
        "copy (select 1) to 'x.csv'",
        "attach 'x.db'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "create table t as select 1",
        "drop view runs",
        "select 1; select 2",
        "pragma database_list",
        "",
    ],
)
def test_nothing_but_the_store_is_read_and_nothing_is_written(sql, views, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="query: "):
        ask(views, sql)
    assert not list(tmp_path.iterdir())


def test_a_variable_of_ours_is_no_table(views):
    secrets = {"a": 1}  # noqa: F841 - a query may not see it
    with pytest.raises(InputError, match="secrets does not exist"):
        ask(views, "from secrets")


def test_wrong_sql_is_told_with_what_there_is(views):
    with pytest.raises(InputError, match=r'query: .*"nope" not found(.|\n)*Candidate'):
        ask(views, "select nope from updates")
    with pytest.raises(InputError, match='syntax error at or near "selec"'):
        ask(views, "selec 1")


def test_values_are_plain_json_and_columns_have_each_name_once(views):
    [row] = ask(
        views,
        "select 1 a, 2 a, 'nan'::float f, [1.5, 'inf'::float] l, {'k': 2} s, 1.50::decimal(4,2) d, "
        "'ab'::blob b, date '2026-01-02' t, null n, true w, 3::hugeint h",
    )
    assert row == {
        "a": 1, "a_2": 2, "f": None, "l": [1.5, None], "s": {"k": 2}, "d": 1.5, "b": "6162",
        "t": "2026-01-02", "n": None, "w": True, "h": 3,
    }  # fmt: skip
    assert plain(float("-inf")) is None


def test_rows_are_computed_as_they_are_taken(views):
    rows = views.ask("select range from range(1000000000)").rows
    assert [next(rows) for _ in range(2)] == [[0], [1]]


def test_a_damaged_page_is_found(store, tmp_path):
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    views = opened(copy)
    for path in filter(is_observations, copy.glob("stages/*/*.parquet")):
        data = bytearray(path.read_bytes())
        data[pq.read_metadata(path).row_group(0).column(3).data_page_offset + 60] ^= 255
        path.write_bytes(data)
    with pytest.raises(CorruptObject, match=r"cannot be read"):
        ask(views, "select sum(loss), sum(confidence), sum(p_true), sum(el2n) from observations")


def test_a_store_without_runs_has_empty_views(tmp_path):
    (tmp_path / "store").mkdir()
    views = opened(tmp_path / "store")
    assert ask(views, "from runs") == ask(views, "from updates") == []


@pytest.mark.parametrize("kind", ["memory", pytest.param("s3", marks=pytest.mark.slow)])
def test_a_store_anywhere_is_asked_alike(kind, tmp_path, request):
    url = f"memory://{uuid.uuid4().hex}/store"
    if kind == "s3":
        request.getfixturevalue("s3_endpoint")
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}/store"
    with environment(HOME=str(tmp_path)):
        project = Project(tmp_path / "project", epochs=1, store=url)
        BareRun(project.config)().run.close()
    views = OpenViews.of_store(open_store(url), notice=pytest.fail)
    [[count, loss]] = views.ask("select count(*), avg(loss) from observations where epoch = 0").rows
    [[told]] = views.ask("select train_loss from epochs").rows
    assert count == 180
    assert loss == pytest.approx(told, rel=1e-5)
