"""The profile's page, opened by a browser from a file, without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.profiling import Consumer, Profile, html_report
from ingest.profiling.advice import Advice, Target

RESULT = Profile(
    shards="/data/a-folder-whose-name-is-longer-than-any-telephone-is-wide/<b>&amp;</b>/shards/train",
    format="tfrecord",
    encoding="keep",
    records=1_281_167,
    size_bytes=147_000_000_000,
    batch_size=256,
    image_size=224,
    channels=3,
    workers=64,
    cores=64,
    stages={
        "read": 5.1,
        "parse": 4.2,
        "crop": 1.3,
        "decode": 12_671.5,
        "resize": 145.6,
        "batch": 2.7,
        "ipc": 1.8,
        "disk read": 200.9,
    },
    disk_read_microseconds=200.9,
    fits_in_memory=False,
    feed_microseconds=12.3,
    by_workers={1: 1100.0, 2: 2150.0, 64: 61_234.0},
    alone=70_000.0,
    ceiling=44_000.0,
    against={"ingest": 2000.0, "naive": 288.0, "tf.data": 1204.0, "tensorpack": 718.0},
    consumer=Consumer("training alexnet-two-tower", 61_000.0, 0.0),
    limit="decode",
    verdict="decode-bound: 61,234 images/s with 64 workers, 87% of what this CPU can decode",
    advice=(
        Advice(
            workers=None,
            packing="--encoding jpeg --resize 256",
            predicted=150_000.0,
            size_bytes=40_000_000_000,
            measured=149_000.5,
        ),
        Advice(32, "--encoding raw --resize 256", 1_350_000.0, 260_000_000_000),
    ),
    target=Target(2375.0, "ResNet-50, mixed precision and XLA, on an A100 40 GB", 3, {"--encoding raw": 1}),
    machine={"processor": "A Processor With A Very Long Name (R) (TM) CPU @ 2.00GHz", "cores": "64"},
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if not (chromium and driver):
        # Where a browser was promised, as in CI, its absence is a fault.
        assert not os.environ.get("INGEST_BROWSER"), "no chromium and chromedriver in PATH"
        pytest.skip("no chromium and chromedriver in PATH (Debian: apt install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.execute_cdp_cmd("Network.enable", {})
    opened.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield opened
    opened.quit()


CUT_OFF = """
return Array.from(document.body.querySelectorAll('*'))
  .filter(e => { const r = e.getBoundingClientRect();
                 return r.left < 0 || r.right > window.innerWidth + 1
                     || e.clientWidth && e.scrollWidth > e.clientWidth + 1; })
  .map(e => e.outerHTML.slice(0, 100));
"""

CONTRAST = """
const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
                       .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                     return .2126 * r + .7152 * g + .0722 * b; };
const page = light(getComputedStyle(document.body).backgroundColor);
return Math.min(...Array.from(document.body.querySelectorAll('h1, h2, p, span, small, td, th, caption'))
  .map(e => light(getComputedStyle(e).color))
  .map(text => (Math.max(page, text) + .05) / (Math.min(page, text) + .05)));
"""


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(browser: Any, tmp_path: Path, width: int, scheme: str):
    path = tmp_path / "profile.html"
    path.write_text(html_report.render(RESULT))
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(path.as_uri())
    assert browser.get_log("browser") == []
    assert browser.execute_script(CUT_OFF) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    # W3C's WCAG 2.1, 1.4.3, asks for 4.5 at the least.
    assert browser.execute_script(CONTRAST) >= 4.5
    darkness = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (darkness == "rgb(255, 255, 255)") == (scheme == "light")
    shown = browser.execute_script("return document.body.innerText")
    assert RESULT.verdict in shown and "/<b>&amp;</b>/shards/train" in shown and "1,350,000" in shown
