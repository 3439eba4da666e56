"""The report in a real Chromium: no error, everything drawn, nothing fetched, nothing too wide."""

import json

import pytest

from mlx_yoda.config.schema import Config, LoraConfig
from mlx_yoda.report.page import write_report

# What is drawn where, in pixels of the page.
MEASURE = """
const box = (e) => (({left, top, right, bottom}) => [left, top, right, bottom])(
  e.getBoundingClientRect());
return [...document.querySelectorAll('svg.chart')].map((svg) => ({
  box: box(svg),
  parts: [...svg.querySelectorAll('polyline, polygon, circle, text')].map(box),
  lines: [...svg.querySelectorAll('polyline')].map((e) => e.getTotalLength()),
  font: Math.min(...[...svg.querySelectorAll('text')].map((e) => e.getBoundingClientRect().height)),
  color: getComputedStyle(svg.querySelector('.surface')).fill,
}));
"""


@pytest.fixture(params=["one run", "three runs with long names"])
def report(request, make_run, tmp_path):
    """The address of a report."""
    folders = [make_run("yoda")]
    if request.param != "one run":
        long = "a-run-with-a-name-as-long-as-people-really-give-them"
        folders += [make_run(f"{long}-{r}", Config(lora=LoraConfig(r=r))) for r in (8, 16)]
    path = tmp_path / "report.html"
    write_report(folders, path)
    return path.as_uri()


def show(browser, address, width, theme):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(address)


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_is_drawn_and_nothing_is_too_wide(browser, report, width, theme):
    show(browser, report, width, theme)
    page = "return [window.innerWidth, document.documentElement.scrollWidth]"
    inner, needed = browser.execute_script(page)
    assert inner == width
    assert needed <= width
    charts = browser.execute_script(MEASURE)
    assert len(charts) == 5
    for chart in charts:
        left, top, right, bottom = chart["box"]
        assert right - left > 300
        assert chart["lines"]
        assert min(chart["lines"]) > 5
        assert chart["font"] > 9
        assert chart["color"] == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 29, 26)"}[theme]
        for x0, y0, x1, y1 in chart["parts"]:
            assert left - 1 <= x0 <= x1 <= right + 1
            assert top - 1 <= y0 <= y1 <= bottom + 1


def test_it_says_nothing_and_asks_for_nothing(browser, report):
    browser.get_log("performance")
    browser.get_log("browser")
    show(browser, report, 1400, "light")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert report in asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert browser.get_log("browser") == []


def test_the_keyboard_reaches_the_numbers(browser, report):
    from selenium.webdriver.common.keys import Keys

    show(browser, report, 1400, "light")
    active = "return document.activeElement.innerText"
    for _ in range(10):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.execute_script(active) == "Loss in numbers":
            break
    assert browser.execute_script(active) == "Loss in numbers"
    rows = "return document.querySelectorAll('details[open] tbody tr').length"
    assert browser.execute_script(rows) == 0
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.execute_script(rows) == 4


def test_on_paper_it_is_light(browser, report):
    show(browser, report, 1400, "dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    color = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(color) == "rgb(255, 255, 255)"
    (chart, *_) = browser.execute_script(MEASURE)
    assert chart["color"] == "rgb(255, 255, 255)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
