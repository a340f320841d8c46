"""What a person sees in Prefect's and MLflow's pages, by a real browser."""

import json
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import httpx
import pytest
from support.browser import open_browser
from support.runs.command import (
    STEP_SECONDS,
    Unbroken,
    alive,
    descendants,
    wait_for_commit,
)
from support.runs.kills import CONFIG, HostedRun, Runner, Worker, result_of
from support.runs.machine import tunnel, wait_for

pytestmark = [pytest.mark.server, pytest.mark.browser]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def shown(browser, *texts, timeout_s=60.0):
    """The text of the page, as soon as it has all these."""
    from selenium.common.exceptions import WebDriverException

    def text():
        try:
            page = browser.find_element("tag name", "body").text
        except WebDriverException:  # the page is being built
            return ""
        return page if all(one in page for one in texts) else ""

    try:
        return wait_for(text, timeout_s=timeout_s)
    except AssertionError:
        pytest.fail(
            f"not all of {texts} on this page:\n{browser.find_element('tag name', 'body').text}"
        )


def test_the_page_of_a_run_shows_every_stage_by_name(browser, deployed):
    browser.get(f"{deployed.ui}/runs/flow-run/{deployed.complete_run}")
    page = shown(browser, "train · epoch 3", "validate · epoch 3", "mine · epoch 3")
    assert "Can't connect to Server API" not in page
    assert "Completed" in page


def asked_hosts(browser):
    """`host:port` of all that pages have asked for since this was last called."""
    asked = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] in {"Network.requestWillBeSent", "Network.webSocketCreated"}:
            request = message["params"].get("request", message["params"])
            address = urlsplit(request["url"])
            if address.scheme in {"http", "https", "ws", "wss"}:
                asked.add(address.netloc)
    return asked


def test_a_schedule_is_saved_and_a_run_started_at_once_on_the_page_that_deploy_prints(
    browser, deployed
):
    assert deployed.complete_run
    browser.get(deployed.ui)
    shown(browser, "Dashboard", "Deployments", "Switch to V2 UI")
    browser.get(deployed.deployment["url"])
    shown(browser, "Schedules", "Work Pool")
    place = f"deployments/{deployed.deployment['deployment_id']}"
    press(browser, "Schedule", until=lambda: buttons(browser, "Cron"))
    press(browser, "Cron", until=lambda: "Day Or" in shown(browser))
    saved = lambda: deployed.get(place)["schedules"]  # noqa: E731
    (schedule,) = press(browser, "Save", until=saved, sends="/schedules")
    unschedule(deployed, schedule)
    assert schedule["schedule"]["cron"] == "* * * * *"
    browser.refresh()
    shown(browser, "Schedules", "Work Pool")
    before = runs(deployed)
    press(browser, "Run", last=True, until=lambda: buttons(browser, "Quick run"))
    started = lambda: runs(deployed) - before  # noqa: E731
    (run,) = press(browser, "Quick run", until=started, sends="/create_flow_run")
    ended = deployed.wait(run, "COMPLETED", "FAILED", "CRASHED")
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]


@pytest.mark.parametrize("at", ["", "/v2"])
def test_pages_ask_no_host_but_their_own_also_through_a_tunnel_at_another_port(
    browser, deployed, at
):
    deployed_at = urlsplit(deployed.ui)
    with tunnel(deployed_at.port) as port:
        browser.get("about:blank")
        asked_hosts(browser)
        for page in ("/dashboard", "/deployments", "/settings"):
            browser.get(f"http://localhost:{port}{at}{page}")
            assert "Can't connect to Server API" not in shown(browser, "Deployments", "Settings")
        browser.get(f"http://localhost:{port}{at}/deployments")
        shown(browser, "blobs")  # the API has answered
        assert asked_hosts(browser) == {f"localhost:{port}"}


