"""The committed pages in a real browser: they open without errors, ask for nothing outside, and
sliders move.
"""

import json
import os
from urllib.parse import unquote, urlsplit

import pytest

from zdce import paths

REPORTS = paths.reports("study")
PAGES = sorted(REPORTS.glob("*.html"))
WIDTHS = (390, 1280)  # CSS pixels: a phone, a desktop
pytestmark = pytest.mark.long


def show(browser, page, width: int) -> None:
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")  # what came before is of no interest
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(page.as_uri())


def asked_for(browser) -> list[str]:
    """Addresses that the page requested since it was opened."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_opens_without_errors_and_asks_for_nothing_outside(browser, page, width):
    show(browser, page, width)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    requests = asked_for(browser)
    assert page.as_uri() in requests
    home = REPORTS.as_uri()
    assert [url[:120] for url in requests if not url.startswith(("data:", home + "/"))] == []
    wide, view = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert wide <= view, f"the page is {wide} pixels wide on a screen of {view}"
    missing = browser.execute_script(
        "return [...document.images].filter(i => i.complete && !i.naturalWidth || !i.alt)"
        ".map(i => i.outerHTML.slice(0, 99))"
    )
    assert missing == []
    links = browser.execute_script(
        "return [...document.querySelectorAll('a[href]')].map(a => a.href)"
    )
    assert links
    within = "return arguments[0].some(name => document.getElementById(name))"
    for link in (each for each in set(links) if not each.startswith(("http://", "https://"))):
        parts = urlsplit(link)
        assert parts.scheme == "file" and os.path.exists(unquote(parts.path)), link
        if parts.fragment and unquote(parts.path) == str(page):
            names = [parts.fragment, unquote(parts.fragment)]  # as a browser looks them up
            assert browser.execute_script(within, names), link


def test_pages_and_the_whole_study_stay_small():
    sizes = {file: file.stat().st_size for file in REPORTS.rglob("*") if file.is_file()}
    assert all(size < 3e6 for file, size in sizes.items() if file.suffix == ".html")
    assert sum(sizes.values()) < 25e6


@pytest.mark.parametrize("width", WIDTHS)
def test_a_slider_moves_by_keyboard_mouse_and_touch(browser, width):
    from selenium.webdriver.common.action_chains import ActionBuilder
    from selenium.webdriver.common.actions.interaction import POINTER_MOUSE, POINTER_TOUCH
    from selenium.webdriver.common.actions.pointer_input import PointerInput
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    show(browser, REPORTS / "06_result_comparison.html", width)
    slider = browser.find_element(By.CSS_SELECTOR, ".slider")
    handle = slider.find_element(By.TAG_NAME, "input")
    # No gliding under the pointer
    browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'")

    def place() -> float:
        at = browser.execute_script("return arguments[0].style.getPropertyValue('--at')", slider)
        return float(at.removesuffix("%"))

    assert place() == 50
    handle.send_keys(Keys.ARROW_RIGHT * 5)
    assert place() == 55
    handle.send_keys(Keys.HOME)
    assert place() == 0

    for kind in (POINTER_MOUSE, POINTER_TOUCH):
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
        box = handle.rect
        actions = ActionBuilder(browser, mouse=PointerInput(kind, kind))
        pointer = actions.pointer_action.move_to(handle, 0, 0).pointer_down()
        pointer.move_to(handle, int(box["width"] * 0.25), 0).pointer_up()
        actions.perform()
        assert 65 < place() < 85, kind
        handle.send_keys(Keys.HOME)
        assert place() == 0
