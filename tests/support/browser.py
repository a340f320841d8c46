"""A real browser without a window, for tests that look at what a person sees."""

import shutil
from contextlib import contextmanager

import pytest


@contextmanager
def open_browser(profile, *, size=(1500, 1100)):
    """Chromium with a profile in that folder; it keeps a log of what pages say and ask for."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no browser: chromium and chromium-driver of the system are needed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",  # a container has no user namespaces for it
        "--disable-dev-shm-usage",
        "--disable-gpu",  # its process would draw in software, on a whole core
        "--no-first-run",
        "--disable-background-networking",  # nothing outside this machine is asked
        "--disable-component-update",
        "--disable-sync",
        f"--window-size={size[0]},{size[1]}",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()