@pytest.mark.slow
def test_a_schedule_that_is_saved_on_the_page_fires_at_its_time(browser, deployed):
    assert deployed.complete_run
    place = f"deployments/{deployed.deployment['deployment_id']}"
    browser.get(deployed.deployment["url"])
    shown(browser, "Schedules", "Work Pool")
    press(browser, "Schedule", until=lambda: buttons(browser, "Cron"))
    press(browser, "Cron", until=lambda: "Day Or" in shown(browser))
    before = runs(deployed)
    saved = lambda: deployed.get(place)["schedules"]  # noqa: E731
    (schedule,) = press(browser, "Save", until=saved, sends="/schedules")
    try:
        # Every minute: the first of the runs that it makes.
        made = wait_for(lambda: runs(deployed) - before)
        runs_of_it = [deployed.get(f"flow_runs/{run}") for run in made]
        first = min(runs_of_it, key=lambda run: run["expected_start_time"])
        ended = deployed.wait(first["id"], "COMPLETED", "FAILED", "CRASHED", timeout_s=240)
    finally:
        unschedule(deployed, schedule)
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    assert ended["auto_scheduled"]
    assert ended["expected_start_time"].endswith(":00Z")  # a full minute
    due, began = (
        datetime.fromisoformat(ended[name]) for name in ("expected_start_time", "start_time")
    )
    assert began > due - timedelta(seconds=1)  # Prefect begins some 0.1 s early


@pytest.mark.slow
def test_the_form_refuses_a_wrong_value_before_a_run_exists(browser, deployed):
    from selenium.webdriver.common.keys import Keys

    page = f"deployments/deployment/{deployed.deployment['deployment_id']}"
    browser.get(f"{deployed.ui}/{page}/run")
    shown(browser, "Epochs\nnumber of epochs")
    before = runs(deployed)
    epochs = browser.find_elements("css selector", "input[type=number]")[0]
    assert epochs.get_attribute("value") == "4"
    epochs.send_keys(Keys.CONTROL, "a")
    epochs.send_keys("0")
    refused = lambda: "config.epochs" in shown(browser)  # noqa: E731
    press(browser, "Submit", until=refused, sends="/create_flow_run")
    assert "0 is less than the minimum of 1" in shown(browser)
    assert runs(deployed) == before


@pytest.mark.slow
def test_the_form_of_the_deployment_shows_help_and_starts_a_run_that_is_cached(browser, deployed):
    assert deployed.complete_run
    page = f"deployments/deployment/{deployed.deployment['deployment_id']}"
    browser.get(f"{deployed.ui}/{page}/run")
    form = shown(browser, "Epochs\nnumber of epochs", "which samples the next epoch trains on")
    assert not {"int", "str", "float", "None", "dict"} & set(form.splitlines())
    assert "Config" not in form
    for title in ("as usual", "Max updates", "warmup_stable_decay", "Clip norm"):
        assert title in form
    wide = "return Math.max(...[...document.querySelectorAll('button')].map(one =>"
    assert browser.execute_script(f"{wide} one.getBoundingClientRect().right))") <= 1500
    before = runs(deployed)
    started = lambda: runs(deployed) - before  # noqa: E731
    (run,) = press(browser, "Submit", until=started, sends="/create_flow_run")
    ended = deployed.wait(run, "COMPLETED", "FAILED", "CRASHED")
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    wait_for(lambda: deployed.tasks(run).get("mine · epoch 3") == "Cached")


@pytest.mark.slow
def test_the_page_of_a_failed_run_offers_retry_and_the_retry_goes_on(browser, deployed):
    broken = deployed.project.folder / "broken"
    broken.touch()
    run = deployed.run(name="retried-in-the-ui", seed=8)
    try:
        assert deployed.wait(run, "FAILED", "COMPLETED", "CRASHED")["state_type"] == "FAILED"
    finally:
        broken.unlink()
    press_retry(browser, deployed, run, after="Failed")
    ended = deployed.wait(run, "COMPLETED", "FAILED", "CRASHED")
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    after = deployed.tasks(run, attempt=2)
    assert after["train · epoch 2"] == "Cached"
    config = {"loader": {"batch_size": 16, "drop_last": True}, "seed": 8}
    retried = result_of(deployed, {**config, "name": "retried-in-the-ui"})
    assert all(one["cached"] for one in retried["stages"])
    unbroken = result_of(deployed, {**config, "name": "never-broken", "store": "./never-broken"})
    assert retried["weights_sha256"] == unbroken["weights_sha256"]


@pytest.fixture(scope="module")
def unbroken(deployed):
    """How the run ends that nobody disturbs."""
    config = {**CONFIG, "name": "unbroken-beside-the-ui", "store": "./store-unbroken-beside-the-ui"}
    return Unbroken.of_result(result_of(deployed, config), deployed.mlflow)


