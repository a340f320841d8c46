"""What a person sees in Prefect's and MLflow's pages, by a real browser."""

import json
import shutil
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from support.runs.bare_run import BareRun
from support.runs.command import Unbroken
from support.runs.kills import CONFIG, HostedRun, Runner, Worker, result_of
from support.runs.machine import tunnel, wait_for
from support.runs.project import Project, call

pytestmark = [pytest.mark.server, pytest.mark.browser]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no browser: chromium and chromium-driver of the system are needed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",  # a container has no user namespaces for it
        "--disable-dev-shm-usage",
        "--disable-gpu",  # its process would draw in software, on a whole core
        "--no-first-run",
        "--disable-background-networking",  # nothing outside this machine is asked
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1500,1100",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


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
    press(browser, "Schedule")
    press(browser, "Cron")
    press(browser, "Save")
    (schedule,) = wait_for(lambda: deployed.get(place)["schedules"])
    httpx.delete(f"{deployed.api}/{place}/schedules/{schedule['id']}").raise_for_status()
    assert schedule["schedule"]["cron"] == "* * * * *"
    browser.refresh()
    shown(browser, "Schedules", "Work Pool")
    before = runs(deployed)
    press(browser, "Run", last=True)
    press(browser, "Quick run")
    (run,) = wait_for(lambda: runs(deployed) - before)
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
def _submitted(browser, deployed, before):
    """The run that the form starts; pressing while the form is still drawn does nothing."""
    for _ in range(3):
        press(browser, "Submit")
        with suppress(AssertionError):
            return wait_for(lambda: runs(deployed) - before, timeout_s=20)
    return wait_for(lambda: runs(deployed) - before)


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
    (run,) = _submitted(browser, deployed, before)
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
            cancel = {"state": {"type": "CANCELLING"}, "force": True}
            deployed.post(f"flow_runs/{run.id}/set_state", cancel)
        assert run.wait_for_end() == end.upper()
        press_retry(browser, deployed, run.id, after=end)
        assert run.wait_for_end() == "COMPLETED"
        assert run.outcome() == unbroken
    finally:
        hosted.stop()


def test_the_page_of_mlflow_lists_the_run(browser, deployed):
    assert deployed.complete_run
    browser.get(f"{deployed.mlflow}/#/experiments")
    shown(browser, "tests")


@pytest.mark.slow
def test_the_report_of_a_run_is_drawn_in_light_and_dark_and_on_a_narrow_screen(
    browser, tmp_path, home
):
    project = Project(tmp_path / "project", epochs=3)
    BareRun(project.config)()
    place = tmp_path / "report.html"
    assert call("report", str(project.config), "--out", str(place)).code == 0
    browser.get_log("browser")  # takes out what the pages before left in it
    colours = []
    for scheme in ("light", "dark"):
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
        browser.get(place.as_uri())
        shown(browser, "Loss by epoch", "Data map", "Hardest samples")
        pictures = "[...document.images].map(one => [one.naturalWidth, one.currentSrc.length])"
        sizes = browser.execute_script(f"return {pictures}")
        assert len(sizes) == 2
        assert all(width > 500 for width, _ in sizes)
        background = "getComputedStyle(document.body).backgroundColor"
        colours.append((browser.execute_script(f"return {background}"), sizes))
    assert colours[0][0] != colours[1][0]
    assert colours[0][1] != colours[1][1]  # other pictures, for the other colours
    narrow = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    wide = "document.documentElement.scrollWidth"
    assert browser.execute_script(f"return {wide}") <= 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert [one for one in browser.get_log("browser") if one["level"] == "SEVERE"] == []


def runs(deployed):
    """Ids of all runs of the deployment."""
    body = {"flow_runs": {"deployment_id": {"any_": [deployed.deployment["deployment_id"]]}}}
    return {one["id"] for one in deployed.post("flow_runs/filter", body)}


def press_retry(browser, deployed, run, *, after):
    """Retry by the button on the page of a run that ended as `after`."""
    tries = deployed.get(f"flow_runs/{run}")["run_count"]
    browser.get(f"{deployed.ui}/runs/flow-run/{run}")
    shown(browser, after, "Retry")
    press(browser, "Retry")
    name = deployed.get(f"flow_runs/{run}")["name"]
    shown(browser, f"Retry {name}?")  # it asks whether one is sure
    press(browser, "Retry", last=True)
    wait_for(lambda: deployed.get(f"flow_runs/{run}")["run_count"] == tries + 1)


def press(browser, label, *, last=False):
    """Clicks the first, or last, button of this name."""
    from selenium.webdriver.common.by import By

    named = f"[normalize-space()='{label}']"
    found = wait_for(
        lambda: [
            one
            for one in browser.find_elements(
                By.XPATH,
                f"//button{named} | //a{named}",
            )
            if one.is_displayed() and one.is_enabled()
        ]
    )
    found[-1 if last else 0].click()
