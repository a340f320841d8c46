"""What a person sees of runs in MLflow's pages, by a real browser."""

import pytest
from support.browser import open_browser
from support.runs.machine import wait_for
from support.stores.mlflow_server import MlflowServer
from support.stores.tracking_store import Finished

from epochal.tasks.tracking.connection import connect

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.browser]


@pytest.fixture
def browser(tmp_path):
    with open_browser(tmp_path / "chromium", size=(1400, 1000)) as browser:
        yield browser


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    server = MlflowServer(tmp_path)
    server.start()
    yield server
    server.stop()


def page(browser, *texts):
    """The text of the page, as soon as it has all these."""

    def text():
        shown = browser.find_element("tag name", "body").text
        return shown if all(one in shown for one in texts) else ""

    return wait_for(text, timeout_s=120)


def test_two_runs_compared_show_the_parameters_that_differ_and_their_curves(browser, server):
    runs = []
    for rate in ("0.1", "0.2"):
        finished = Finished(epochs=3, keys=("train/loss", "gradients/norm"))
        params = {"optimizer.args.lr": rate, "seed": "7"}
        runs.append(finished.run(server.uri, params=params).run_id)
    experiment = connect(server.uri).get_run(runs[0]).info.experiment_id
    named = ",".join(f'"{run}"' for run in runs)
    browser.get(
        f'{server.uri}/#/compare-runs?runs=[{named}]&experiments=["{experiment}"]&workflowType=machine_learning'
    )
    text = page(browser, "Comparing 2 Runs", "optimizer.args.lr", "0.1", "0.2")
    chosen = text.split("Parameters:")[1].split("Metrics:")[0]  # for the plot, by MLflow itself
    assert "optimizer.args.lr" in chosen
    assert "seed" not in chosen

    # The curves of both, in the order in which one looks at them.
    browser.get(
        f"{server.uri}/#/experiments/{experiment}/runs?compareRunsMode=CHART&workflowType=machine_learning"
    )
    text = page(browser, "Overview", "train_loss", "validation_accuracy", "best", "gradients")
    assert text.index("Overview") < text.index("gradients")
    wait_for(lambda: browser.find_elements("css selector", ".js-plotly-plot .scatterlayer .trace"))
