"""The page of `epochal report` in a real browser: what it fetches, shows, and does by keyboard."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from support.browser import open_browser
from support.runs.bare_run import BareRun
from support.runs.machine import wait_for
from support.runs.project import Project, environment

from epochal.tasks.report.page.shown_run import ShownRun
from epochal.tasks.report.page.write import report_html
from epochal.tasks.runs.find_run import find_run

pytestmark = [pytest.mark.slow, pytest.mark.browser]

HOSTILE = "<img src=https://evil.test/x onerror=alert(1)> $$x^2$$ {y} @z"
SIZES = {"desk": (1400, 1000), "phone": (400, 800)}
CONTROLS = "select, button, input, summary, [tabindex='0']"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A run of two generations, and a home of its own."""
    folder = tmp_path_factory.mktemp("shown")
    with environment(HOME=str(folder / "home")):
        project = Project(folder / "project", epochs=3)
        BareRun(project.config)()
        BareRun(project.config, epochs=4, optimizer__args__lr=0.02)()
    return project


def found(project, generation):
    return find_run(f"blobs@{generation}", store=str(project.store))


@pytest.fixture(scope="module")
def page(project):
    path = project.folder / "page.html"
    path.write_text(report_html([ShownRun(found(project, 1))]))
    return path


@pytest.fixture(scope="module")
def both(project):
    path = project.folder / "both.html"
    path.write_text(report_html([ShownRun(found(project, number)) for number in (1, 2)]))
    return path


