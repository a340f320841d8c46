"""The ledger against a real MLflow store: one run, whole, taken over and written once."""

import threading

from support.stores.tracking_store import Finished, expected_keys_and_steps, keys_and_steps

from epochal.tasks.tracking.background import DataEntry
from epochal.tasks.tracking.connection import connect
from epochal.tasks.tracking.mlflow_run import About


def test_run_holds_identity_params_tags_and_data_sets(database):
    finished = Finished(epochs=1)
    data = [
        DataEntry("train", "digits", "a" * 64, {"target": "data:digits"}),
        DataEntry("validation", "digits", "b" * 64, {"target": "data:digits"}),
    ]
    params = {"optimizer.args.lr": "0.1", "model.args.text": "long " * 200}
    result = finished.run(
        database.uri, params=params, data=data, final={"epochal.weights_sha256": "c" * 64}
    )
    run = connect(database.uri).get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "digits@2"
    assert run.data.params["optimizer.args.lr"] == "0.1"
    assert len(run.data.params["model.args.text"]) == 500
    tags = run.data.tags
    assert tags["epochs"] == "1"
    assert tags["epochal.branched_from"] == "digits@1"
    assert tags["epochal.shared_epochs"] == "3"
    assert tags["epochal.weights_sha256"] == "c" * 64
    held = {
        one.tags[0].value: (one.dataset.name, one.dataset.digest)
        for one in run.inputs.dataset_inputs
    }
    assert held == {"train": ("digits", "a" * 36), "validation": ("digits", "b" * 36)}


def test_second_identical_command_writes_nothing(database):
    finished = Finished(epochs=3)
    final = {"epochal.weights_sha256": "c" * 64}
    data = [DataEntry("train", "digits", "a" * 64, {})]
    first = finished.run(database.uri, best_epoch=1, final=final, data=data)
    before = database.dump()
    second = finished.run(database.uri, best_epoch=1, final=final, data=data)
    assert (second.run_id, second.problem) == (first.run_id, None)
    assert database.dump() == before


def test_longer_run_adds_its_new_epochs_to_the_same_mlflow_run(database):
    finished = Finished(epochs=2, updates=5)
    first = finished.run(database.uri)
    finished.add_epoch(2)
    second = finished.run(database.uri)
    assert second.run_id == first.run_id
    assert keys_and_steps(database, first.run_id) == expected_keys_and_steps(finished, 3)
    assert database.tags(first.run_id)["epochs"] == "3"


def test_another_store_with_the_same_name_and_first_epoch_has_a_run_of_its_own(database):
    finished = Finished(epochs=1)

    def run_of(*lineage):
        return finished.run(database.uri, lineage=lineage).run_id

    first = run_of("aa", "bb")
    assert run_of("aa", "bb", "cc") == first  # it has grown
    assert run_of("aa") == first
    assert database.tags(first)["epochal.lineage"] == "aa bb cc"
    other = run_of("aa", "xx")
    assert other != first
    assert run_of("aa", "xx", "yy") == other
    assert run_of("aa", "bb") == first
    assert run_of() == first  # as a version before this one delivers it


def test_lost_markers_and_lost_times_double_nothing(database):
    finished = Finished(epochs=2)
    first = finished.run(database.uri)
    before = database.points(first.run_id)
    for path in finished.store.listing():
        if "/delivered/" in path or path.endswith("times.json"):
            finished.store.delete(path)
    second = finished.run(database.uri)
    assert (second.run_id, second.problem) == (first.run_id, None)
    assert database.points(first.run_id) == before


def test_run_left_running_by_a_kill_is_taken_over(database):
    finished = Finished(epochs=1)
    abandoned = finished.tracker(database.uri)
    abandoned.start(forks=True)
    ((run_id, status, _),) = database.runs()
    assert status == "RUNNING"
    result = finished.run(database.uri)
    assert result.run_id == run_id
    assert database.runs() == [(run_id, "FINISHED", "active")]


