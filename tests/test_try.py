"""The page to try the curve in a real browser: the same result as Python, and what it says of other
files.
"""

import base64
import re

import numpy as np
import pytest
import torch
from PIL import Image
from test_pages import asked_for, show

from zdce import auto, datasets, paths
from zdce.postprocess import NOISE_BLOCK

PAGE = paths.reports() / "try.html"
pytestmark = pytest.mark.long


@pytest.fixture
def page(browser):
    show(browser, PAGE, 1280)
    wait(browser, lambda b: "example.jpg" in b.find_element("id", "caption").text)
    return browser


def wait(browser, condition) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60, poll_frequency=0.05).until(condition)


def choose(browser, file, image: Image.Image | None = None) -> None:
    """Give ``file``, with ``image`` in it, to the page and wait until it has answered."""
    if image:
        image.save(file)
    browser.find_element("id", "file").send_keys(str(file))
    answers = [browser.find_element("id", name) for name in ("caption", "message")]
    wait(browser, lambda _: any(file.name in answer.text for answer in answers))


def canvas(browser, name: str) -> np.ndarray:
    """Pixels of a canvas, (H, W, 4) uint8."""
    width, height, text = browser.execute_script(
        "const c = document.getElementById(arguments[0]);"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let s = ''; for (let i = 0; i < d.length; i++) s += String.fromCharCode(d[i]);"
        "return [c.width, c.height, btoa(s)]",
        name,
    )
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)


def assert_as_in_python(browser, pixels: np.ndarray) -> None:
    """The canvas shows the curve of ``zdce.auto`` without the filter, within a grey level."""
    image = torch.from_numpy(np.float32(pixels) / 255).permute(2, 0, 1)[None]
    after = auto.render(image, auto.curve_of(image)[0], torch.zeros(1, 256))[0]
    expected = (after[0].permute(1, 2, 0) * 255 + 0.5).clamp(0, 255).to(torch.uint8).numpy()
    assert np.abs(canvas(browser, "after")[..., :3].astype(int) - expected).max() <= 1


def test_the_page_has_the_constants_of_the_package():
    source = PAGE.read_text("utf-8")
    for name in ("ITERATIONS", "TARGET_MEAN", "LIMIT", "HALVINGS", "NIGHT_GAIN"):
        found = re.search(rf"\b{name} = ([\d.]+)", source).group(1)
        assert float(found) == getattr(auto, name), name
    points = tuple(range(NOISE_BLOCK)[auto.POINTS])
    pairs = {"GOOD": auto.GOOD, "SEEN": auto.SEEN, "NIGHT": auto.NIGHT, "POINTS": points}
    for name, pair in pairs.items():
        found = re.search(rf"\b{name} = \[([^\]]+)\]", source).group(1)
        assert tuple(map(float, found.split(","))) == pair, name


def test_it_opens_from_disk_and_asks_for_nothing(page):
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    inside = (PAGE.as_uri(), "data:", "blob:")
    assert [url[:99] for url in asked_for(page) if not url.startswith(inside)] == []


@pytest.mark.parametrize("name", ["rocket-3ev", "coffee-2ev", "a portrait of odd size"])
def test_a_photograph_comes_out_as_in_python(page, tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 60, (157, 83, 3), np.uint8)
    for sample in datasets.samples("bundled"):
        pixels = sample.image() if sample.name == name else pixels
    choose(page, tmp_path / f"{name}.png", Image.fromarray(pixels))
    assert np.array_equal(canvas(page, "before")[..., :3], pixels)
    assert_as_in_python(page, pixels)
    box, (height, width, _) = page.find_element("id", "slider").rect, pixels.shape
    assert box["width"] / box["height"] == pytest.approx(width / height, rel=0.02)


def test_transparency_stays(page, tmp_path):
    pixels = np.random.default_rng(0).integers(5, 60, (64, 90, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[:20, :, 3] = 128
    choose(page, tmp_path / "clear.png", Image.fromarray(pixels))
    after = canvas(page, "after")
    assert np.array_equal(after[..., 3], pixels[..., 3])
    assert after[20:, :, :3].mean() > 2 * pixels[20:, :, :3].mean()


def test_no_picture_is_said_to_be_none(page, tmp_path):
    before = canvas(page, "after")
    (tmp_path / "notes.png").write_bytes(b"this is text")
    choose(page, tmp_path / "notes.png")
    message = page.find_element("id", "message").text
    assert "notes.png is no picture" in message
    assert np.array_equal(canvas(page, "after"), before)  # what was there stays
    choose(page, tmp_path / "next.png", Image.new("RGB", (20, 20), (30, 30, 30)))
    assert page.find_element("id", "message").text == ""


def test_target_and_strength_turn_the_result(page):
    def put(name: str, value: float) -> float:
        turn = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        page.execute_script(turn, page.find_element("id", name), value)
        return canvas(page, "after")[..., :3].mean() / 255

    before = canvas(page, "before")[..., :3].mean() / 255
    assert put("target", 0.3) == pytest.approx(0.3, abs=0.02)
    brighter = put("target", 0.5)
    assert brighter > 0.45
    assert put("strength", 0.5) == pytest.approx((brighter + before) / 2, abs=0.01)
    assert put("strength", 0) == pytest.approx(before)


def test_the_result_is_saved(page, tmp_path):
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    expected = canvas(page, "after")
    page.execute_script("name = 'photo.png'")
    page.find_element("id", "save").click()
    file = tmp_path / "photo-curve.png"
    wait(page, lambda _: file.exists())
    assert np.array_equal(Image.open(file).convert("RGBA"), expected)
