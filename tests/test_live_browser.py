"""The live page in a browser: the picture moves, every switch acts, the figures are there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from live_for_tests import LABELS, LivePage
from midgrain.video import Controls, Settings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-dev-shm-usage", "--window-size=1200,1000"),
)
WAIT = 60.0
SIZE = (96, 160)
pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs Chromium and chromedriver")
PIXELS = """
const screen = document.getElementById("screen");
const data = screen.getContext("2d").getImageData(0, 0, screen.width, screen.height).data;
return [screen.height, screen.width, Array.from(data)];
"""


class Browser:
    """One browser with one page."""

    def __init__(self):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))

    def open(self, url: str) -> None:
        self.driver.get(url)
        self.until(lambda: self.shown > 1)

    def find(self, name: str):
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return self.driver.execute_script("return document.getElementById(arguments[0]).textContent", name)

    def slide(self, name: str, value: int) -> None:
        """As a finger does: a range has no keys that reach a value at once."""
        script = """
        const slider = document.getElementById(arguments[0]);
        slider.value = arguments[1];
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        slider.dispatchEvent(new Event("change", { bubbles: true }));
        """
        self.driver.execute_script(script, name, value)

    @property
    def shown(self) -> int:
        """Pictures that were drawn so far."""
        return int(self.driver.execute_script("return document.documentElement.dataset.shown ?? 0"))

    @property
    def pixels(self) -> np.ndarray:
        """What is on the screen, int [H, W, 3]."""
        height, width, values = self.driver.execute_script(PIXELS)
        return np.array(values).reshape(height, width, 4)[..., :3]

    @property
    def complaints(self) -> list[str]:
        """What the browser has to complain of."""
        messages = [
            each["message"] for each in self.driver.get_log("browser") if each["level"] in ("SEVERE", "WARNING")
        ]
        return [text for text in messages if "willReadFrequently" not in text]  # That is these tests' reading.

    def until(self, holds: Callable[[], object]) -> None:
        end = time.monotonic() + WAIT
        while not holds():
            assert time.monotonic() < end, self.driver.execute_script("return document.body.innerText")
            time.sleep(0.05)


@pytest.fixture(scope="module")
def browsers():
    """Two of them."""
    browsers = [Browser(), Browser()]
    yield browsers
    for browser in browsers:
        browser.driver.quit()


@pytest.fixture
def page():
    with LivePage() as page:
        yield page


@pytest.fixture
def browser(browsers, page):
    """The first one, at the page."""
    browser = browsers[0]
    browser.open(page.url)
    yield browser
    assert browser.complaints == []
    browser.driver.get("about:blank")


def colourful(pixels: np.ndarray) -> float:
    """0 for grey pictures."""
    return float(np.ptp(pixels, axis=-1).mean())


def test_the_picture_moves(browser) -> None:
    first = browser.pixels
    assert first.shape == (*SIZE, 3)
    assert colourful(first) > 50
    browser.until(lambda: np.abs(browser.pixels - first).mean() > 5)
    number, shown = int(browser.text("number")), browser.shown
    browser.until(lambda: int(browser.text("number")) > number and browser.shown > shown)
    assert browser.text("state-text") == "live"
    assert browser.find("target").text == "class 3"
    assert browser.find("empty").is_displayed() is False


def test_figures_and_texts_appear_and_nothing_in_them_runs(browser, page) -> None:
    for name in ("drawn-p50", "drawn-p95", "sent-p50", "sent-p95", "shown-p50", "shown-p95"):
        browser.until(lambda name=name: browser.text(name).endswith(" ms"))
    assert browser.text("drawn-p50") == "4 ms"
    assert (browser.text("dropped"), browser.text("rate"), browser.text("viewers")) == ("7", "25.0", "1")
    assert browser.text("skipped").isdecimal()
    browser.until(lambda: browser.text("windows")[0].isdecimal())
    assert 4 < float(browser.text("windows")) < 6  # Five, but for the one that falls inside or outside.
    assert browser.driver.title == "A stream of <stripes>"
    assert browser.find("title").text == "A stream of <stripes>"
    browser.until(lambda: "the camera <b>blinked</b>" in browser.find("notices").text)
    legend = browser.find("legend").text
    assert LABELS[10] in legend
    assert "%" in legend
    assert "draw" in browser.text("stages")
    assert browser.driver.find_elements(By.CSS_SELECTOR, "main b, main img") == []


def test_the_plot_draws_the_probabilities(browser) -> None:
    ink = """
    const plot = document.getElementById("plot");
    const data = plot.getContext("2d").getImageData(0, 0, plot.width, plot.height).data;
    let count = 0;
    for (let i = 0; i < data.length; i += 4) {
      const colour = [data[i], data[i + 1], data[i + 2]];
      count += data[i + 3] > 0 && Math.max(...colour) - Math.min(...colour) > 60;
    }
    return count;
    """
    early = browser.driver.execute_script(ink)
    browser.until(lambda: browser.driver.execute_script(ink) > early + 100)
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, "#legend li")) == 3


def test_every_switch_acts(browser, page) -> None:
    browser.slide("alpha", 0)
    browser.until(lambda: colourful(browser.pixels) < 3)
    assert page.controls.now.alpha == 0
    assert browser.text("alpha-value") == "0 %"
    browser.slide("alpha", 80)
    browser.until(lambda: colourful(browser.pixels) > 100)

    Select(browser.find("method")).select_by_value("gradcam")
    browser.until(lambda: browser.text("method-now") == "gradcam")
    assert browser.text("method-line") == "Grad-CAM: the last layer's activations"
    assert page.controls.now.method == "gradcam"

    assert browser.find("n-segments-auto").is_selected()
    browser.slide("n-segments", 100)
    browser.until(lambda: page.controls.now.n_segments == 2000)
    assert browser.text("n-segments-value") == "2000"
    assert not browser.find("n-segments-auto").is_selected()
    browser.until(lambda: browser.pixels[..., 1].mean() > 90)  # A green border at every other pixel.
    browser.find("n-segments-auto").click()
    browser.until(lambda: page.controls.now.n_segments is None)

    browser.find("contours").click()
    browser.until(lambda: page.controls.now.contours is False)
    browser.until(lambda: browser.pixels[..., 1].mean() < 60)

    browser.find("side-by-side").click()
    browser.until(lambda: browser.pixels.shape == (SIZE[0], 2 * SIZE[1], 3))
    left, right = np.split(browser.pixels, 2, axis=1)
    assert colourful(left) < 5 < colourful(right)


def test_the_class_is_chosen_by_name_by_number_and_by_the_keyboard(browser, page) -> None:
    field = browser.find("target-name")
    options = browser.driver.find_elements(By.CSS_SELECTOR, "#classes option")
    assert [each.get_attribute("value") for each in options][-2:] == ["crane (11)", "crane (12)"]
    for text, index in (("Class 7", 7), ("crane (12)", 12), ("4", 4)):
        field.send_keys(Keys.CONTROL + "a", Keys.NULL, text, Keys.ENTER)
        browser.until(lambda index=index: page.controls.now.target == index)
        browser.until(lambda index=index: browser.text("target") == LABELS[index])
    assert field.get_attribute("value") == "class 4 (4)"
    field.send_keys(Keys.CONTROL + "a", Keys.NULL, "cran", Keys.ENTER)
    browser.until(lambda: browser.text("target-error").startswith("there is no class “cran”; there are crane"))
    assert field.get_attribute("value") == "class 4 (4)"
    field.send_keys(Keys.CONTROL + "a", Keys.NULL, "99", Keys.ENTER)
    browser.until(lambda: browser.text("target-error") == "target: expected a class 0 .. 12, got 99")
    browser.until(lambda: field.get_attribute("value") == "class 4 (4)")
    browser.driver.get_log("browser")  # It complains of the answer 400.
    browser.find("target-predicted").click()
    browser.until(lambda: page.controls.now.target is None)
    assert field.get_attribute("value") == ""
    assert browser.text("target-error") == ""


def test_a_refused_change_is_explained_and_put_back(browser, page) -> None:
    Select(browser.find("method")).select_by_value("gradcam")
    browser.until(lambda: page.controls.now.method == "gradcam")
    page.feeder.complaints.append("settings: gradcam: this network has no layer")
    page.controls.change(method=None)
    browser.until(lambda: browser.text("method-error") == "gradcam: this network has no layer")
    browser.until(lambda: browser.find("method").get_attribute("value") == "swag-ig")
    option = "#method option[value=gradcam]"
    browser.until(lambda: not browser.driver.find_element(By.CSS_SELECTOR, option).is_enabled())


def test_viewers_see_one_anothers_switches(browsers, browser, page) -> None:
    other = browsers[1]
    other.open(page.url)
    browser.until(lambda: browser.text("viewers") == other.text("viewers") == "2")
    other.slide("alpha", 20)
    other.find("contours").click()
    browser.until(lambda: browser.text("alpha-value") == "20 %")
    browser.until(lambda: not browser.find("contours").is_selected())
    Select(browser.find("method")).select_by_value("sobel")
    other.until(lambda: other.find("method").get_attribute("value") == "sobel")
    other.until(lambda: other.text("method-now") == "sobel")
    assert other.complaints == []
    other.driver.get("about:blank")
    browser.until(lambda: browser.text("viewers") == "1")


def test_pause_stops_the_picture_of_this_viewer_alone(browsers, browser, page) -> None:
    other = browsers[1]
    other.open(page.url)
    browser.driver.find_element(By.TAG_NAME, "body").send_keys(" ")
    assert browser.find("pause").get_attribute("aria-pressed") == "true"
    time.sleep(0.5)
    frozen, shown, elsewhere = browser.pixels, browser.shown, other.shown
    other.until(lambda: other.shown > elsewhere + 10)
    assert browser.shown == shown
    assert (browser.pixels == frozen).all()
    browser.find("pause").click()
    browser.until(lambda: browser.shown > shown + 1)
    assert browser.text("state-text") == "live"
    other.driver.get("about:blank")


def test_the_end_is_said_and_the_page_comes_back(browsers) -> None:
    browser = browsers[0]
    with LivePage() as page:
        port = page.server.port
        browser.open(page.url)
    browser.until(lambda: "stream ended (end of stream)" in browser.text("state-text"))
    assert browser.find("reconnect").is_displayed()
    shown = browser.shown
    with LivePage(port=port) as page:
        page.controls.change(alpha=0.0)
        browser.until(lambda: browser.text("state-text") == "live")
        browser.until(lambda: browser.shown > shown + 1)
        browser.until(lambda: browser.text("alpha-value") == "0 %")
        browser.driver.get("about:blank")


def test_the_token_leaves_the_address_and_is_kept(browsers) -> None:
    browser = browsers[0]
    with LivePage(token="a-token-of-32-letters-and-digits") as page:
        browser.open(page.url)
        assert browser.driver.current_url == page.url.partition("?")[0]
        browser.slide("alpha", 10)
        browser.until(lambda: page.controls.now.alpha == 0.1)
        browser.open(page.url.partition("?")[0])  # By the cookie.
        assert browser.driver.execute_script("return document.cookie") == ""
        assert browser.complaints == []
        browser.driver.get(page.url.replace("letters", "nothing"))
        assert "token: this is not the one" in browser.driver.find_element(By.TAG_NAME, "body").text
    browser.driver.get_log("browser")  # It complains of the answer 403.
    browser.driver.get("about:blank")


def test_every_field_has_a_name_and_can_be_reached_by_keys(browser) -> None:
    nameless = """
    return [...document.querySelectorAll("button, input, select, canvas, a")].filter((each) => {
      const label = each.labels?.length || each.getAttribute("aria-label") || each.textContent.trim();
      return !label;
    }).map((each) => each.outerHTML);
    """
    assert browser.driver.execute_script(nameless) == []
    seen = set()
    body = browser.driver.find_element(By.TAG_NAME, "body")
    body.click()
    for _ in range(16):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        seen.add(browser.driver.execute_script("return document.activeElement.id"))
    wanted = {"pause", "full", "snapshot", "method", "target-name", "n-segments", "alpha", "contours", "side-by-side"}
    assert wanted <= seen


@pytest.mark.parametrize("width", [360, 800])
def test_small_screens_need_no_scrolling_sideways(browser, width) -> None:
    metrics = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        script = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        scrolled, there = browser.driver.execute_script(script)
        assert scrolled <= there == width
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_settings_at_the_beginning_are_shown(browsers) -> None:
    page = LivePage()
    page.feeder.controls = page.controls = page.server._hub.controls = Controls(
        Settings(method="sobel", target=2, n_segments=150, alpha=0.25, contours=False, side_by_side=True)
    )
    browser = browsers[0]
    with page:
        browser.open(page.url)
        browser.until(lambda: browser.find("method").get_attribute("value") == "sobel")
        assert browser.find("target-name").get_attribute("value") == "class 2 (2)"
        assert (browser.text("n-segments-value"), browser.text("alpha-value")) == ("150", "25 %")
        assert not browser.find("contours").is_selected()
        assert browser.find("side-by-side").is_selected()
        before = json.dumps(page.controls.now.__dict__)
        time.sleep(0.3)
        assert json.dumps(page.controls.now.__dict__) == before  # Showing them changes nothing.
        browser.driver.get("about:blank")