def test_finished_run_that_computes_again_shows_as_running(database):
    finished = Finished(epochs=1)
    run_id = finished.run(database.uri).run_id
    tracker = finished.tracker(database.uri)
    tracker.start(computing=True, forks=True)
    assert database.runs() == [(run_id, "RUNNING", "active")]
    tracker.finish("FAILED", best=None, tags={})
    assert database.runs() == [(run_id, "FAILED", "active")]


class Drawn:
    """Pictures of a run that note how it stood when they came."""

    def __init__(self, database, *, error=None):
        self.database, self.error, self.found = database, error, []

    def identity(self, records):
        return f"of {len(records)} stages"

    def deliver(self, run, records, *, may_write, here):
        ((_, status, _),) = self.database.runs()
        tags = self.database.tags(run.run_id)
        self.found.append((status, tags["epochal.pictures_due"], here))
        if self.error is not None:
            raise self.error
        run.set_tags({"epochal.pictures": self.identity(records)})


def test_a_run_is_told_to_have_finished_before_its_pictures_are_drawn(database):
    finished, pictures = Finished(epochs=1), Drawn(database)
    assert finished.run(database.uri, pictures=pictures).problem is None
    finished.add_epoch(1)
    finished.run(database.uri, pictures=pictures)
    assert pictures.found == [
        ("FINISHED", "of 4 stages", False),
        ("FINISHED", "of 7 stages", False),
    ]


def test_pictures_that_have_not_come_are_told_and_drawn_here_by_the_next_command(database):
    finished, pictures = Finished(epochs=1), Drawn(database, error=OSError("no paper"))
    result = finished.run(database.uri, pictures=pictures)
    assert "no paper" in result.problem
    assert [status for _, status, _ in database.runs()] == ["FINISHED"]
    pictures.error = None
    finished.run(database.uri, pictures=pictures)
    finished.run(database.uri, pictures=pictures)
    assert [here for _, _, here in pictures.found] == [False, True, False]


def test_a_run_that_is_not_finished_is_due_no_pictures(database):
    finished, pictures = Finished(epochs=1), Drawn(database)
    run_id = finished.run(database.uri, status="FAILED", pictures=pictures).run_id
    assert pictures.found == []
    assert "epochal.pictures_due" not in database.tags(run_id)


def test_command_cut_off_before_it_wrote_leaves_a_finished_run_finished(database):
    finished = Finished(epochs=1)
    run_id = finished.run(database.uri).run_id
    before = database.dump()
    finished.run(database.uri, status="KILLED")
    assert database.dump() == before
    assert database.runs() == [(run_id, "FINISHED", "active")]


def test_deleted_run_is_made_anew_and_complete(database):
    finished = Finished(epochs=2)
    first = finished.run(database.uri)
    connect(database.uri).delete_run(first.run_id)
    second = finished.run(database.uri)
    assert second.run_id != first.run_id
    assert keys_and_steps(database, second.run_id) == expected_keys_and_steps(finished, 2)


def test_two_ledgers_at_once_share_one_run(database):
    finished = Finished(epochs=3, updates=50)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(finished.run(database.uri)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.problem for result in results] == [None, None]
    assert results[0].run_id == results[1].run_id
    assert [lifecycle for _, _, lifecycle in database.runs()] == ["active"]
    assert keys_and_steps(database, results[0].run_id) == expected_keys_and_steps(finished, 3)


def test_of_two_runs_created_at_once_the_older_stays(database, monkeypatch):
    from mlflow import MlflowClient

    from epochal.tasks.tracking import connection as tracking

    finished = Finished(epochs=1)
    client = connect(database.uri)
    identity = finished.tracker(database.uri)._identity
    original = MlflowClient.create_run

    def create_run(self, experiment_id, **more):
        original(self, experiment_id, start_time=1, tags=identity.tags)  # the other machine's
        return original(self, experiment_id, **more)

    monkeypatch.setattr(MlflowClient, "create_run", create_run)
    run = tracking.find_or_create_run(
        client, uri=database.uri, experiment="tests", run=identity, tags={}
    )
    assert run.info.start_time == 1
    assert [lifecycle for _, _, lifecycle in database.runs()] == ["active", "deleted"]