def opened(browser, path, size="desk", scheme="light"):
    width, height = SIZES[size]
    for command, arguments in (
        ("Emulation.setDeviceMetricsOverride",
         {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}),
        ("Emulation.setEmulatedMedia",
         {"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
    ):  # fmt: skip
        browser.execute_cdp_cmd(command, arguments)
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(f"file://{path}")
    drawn(browser)


def drawn(browser):
    wait_for(
        lambda: browser.execute_script("return document.documentElement.dataset.drawn"),
        timeout_s=60,
    )


def asked(browser):
    """Addresses that were asked for since the log was last read, but for what is in the page."""
    messages = [json.loads(one["message"])["message"] for one in browser.get_log("performance")]
    urls = [
        one["params"]["request"]["url"]
        for one in messages
        if one["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in urls if not url.startswith(("data:", "chrome:", "chrome-untrusted:"))]


def script(browser, code):
    return browser.execute_script(
        f"const plots = Bokeh.documents[0].roots(); const loss = plots[0]; {code}"
    )


def window(browser):
    return script(browser, "return [loss.x_range.start, loss.x_range.end]")


def press(browser, selector, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    element = browser.find_element("css selector", selector)
    browser.execute_script("arguments[0].focus()", element)
    ActionChains(browser).send_keys(*keys).perform()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_asks_for_nothing_says_nothing_and_fits(browser, page, both, size, scheme):
    for path in (page, both):
        opened(browser, path, size, scheme)
        assert asked(browser) == [f"file://{path}"]
        assert browser.get_log("browser") == []
        sizes = "const page = document.documentElement; return page.scrollWidth - innerWidth"
        assert browser.execute_script(sizes) <= 0
        widths = script(
            browser, "return plots.map(({name}) => document.getElementById(name).clientWidth)"
        )
        assert min(width for width in widths if width) > SIZES[size][0] * 0.3


def colours(browser):
    return script(
        browser,
        "const line = loss.renderers.find(one => one.tags.includes('line'));"
        "return [getComputedStyle(document.body).backgroundColor, line.glyph.line_color.value,"
        " loss.below[0].major_label_text_color]",
    )


def test_colours_are_those_of_the_system_or_of_the_switch(browser, page):
    opened(browser, page, scheme="dark")
    dark = colours(browser)
    opened(browser, page)
    light = colours(browser)
    assert all(one != other for one, other in zip(dark, light, strict=True))
    press(browser, "#theme", "d")
    assert colours(browser) == dark


def test_one_switch_puts_all_curves_against_another_axis(browser, page):
    opened(browser, page)
    assert window(browser) == [0, 3]
    fields = (
        "return [...new Set(plots.filter(one => one.tags.includes('shared')).flatMap(one =>"
        " one.renderers.map(({glyph}) => (glyph.x || glyph.right).field)))].sort()"
    )
    assert script(browser, fields) == ["epoch", "right_epoch"]
    press(browser, "#axis", "sa")  # as a person types it: samples
    assert script(browser, fields) == ["right_samples", "samples"]
    assert window(browser)[1] > 180
    assert script(browser, "return loss.below[0].axis_label") == "samples trained on"


def test_curves_are_switched_zoomed_and_smoothed_by_the_keyboard(browser, both):
    from selenium.webdriver.common.keys import Keys

    opened(browser, both)
    count = "return loss.renderers.filter(one => one.visible).length"
    every = script(browser, count)
    press(browser, "[data-chart='chart-0'] [data-kind]", Keys.SPACE)
    without_curve = script(browser, count)
    press(browser, "[data-run='0']", Keys.SPACE)
    assert every > without_curve > script(browser, count) > 0
    start, end = window(browser)
    press(browser, "[data-zoom='in']", Keys.ENTER)
    inside = window(browser)
    assert start < inside[0] < inside[1] < end
    press(browser, "[data-zoom='right']", Keys.ENTER)
    assert window(browser)[0] > inside[0]
    press(browser, "#chart-0", "0")
    assert window(browser) == [start, end]
    press(browser, "#chart-0", "+")
    assert window(browser) == inside
    press(browser, "#chart-0", Keys.ARROW_RIGHT)
    told = browser.find_element("id", "told").get_attribute("textContent")
    assert "validation/loss" in told
    assert browser.find_element("css selector", ".at").text.startswith("at ")
    press(browser, "#smooth", Keys.END)
    fields = script(
        browser,
        "return loss.renderers.filter(one => one.glyph.type === 'Line')"
        ".map(one => [one.tags.includes('noisy'), one.glyph.y.field.startsWith('smooth-')])",
    )
    assert fields == [[True, True], [False, False], [False, False]] * 2
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("size", SIZES)
def test_every_control_is_reached_by_tab_and_shows_that_it_is(browser, both, size):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    opened(browser, both, size)
    wanted = browser.execute_script(
        f'return [...document.querySelectorAll("{CONTROLS}")]'
        ".filter(one => !one.closest('details:not([open]) > :not(summary)')).length"
    )
    reached, unseen = set(), []
    for _ in range(wanted + 5):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        element = browser.switch_to.active_element
        if element.tag_name == "body":
            break
        reached.add(element.id)
        outline = element.value_of_css_property("outline-style")
        if outline == "none":
            unseen.append(element.get_attribute("outerHTML")[:80])
    assert unseen == []
    assert len(reached) == wanted


def test_hostile_names_stay_text_also_where_the_pointer_is(browser, project):
    from selenium.webdriver.common.action_chains import ActionChains

    run = found(project, 1)
    records = {
        key: replace(one, values={**one.values, "metrics": {HOSTILE: 0.5, "loss": 1.0}})
        if one.stage == "validate"
        else one
        for key, one in run.records.items()
    }
    hostile = replace(run, records=records)
    path = project.folder / "hostile.html"
    path.write_text(report_html([ShownRun(hostile, images=HOSTILE)]))
    opened(browser, path)
    canvas = browser.find_element("id", "chart-1")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    for up in range(-100, 100, 5):
        ActionChains(browser).move_to_element_with_offset(canvas, 10, up).perform()
    assert asked(browser) == [f"file://{path}"]
    assert browser.get_log("browser") == []


def test_a_page_that_is_kept_fresh_goes_on_as_it_was_set_and_ctrl_c_ends_well(
    browser, project, tmp_path
):
    from selenium.webdriver.support.ui import Select

    run = BareRun(project.config, epochs=5, seed=9)
    stages = iter(list(run.run.stages()))

    def work(count):
        for _ in range(count):
            run.run.run_stage(next(stages))

    work(4)  # an epoch: initialise, train, validate, mine
    path = tmp_path / "live.html"
    command = [sys.executable, "-m", "epochal.flows.cli", "report", "blobs@3"]
    options = ["--store", str(project.store), "--out", str(path), "--live"]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "HOME": str(project.folder)},
    )  # fmt: skip
    try:
        assert "kept fresh, Ctrl-C ends it" in process.stdout.readline()
        opened(browser, path)
        Select(browser.find_element("id", "axis")).select_by_value("update")
        assert window(browser)[1] == pytest.approx(6)
        browser.find_element("css selector", "[data-chart='chart-0'] [data-kind='1']").click()
        work(3)

        def went_on():
            drawn(browser)
            return window(browser)[1] > 11

        wait_for(went_on, timeout_s=60)
        assert browser.find_element("id", "axis").get_attribute("value") == "update"
        box = browser.find_element("css selector", "[data-chart='chart-0'] [data-kind='1']")
        assert not box.is_selected()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
    assert "data-live" not in path.read_text()
    assert browser.get_log("browser") == []
