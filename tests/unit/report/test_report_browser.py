"""A browser shows the page as it is meant: nothing is fetched, nothing is wider than a phone."""

import contextlib
import shutil
import tempfile

import pytest

from sar_experiments.report.page import as_page
from sar_experiments.report.runner import report

PHONE = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
DRAWN = """return [...document.querySelectorAll('.gallery image, .chart polyline')]
    .every(each => each.getBBox().width > 0)"""
FITS = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"


@pytest.mark.slow
def test_a_person_reads_the_page_on_a_phone(folders, tmp_path):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver (Debian: chromium chromium-driver)")
    folders.run("a" * 60, overrides=["usecase=infra", f"usecase.train.images=/{'long' * 40}"])
    folders.run("b", lr=0.2, overrides=["usecase=infra", "solver.base_lr=0.2"])
    folders.cfar("classic")
    folders.run("bad", status="failed", why="no memory", metrics={})
    path = tmp_path / "report.html"
    path.write_text(as_page(report(folders.asked()), title="Runs", made="now"), encoding="utf-8")
    with browser(chromium, driver) as page:
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        page.get(path.as_uri())
        assert page.execute_script(FITS)
        assert page.execute_script(DRAWN)
        assert len(page.find_elements("css selector", ".gallery figure")) == 2 * 9
        assert "no memory" in page.find_element("css selector", "main").text
        assert page.get_log("browser") == []
        page.find_element("css selector", "summary").click()
        assert "python -m sar_experiments" in page.find_element("css selector", "dl").text
        resources = "return performance.getEntriesByType('resource').map(each => each.name)"
        assert [r for r in page.execute_script(resources) if not r.startswith("data:")] == []


@contextlib.contextmanager
def browser(chromium, driver):
    """A headless browser that calls nobody."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (
            *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
            *("disable-background-networking", "disable-component-update", "disable-sync"),
            f"user-data-dir={profile}",
        ):
            options.add_argument(f"--{flag}")
        page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            yield page
        finally:
            page.quit()
