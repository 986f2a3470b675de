"""A real browser without a window, which notes what pages say on its console and what they ask the network for."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DRAWN = "return document.documentElement.dataset.drawn"
PATIENCE = 60.0
"""Seconds that a page may take on a busy machine."""


class Page:
    """A page that was opened from disk and has drawn its charts."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver = driver
        self.path = path
        # What a browser asks for by itself when it starts (its page for new tabs) is none of this page's doing.
        driver.get("about:blank")
        driver.get_log("performance")
        driver.get(path.as_uri())
        self.wait_until(DRAWN)

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def wait_until(self, condition: str) -> Any:
        """Waits until the script returns something true, and returns it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := self.run(condition):
                return found
            time.sleep(0.05)
        raise AssertionError(f"never became true: {condition}")

    def complaints(self) -> list[str]:
        """What was written to the console: errors and warnings."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for; data: addresses are part of the page."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        addresses = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in addresses if not address.startswith("data:")]

    def marks(self, chart: str) -> int:
        """How many points, lines, bars and cells a chart has drawn."""
        selector = ".mark-symbol path, .mark-line path, .mark-rect path, .mark-rule line"
        found = self.run(f"return document.querySelectorAll('#chart-{chart} svg').length")
        assert found == 1, f"chart {chart} is not there"
        return int(
            self.run(
                f"return [...document.querySelectorAll('#chart-{chart} svg')][0].querySelectorAll('{selector}').length"
            )
        )

    def picture(self, file: Path) -> None:
        """The whole page as an image."""
        size = self.run("return [innerWidth, document.documentElement.scrollHeight]")
        _set_size(self.driver, size[0], min(size[1], 8000))
        self.driver.save_screenshot(str(file))


@contextmanager
def opened(path: Path, folder: Path, width: int, *, dark: bool = False) -> Iterator[Page]:
    """The page in a new browser of this width in pixels, with an empty profile in `folder`.

    The test is skipped where there is no Chromium or no selenium.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver_path = shutil.which("chromedriver")
    if chromium is None or driver_path is None:
        pytest.skip("no chromium with chromedriver is installed (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={folder / f'profile-{width}-{dark}'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.chrome.service.Service(driver_path)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.set_page_load_timeout(PATIENCE)
        _set_size(driver, width, 900)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield Page(driver, path)
    finally:
        driver.quit()


def _set_size(driver: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
