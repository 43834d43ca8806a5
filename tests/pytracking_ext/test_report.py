"""The HTML report: contents, self-containment, and its behaviour in headless Chromium."""

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from matplotlib.figure import Figure

from ltr_ext.dataset.kinds import KINDS, Split
from pytracking_ext.analysis.conventions import convention
from pytracking_ext.analysis.frames import Prediction, SequenceTruth
from pytracking_ext.analysis.scoring import score_benchmark
from pytracking_ext.report import write_report
from pytracking_ext.report.charts import line_chart, radar_chart
from pytracking_ext.report.figures import write_figures
from pytracking_ext.report.films import film
from pytracking_ext.report.plots import Plot
from srft_plugin.errors import UserError


@pytest.fixture
def report(tmp_path, white_square, monkeypatch):
    """A report of two trackers on all of three sequences, one of whose names is hostile."""
    monkeypatch.setitem(KINDS["depthtrack"].splits, "test", Split(("test",), count=3))
    names = ("bag", "cup", "</script><b>x")
    sequences = [white_square(name, speed=n + 1, length=20) for n, name in enumerate(names)]
    truths = {
        s.name: SequenceTruth(s.boxes, (160, 120), attributes=("dark", "fast", "small"))
        for s in sequences
    }
    rng = np.random.default_rng(0)
    predictions = {
        label: {
            s.name: Prediction(
                s.boxes + rng.normal(0, spread, s.boxes.shape), rng.random(20), np.full(20, 0.02)
            )
            for s in sequences
        }
        for label, spread in (("mine", 1), ("other & co" + "_and_a_long_name" * 4, 4))
    }
    headers = {"mine": {"parameters_m": 92.12, "gflops": 58.1, "device": "a GPU", "batch": 16}}
    how = convention("depthtrack")
    scores = {label: score_benchmark(truths, p, how) for label, p in predictions.items()}
    return write_report(
        tmp_path / "report", "depthtrack", sequences, scores, predictions, headers
    ), scores


def test_the_page_is_complete_and_needs_nothing_else(report):
    page, scores = report
    text = page.read_text()
    for part in ("Scores", "Curves", "Attributes", "Speed and size", "Films", "Sequences"):
        assert f"<h2>{part}</h2>" in text
    assert f"<td>{100 * scores['mine'].total['F']:.1f}</td>" in text
    row = "<td>mine</td><td>92.1</td><td>58.1</td><td>50.0</td><td>16</td><td>a GPU</td>"
    assert row in text
    assert "SRFT (OSTrack-B256)" in text and "other &amp; co" in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "http" not in text.replace("http://www.w3.org", "")
    assert "<b>x" not in text  # names are text, never markup
    names = {path.name for path in page.parent.iterdir()}
    assert names == {"report.html"} | {
        f"{stem}.{kind}"
        for stem in ("success", "precision", "precision_recall", "f_measure", "radar")
        for kind in ("pdf", "png")
    }
    assert (page.parent / "success.pdf").read_bytes().startswith(b"%PDF")


def test_a_full_disk_leaves_the_figure_that_was_there(tmp_path, monkeypatch):
    plot = Plot("success", "x", "y", {"mine": ([0, 1], [1, 0])})
    write_figures(tmp_path, [plot])
    before = (tmp_path / "success.pdf").read_bytes()

    def half(self, path, **options):
        path.write_bytes(b"%PDF")
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(UserError, match="success.pdf: no space left"):
        write_figures(tmp_path, [plot])
    assert (tmp_path / "success.pdf").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"success.pdf", "success.png"}


def test_a_result_that_ends_early_ends_early_in_the_film(white_square):
    sequence = white_square(length=10)
    html = film(sequence, [Prediction(sequence.boxes[:4])], "")
    shown = json.loads(re.search('json">(.*)</script>', html)[1])
    truth, found = shown["tracks"]
    assert found == truth[:4] + [None] * 6 and None not in truth


def test_charts_draw_what_they_are_given():
    svg = line_chart({"a<b": ([0, 1], [0, 1])}, "x", "y")
    assert "M46.0 260.0L408.0 14.0" in svg and "a&lt;b" in svg
    radar = radar_chart({"a": {"n": 1.0, "e": 0.5, "s": 0.0, "w": 0.5}})
    assert "175.0,65.0 230.0,175.0 175.0,175.0 120.0,175.0" in radar


class Browser:
    """Headless Chromium through ChromeDriver's HTTP interface."""

    def __init__(self, profile):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.url = f"http://127.0.0.1:{port}"
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update",
                     "--disable-sync", f"--user-data-dir={profile}"]  # fmt: skip
        wanted = {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        for _ in range(100):
            try:
                answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
                break
            except urllib.error.URLError as error:
                reason = error
                time.sleep(0.1)
        else:
            self.driver.kill()
            pytest.skip(f"chromedriver starts no browser: {reason}")
        self.url += f"/session/{answer['sessionId']}"

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page):
        self.call("POST", "/url", {"url": page.as_uri()})

    def js(self, script):
        return self.call("POST", "/execute/sync", {"script": f"return {script}", "args": []})

    def click(self, selector, index=0):
        found = self.call("POST", "/elements", {"using": "css selector", "value": selector})
        (element,) = found[index].values()
        self.call("POST", f"/element/{element}/click", {})

    def wait(self, script):
        for _ in range(100):
            if self.js(script):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}")

    def close(self):
        self.call("DELETE", "")
        self.driver.terminate()
        self.driver.wait(10)


@pytest.fixture
def browser(tmp_path):
    if not (shutil.which("chromedriver") and shutil.which("chromium")):
        pytest.skip("chromium and chromedriver are not installed")
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


def test_the_page_works_in_a_browser(report, browser):
    browser.open(report[0])
    rows = "[...document.querySelectorAll('table')[0].tBodies[0].rows]"
    column = f"{rows}.map(row => row.cells[3].textContent)"
    browser.click("table:first-of-type th button", 3)
    falling = [float(text) for text in browser.js(column)]
    assert falling == sorted(falling, reverse=True)
    browser.click("table:first-of-type th button", 3)
    assert [float(text) for text in browser.js(column)] == falling[::-1]
    browser.click("table:first-of-type th button", 4)  # IoU: the published rows have none
    assert [text == "-" for text in browser.js(column.replace("[3]", "[4]"))] == [False] * 2 + [
        True
    ] * (len(falling) - 2)

    folded = "document.querySelector('details table')"
    assert browser.js("document.querySelectorAll('details').length") == 5  # F is open
    assert not browser.js(f"{folded}.checkVisibility()")
    browser.click("summary")
    assert browser.js(f"{folded}.checkVisibility()")

    canvas = "document.querySelector('.film canvas')"
    browser.wait(f"{canvas}.getContext('2d').getImageData(0, 0, 160, 120).data.some(v => v > 200)")
    first = browser.js(f"{canvas}.toDataURL()")
    browser.click(".film button")
    browser.wait(f"{canvas}.toDataURL() !== {json.dumps(first)}")
    assert browser.js("document.querySelector('.film button').textContent") == "stop"
    browser.click(".film button")

    paper = "getComputedStyle(document.body).backgroundColor"
    light = browser.js(paper)
    browser.click("#theme")
    assert browser.js(paper) != light

    browser.call("POST", "/goog/cdp/execute", {
        "cmd": "Emulation.setDeviceMetricsOverride",
        "params": {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True},
    })  # fmt: skip
    assert browser.js("document.documentElement.scrollWidth <= 360")
    assert browser.call("POST", "/se/log", {"type": "browser"}) == []