def test_changed_parameter_is_named_and_stops_nothing(database):
    finished = Finished(epochs=1)
    finished.run(database.uri)
    result = finished.run(database.uri, params={"optimizer.args.lr": "0.2"})
    assert result.problem is None
    tags = database.tags(result.run_id)
    assert tags["epochal.changed_params"] == "optimizer.args.lr: 0.1 → 0.2"


def test_nothing_is_printed_and_no_mlflow_state_of_the_user_changes(tmp_path, monkeypatch, capfd):
    import mlflow

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    result = Finished(epochs=1).run(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert result.problem is None
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".epochal", "new"]


def test_a_row_that_another_run_has_written_at_the_same_moment_is_no_problem(database, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    original, tries = MlflowClient.log_inputs, []

    def log_inputs(self, run_id, datasets):
        tries.append(run_id)
        if len(tries) == 1:
            raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets")
        original(self, run_id, datasets=datasets)

    monkeypatch.setattr(MlflowClient, "log_inputs", log_inputs)
    notices = []
    data = [DataEntry("train", "digits", "a" * 64, {})]
    result = Finished(epochs=1).run(database.uri, data=data, notices=notices)
    assert (result.problem, notices) == (None, [])
    assert len(tries) == 2
    assert len(connect(database.uri).get_run(result.run_id).inputs.dataset_inputs) == 1


def test_a_row_that_stays_refused_is_told(database, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def log_inputs(self, run_id, datasets):
        raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets")

    monkeypatch.setattr(MlflowClient, "log_inputs", log_inputs)
    data = [DataEntry("train", "digits", "a" * 64, {})]
    assert "IntegrityError" in Finished(epochs=1).run(database.uri, data=data).problem


def test_a_run_that_failed_says_with_what_until_it_has_gone_on(database):
    finished = Finished(epochs=1)
    told = {"epochal.error": 'KeyError\n  File "model.py", line 3, in forward\n'}
    run_id = finished.run(database.uri, status="FAILED", final=told).run_id
    assert database.tags(run_id)["epochal.error"] == told["epochal.error"]
    finished.add_epoch(1)
    finished.run(database.uri)
    assert database.tags(run_id)["epochal.error"] == "none"


ABOUT = About("digits@2 · lr=0.2", {"mlflow.source.git.commit": "c" * 40}, "A branch.", {})


def test_a_run_leads_to_the_flow_run_that_has_last_computed_something(database):
    finished = Finished(epochs=1, updates=2)
    first = finished.run(database.uri, about=lambda: ABOUT, prefect_page="http://p/flow-run/1")
    assert database("SELECT name FROM runs") == [("digits@2 · lr=0.2",)]
    # The next one finds all that is there.
    finished.run(database.uri, about=lambda: ABOUT, prefect_page="http://p/flow-run/2")
    tags = database.tags(first.run_id)
    assert tags["epochal.prefect_run"] == "http://p/flow-run/1"
    assert tags["mlflow.source.git.commit"] == "c" * 40
    link = "[The flow run in Prefect](http://p/flow-run/1)"
    assert tags["mlflow.note.content"] == f"A branch.\n\n{link}"
    tracker = finished.tracker(
        database.uri, about=lambda: ABOUT, prefect_page="http://p/flow-run/3"
    )
    tracker.start(computing=True, forks=True)
    page = f"#/experiments/1/runs/{first.run_id}?workflowType=machine_learning"
    assert tracker.page == page
    tracker.finish("FINISHED", best=None, tags={})
    assert "flow-run/3)" in database.tags(first.run_id)["mlflow.note.content"]