@pytest.mark.slow
@pytest.mark.parametrize("host", [Worker, Runner])
@pytest.mark.parametrize("end", ["Crashed", "Cancelled"])
def test_the_button_for_retry_goes_on_after_a_kill_and_a_cancel(
    browser, deployed, unbroken, host, end
):
    hosted = host(deployed)
    try:
        run = HostedRun(hosted, f"{host.__name__}-{end}-in-the-ui".lower())
        if end == "Crashed":
            run.kill()
        else:
            press_cancel(browser, deployed, run.id)
        assert run.wait_for_end() == end.upper()
        press_retry(browser, deployed, run.id, after=end)
        assert run.wait_for_end() == "COMPLETED"
        assert run.outcome() == unbroken
    finally:
        hosted.stop()


@pytest.mark.slow
def test_prefects_cancel_ends_a_run_that_a_command_started_with_its_commits_and_no_process(
    deployed,
):
    store = deployed.project.folder / "store-of-the-command"
    command = [
        *(sys.executable, "-P", "-m", "epochal.flows.cli", "train", str(deployed.project.config)),
        *("--set=name=of-a-command", f"--set=store={store}", "--set=seed=31"),
        *("--set=launch.kind=local", "--set=checkpoint.every_updates=1"),
        "--set=epochs=60",  # it must still be at work when the page is drawn
    ]
    settings = {
        "PREFECT_API_URL": deployed.api,
        "MLFLOW_TRACKING_URI": deployed.mlflow,
        "STEP_SECONDS": STEP_SECONDS,
    }
    with deployed.machine.environment(**settings):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for_commit(store, 3, still=lambda: process.poll() is None)
    family = {process.pid, *descendants(process.pid)}
    asked = {"flow_runs": {"name": {"like_": "of-a-command@"}}}
    (run,) = deployed.post("flow_runs/filter", asked)
    # Prefect's page has the button for runs of a deployment alone.
    asking = [sys.executable, "-m", "prefect", "flow-run", "cancel", run["id"]]
    with deployed.machine.environment(**settings):
        subprocess.run(asking, check=True, stdout=subprocess.DEVNULL, timeout=120)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "cancelled in Prefect's UI" in said
    assert deployed.get(f"flow_runs/{run['id']}")["state_type"] == "CANCELLED"
    wait_for(lambda: not any(alive(pid) for pid in family))


@pytest.mark.slow
def test_pause_puts_a_run_down_inside_an_epoch_and_resume_goes_on_to_the_same_bytes(
    browser, deployed, unbroken
):
    run = HostedRun(Worker(deployed), "paused-in-the-ui")
    browser.get(f"{deployed.ui}/runs/flow-run/{run.id}")
    press(browser, "Suspend", until=lambda: buttons(browser, "Submit"))
    paused = lambda: deployed.get(f"flow_runs/{run.id}")["state_name"] == "Suspended"  # noqa: E731
    press(browser, "Submit", until=paused, sends="/set_state")
    wait_for(lambda: not run.processes())
    browser.get(f"{deployed.ui}/runs/flow-run/{run.id}")
    press(browser, "Resume", until=lambda: buttons(browser, "Submit"))
    gone_on = lambda: not paused()  # noqa: E731
    press(browser, "Submit", until=gone_on, sends="/resume")
    assert run.wait_for_end() == "COMPLETED"
    assert run.outcome() == unbroken


def test_the_page_of_mlflow_lists_the_run(browser, deployed):
    assert deployed.complete_run
    browser.get(f"{deployed.mlflow}/#/experiments")
    shown(browser, "tests")


def runs(deployed):
    """Ids of all runs of the deployment."""
    body = {"flow_runs": {"deployment_id": {"any_": [deployed.deployment["deployment_id"]]}}}
    return {one["id"] for one in deployed.post("flow_runs/filter", body)}


def unschedule(deployed, schedule):
    """Deletes it; asks again while the server's SQLite is locked."""
    place = f"deployments/{deployed.deployment['deployment_id']}/schedules/{schedule['id']}"
    wait_for(lambda: httpx.delete(f"{deployed.api}/{place}", timeout=30).status_code in {204, 404})


