"""A browser shows the page as it is meant: nothing is fetched, nothing is wider than a phone."""

import pytest

from sar_experiments.report.page import as_page
from sar_experiments.report.runner import report

PHONE = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
DRAWN = """return [...document.querySelectorAll('.gallery image, .chart polyline')]
    .every(each => each.getBBox().width > 0)"""
FITS = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"


@pytest.mark.slow
def test_a_person_reads_the_page_on_a_phone(folders, tmp_path, page):
    folders.run("a" * 60, overrides=["usecase=infra", f"usecase.train.images=/{'long' * 40}"])
    folders.run("b", lr=0.2, overrides=["usecase=infra", "solver.base_lr=0.2"])
    folders.cfar("classic")
    folders.run("bad", status="failed", why="no memory", metrics={})
    path = tmp_path / "report.html"
    made = report(folders.asked())
    path.write_text(as_page(made, title="Runs", made="now"), encoding="utf-8")
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    page.get(path.as_uri())
    assert page.execute_script(FITS)
    assert page.execute_script(DRAWN)
    pictured = [min(3, n) for each in made.sections[0].galleries for n in each.counts.values()]
    assert len(page.find_elements("css selector", ".gallery figure")) == sum(pictured) > 2 * 3
    assert "no memory" in page.find_element("css selector", "main").text
    assert page.get_log("browser") == []
    page.find_element("css selector", "summary").click()
    assert "python -m sar_experiments" in page.find_element("css selector", "dl").text
    resources = "return performance.getEntriesByType('resource').map(each => each.name)"
    assert [r for r in page.execute_script(resources) if not r.startswith("data:")] == []
