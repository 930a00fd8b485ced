"""The pages in a real browser: no request but the file, no console message, nothing wider than the screen."""

import itertools
import json
import os
import select
import shutil
import subprocess
import time

import pytest
from report_data import COMPARED, hostile, ordinary, recipe_run

from graphrec.report import ReportData, write_comparison, write_report, write_run_page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)"),
]


class Browser:
    """Chromium, driven over its DevTools pipe: messages are JSON ended by a zero byte."""

    def __init__(self, profile):
        from_us, self.write = os.pipe()
        self.read, to_us = os.pipe()
        shell = f'exec "$0" "$@" 3<&{from_us} 4>&{to_us}'
        command = ["bash", "-c", shell, CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, pass_fds=(from_us, to_us), stdout=quiet, stderr=quiet)
        os.close(from_us)
        os.close(to_us)
        self.numbers, self.buffer, self.events, self.session = itertools.count(1), b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def receive(self, deadline):
        while b"\0" not in self.buffer:
            if not select.select([self.read], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("Chromium did not answer")
            data = os.read(self.read, 1 << 16)
            if not data:
                raise ConnectionError("Chromium ended")
            self.buffer += data
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        number, deadline = next(self.numbers), time.monotonic() + 60
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive(deadline)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, path, width, scheme="light"):
        """Load a page at a screen width; returns the events until it was loaded."""
        self.events, deadline = [], time.monotonic() + 60
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path.as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self.receive(deadline))
        self.evaluate("document.fonts.ready.then(() => 1)")
        return self.events

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        os.close(self.read)
        os.close(self.write)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {
        "ordinary": write_report(folder / "ordinary.html", ordinary()),
        "hostile": write_report(folder / "hostile.html", hostile()),
        "empty": write_report(folder / "empty.html", ReportData(model="lr")),
        "compare": write_comparison(folder / "compare.html", COMPARED, data="clicks.parquet"),
        "run": write_run_page(folder / "run.html", recipe_run()),
    }


def complaints(events):
    """Console messages, log entries, exceptions and dialogs."""
    kinds = {
        "Runtime.consoleAPICalled",
        "Runtime.exceptionThrown",
        "Log.entryAdded",
        "Page.javascriptDialogOpening",
    }
    return [e for e in events if e.get("method") in kinds]


def requests(events):
    urls = [e["params"]["request"]["url"] for e in events if e.get("method") == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("data:")]


def test_the_checks_notice_what_they_are_for(browser, tmp_path):
    page = tmp_path / "bad.html"
    image, wide = "<img src='http://127.0.0.1:9/x.png'>", "<div style='width:5000px'>wide</div>"
    page.write_text(f"<!DOCTYPE html>{image}{wide}<script>console.log('hello')</script>")
    events = browser.open(page, 360)
    assert requests(events) == [page.as_uri(), "http://127.0.0.1:9/x.png"]
    assert {e["method"] for e in complaints(events)} == {"Runtime.consoleAPICalled", "Log.entryAdded"}
    assert browser.evaluate("document.documentElement.scrollWidth") > 360


@pytest.mark.parametrize("width", [360, 768, 1600])
@pytest.mark.parametrize("name", ["ordinary", "hostile", "empty", "compare", "run"])
def test_renders_without_network_message_or_overflow(browser, pages, name, width):
    events = browser.open(pages[name], width)
    assert requests(events) == [pages[name].as_uri()]
    assert complaints(events) == []
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.scripts.length") == 0
    outside = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre') &&
        e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
    assert browser.evaluate(outside) == []


@pytest.mark.parametrize("width", [360, 1600])
def test_figures_are_drawn_at_a_readable_size(browser, pages, width):
    browser.open(pages["ordinary"], width)
    sizes = browser.evaluate(
        "[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)"
    )
    assert len(sizes) == 9
    assert min(sizes) > 250
    letters = "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
    assert min(browser.evaluate(letters)) > 8


def test_texts_of_figures_stay_inside_them(browser, pages):
    browser.open(pages["ordinary"], 1600)
    cut = """[...document.querySelectorAll('svg')].flatMap(s => {
        const box = s.getBoundingClientRect();
        return [...s.querySelectorAll('text')].filter(t => {
            const b = t.getBoundingClientRect();
            const sides = [b.left - box.left, box.right - b.right, b.top - box.top, box.bottom - b.bottom];
            return Math.min(...sides) < -4;
        }).map(t => t.textContent)})"""
    assert browser.evaluate(cut) == []


def test_dark_mode_is_dark_with_contrast(browser, pages):
    luminance = """(c => { const [r, g, b] = c.match(/\\d+/g).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b })"""
    for scheme in ("light", "dark"):
        browser.open(pages["ordinary"], 1000, scheme)
        paper = browser.evaluate(luminance + "(getComputedStyle(document.body).backgroundColor)")
        assert (paper < 0.1) == (scheme == "dark")
        for selector, style in (
            ("body", "color"),
            (".note", "color"),
            ("nav a", "color"),
            ("svg text", "fill"),
        ):
            ink = browser.evaluate(
                f"{luminance}(getComputedStyle(document.querySelector('{selector}')).{style})"
            )
            light, dark = max(ink, paper), min(ink, paper)
            assert (light + 0.05) / (dark + 0.05) > 4.5, (scheme, selector)