def press_retry(browser, deployed, run, *, after):
    """Retry by the button on the page of a run that ended as `after`."""
    tries = deployed.get(f"flow_runs/{run}")["run_count"]
    browser.get(f"{deployed.ui}/runs/flow-run/{run}")
    shown(browser, after, "Retry")
    name = deployed.get(f"flow_runs/{run}")["name"]
    sure = f"Retry {name}?"  # it asks
    press(browser, "Retry", until=lambda: sure in shown(browser))
    press(
        browser,
        "Retry",
        last=True,
        until=lambda: deployed.get(f"flow_runs/{run}")["run_count"] == tries + 1,
        sends="/set_state",
    )


def press_cancel(browser, deployed, run):
    """Cancel by the button on the page of a run that is at work."""
    browser.get(f"{deployed.ui}/runs/flow-run/{run}")
    press(browser, "Cancel", until=lambda: buttons(browser, "Confirm"))
    ending = {"CANCELLING", "CANCELLED"}
    cancelled = lambda: deployed.get(f"flow_runs/{run}")["state_type"] in ending  # noqa: E731
    press(browser, "Confirm", until=cancelled, sends="/set_state")


def buttons(browser, label):
    """Buttons and links of this name that can be pressed.

    That is, as for Playwright: they have stood still for two frames, and are not covered. A press
    at one that moves, because the page is still drawn or a dialog slides in, lands beside it.
    """
    from selenium.common.exceptions import WebDriverException

    try:
        return browser.execute_async_script(_PRESSABLE, label)
    except WebDriverException:  # the page has changed meanwhile
        return []


_PRESSABLE = """
const [label, done] = arguments;
const found = [...document.querySelectorAll('button, a')].filter(
  one => one.textContent.trim() === label && !one.disabled && one.getClientRects().length);
found.slice(0, 1).concat(found.slice(-1)).forEach(one => one.scrollIntoViewIfNeeded?.());
const place = one => JSON.stringify(one.getBoundingClientRect());
const frame = () => new Promise(next => requestAnimationFrame(next));
(async () => {
  await frame();
  const before = found.map(place);
  await frame();
  await frame();
  done(found.filter((one, index) => {
    const {left, top, width, height} = one.getBoundingClientRect();
    const hit = document.elementFromPoint(left + width / 2, top + height / 2);
    return one.isConnected && place(one) === before[index] && one.contains(hit);
  }));
})();
"""


def press(browser, label, *, until, last=False, sends=None):
    """Clicks the first, or last, button of this name; the true answer of `until()`, which follows.

    What a page draws again between the look and the click is not pressed: then again, unless
    the page has sent its request to a path that ends with `sends`, of which one is enough. One that
    the server has refused is sent again, as a person does.
    """
    from selenium.common.exceptions import WebDriverException

    for _ in range(3):
        sent = Sent(browser, sends)
        try:
            found = wait_for(lambda: buttons(browser, label))
        except AssertionError:
            page = browser.find_element("tag name", "body").text
            pytest.fail(f"no button {label!r} that can be pressed on this page:\n{page}")
        with suppress(WebDriverException):
            found[-1 if last else 0].click()
        with suppress(AssertionError):
            return wait_for(until, timeout_s=20)
        if sent.went_out and not sent.refused:
            break
    try:
        return wait_for(until)
    except AssertionError:
        pytest.fail(f"{label!r} was pressed, and nothing came of it; answers: {sent.answers}")


class Sent:
    """What a page sends from now on to a path that ends with this one, and what is answered."""

    def __init__(self, browser, path):
        self.browser, self.path = browser, path
        self.answers = {}
        browser.get_log("performance")

    @property
    def went_out(self):
        self._read()
        return bool(self.answers)

    @property
    def refused(self):
        self._read()
        return all(status is not None and status >= 400 for status in self.answers.values())

    def _read(self):
        messages = [
            json.loads(one["message"])["message"] for one in self.browser.get_log("performance")
        ]
        for message in messages:
            given = message["params"]
            if message["method"] == "Network.requestWillBeSent" and self.path is not None:
                request = given["request"]
                ends = urlsplit(request["url"]).path.rstrip("/").endswith(self.path)
                if request["method"] != "GET" and ends:
                    self.answers[given["requestId"]] = None
            elif given.get("requestId") in self.answers:
                if message["method"] == "Network.responseReceived":
                    self.answers[given["requestId"]] = given["response"]["status"]
                elif message["method"] == "Network.loadingFailed":
                    self.answers[given["requestId"]] = 599  # no answer came
