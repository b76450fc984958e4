"""The report in a real browser: what a person sees, and that no text of a machine acts."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_cases import HOSTILE, empty, hostile, large

from metalimmu.service.report import charts
from metalimmu.service.report.data import Line, ReportData
from metalimmu.service.report.page import render
from metalimmu.service.report.timeline import Span, Timeline, moments

CHROMIUM = shutil.which("chromium") or "chromium"


class Browser:
    """Headless Chromium, a fresh profile for each page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _run(self, html: str, *args: str) -> str:
        page = self._folder / "page.html"
        page.write_text(html, encoding="utf-8")
        done = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
             "--disable-dev-shm-usage", "--hide-scrollbars", "--virtual-time-budget=2000", "--enable-logging=stderr", "--v=0",
             f"--user-data-dir={self._folder / 'profile'}", *args, page.as_uri()],
            capture_output=True, timeout=120, check=True,
        )  # fmt: skip
        self.log = done.stderr.decode(errors="replace")
        return done.stdout.decode()

    def dom(self, html: str) -> str:
        return self._run(html, "--dump-dom")

    def screenshot(self, html: str, *, width: int = 1200, height: int = 1600, dark: bool = False) -> bytes:
        shot = self._folder / "shot.png"
        args = ["--force-dark-mode", "--enable-features=WebContentsForceDark:none"] if dark else []
        self._run(html, f"--window-size={width},{height}", f"--screenshot={shot}", *args)
        return shot.read_bytes()


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser(tmp_path)


def pixels(png: bytes) -> tuple[int, int, list[tuple[int, ...]]]:
    """Width, height and every 101st pixel: enough of a decoder for what Chromium writes (8 bits, no interlace)."""
    width, height = int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
    assert png[24] == 8
    step = {2: 3, 6: 4}[png[25]]
    data, at = b"", 8
    while at < len(png):
        size, kind = int.from_bytes(png[at : at + 4]), png[at + 4 : at + 8]
        if kind == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += 12 + size
    raw, line = zlib.decompress(data), width * step
    before, rows = bytearray(line), []
    for y in range(height):
        kind, row = raw[y * (line + 1)], bytearray(raw[y * (line + 1) + 1 : (y + 1) * (line + 1)])
        for i in range(line):
            left = row[i - step] if i >= step else 0
            corner = before[i - step] if i >= step else 0
            if kind == 4:
                p = left + before[i] - corner
                a, b, c = abs(p - left), abs(p - before[i]), abs(p - corner)
                guess = left if a <= b and a <= c else before[i] if b <= c else corner
            else:
                guess = (0, left, before[i], (left + before[i]) // 2)[kind]
            row[i] = (row[i] + guess) & 255
        rows.append(bytes(row))
        before = row
    return width, height, [tuple(row[i : i + 3]) for row in rows[::7] for i in range(0, line, step * 13)]


class Parts(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def readable(dom: str) -> str:
    text = "".join(Parts(re.sub(r"<style>.*?</style>", "", dom, flags=re.DOTALL)).text)
    return re.sub(r"\s+", " ", text.replace("\u202f", ""))


def test_what_a_person_reads(browser: Browser) -> None:
    dom = browser.dom(render(large()))
    text = readable(dom)
    assert "9310 of 10000 hosts are as they must be." in text
    for words in ("548drifted", "1312findings that are drift", "and 51 more settings", "10.12.0.7: no answer within 10 s", "41 scans",
                  "Dell Inc. PowerEdge R750", "61 of 412", "and 3 more outliers", "and 498 more hosts", "waived until 2027-01-01: waits for a part"):  # fmt: skip
        assert words in text, words
    assert "and 300 more" in text  # 500 hosts behind one change: 200 are named
    tags = [t for t, _ in Parts(dom).tags]
    assert tags.count("path") >= 3 + 2 * (8 + 8)
    assert "Refused to" not in browser.log, browser.log  # its own style passes its own policy


def test_it_is_one_file_that_loads_nothing_and_runs_nothing(browser: Browser) -> None:
    for data in (large(), hostile(), empty()):
        html = render(data)
        parts = Parts(html)
        for tag, attrs in parts.tags:
            assert tag not in {"script", "iframe", "object", "embed", "link", "img", "base", "form", "a"}, tag
            assert not [a for a in attrs if a.startswith("on") or a in {"href", "src", "style", "action", "srcset"}]
        assert "@import" not in html
        assert "url(" not in html
        (policy,) = [a["content"] for t, a in parts.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]  # fmt: skip
        assert str(policy).startswith("default-src 'none'; style-src 'sha256-")
        assert html.count("http") == html.count("http-equiv")
    assert len(render(large())) < 300_000


def test_hostile_text_is_only_text(browser: Browser) -> None:
    html = render(hostile())
    dom = browser.dom(html)
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert title is not None
    assert "owned" in title[1]  # as text of the site's name; a script would have made it all there is
    assert title[1] != "owned"
    assert readable(title[1]).strip() != "owned"
    tags = {t for t, _ in Parts(dom).tags}
    assert "script" not in tags
    assert "img" not in tags
    assert sum(t == "style" for t, _ in Parts(dom).tags) == 1
    text = readable(dom)
    for said in HOSTILE[:8]:
        assert re.sub(r"\s+", " ", said) in text, said
    assert "\u202e" not in dom
    assert "\\u202egnp.exe" in text
    assert "\x1b" not in dom
    assert {a for _, attrs in Parts(dom).tags for a in attrs if a.startswith("on")} == set()


def test_a_report_without_escaping_would_be_caught(browser: Browser) -> None:
    """The probe above can fail: the same text in a page that escapes nothing does act."""
    dom = browser.dom(f"<html><head><title>x</title></head><body>{HOSTILE[0]}{HOSTILE[4]}</body></html>")
    assert "<title>owned</title>" in dom


def test_even_without_escaping_the_policy_holds(browser: Browser) -> None:
    html = render(large()).replace(
        "<h1>ams1</h1>", f"<h1>{HOSTILE[0]}</h1><img src=x onerror=\"document.title='owned'\">"
    )
    dom = browser.dom(html)
    assert "<title>ams1" in dom
    assert "<title>owned" not in dom


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_looked_at(browser: Browser, dark: bool) -> None:
    html = render(large())
    if dark:  # headless Chromium has no switch for it: the page's own rules for it, without their condition
        html = _unconditional(html, "(prefers-color-scheme: dark)")
    width, height, seen = pixels(browser.screenshot(html, height=900, dark=dark))
    assert (width, height) == (1200, 900)
    counts = {c: seen.count(c) for c in set(seen)}
    common = max(counts, key=counts.__getitem__)
    assert counts[common] < 0.9 * len(seen)
    assert len(counts) > 20
    assert (sum(common) < 200) is dark
    good = (69, 185, 140) if dark else (47, 158, 116)
    assert counts.get(good, 0) > 50  # the bar of hosts that are as they must be


def _unconditional(html: str, condition: str) -> str:
    """The page with that media query always true; its style's hash goes along."""
    import base64
    import hashlib

    (css,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    changed = css.replace(f"@media {condition}", "@media all")
    assert changed != css

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return html.replace(css, changed).replace(digest(css), digest(changed)).replace(digest(css).replace("+", "&#43;"), digest(changed))  # fmt: skip


def test_an_empty_site(browser: Browser) -> None:
    text = readable(browser.dom(render(empty())))
    assert "There are no hosts." in text
    assert "never scanned" in text
    assert "One scan is no history yet." in text
    assert len(browser.screenshot(render(empty()), height=800)) > 5_000


# charts and timeline


def test_bars_show_what_is_there_however_small() -> None:
    segments = charts.bar({"match": 9999, "drift": 1, "unknown": 0})
    assert [s.name for s in segments] == ["match", "drift"]
    assert segments[1].width >= 4
    assert segments[0].x == 0
    assert segments[-1].x + segments[-1].width == pytest.approx(1000, abs=0.1)
    assert charts.bar({}) == []
    assert charts.bar({"match": 0}) == []


@pytest.mark.parametrize(("most", "top"), [(0, 4), (3, 4), (5, 5), (11, 20), (99, 100), (401, 500), (812, 1000), (10_000, 10_000)])  # fmt: skip
def test_an_axis_ends_at_a_round_number(most: float, top: float) -> None:
    assert charts.nice(most) == top


def test_areas_stand_on_each_other_within_the_box() -> None:
    stack = charts.stack([Line(name="a", values=(1, 2)), Line(name="b", values=(3, 2))], (0.0, 86400.0 * 10))
    assert stack is not None
    numbers = [float(n) for a in stack.areas for n in re.findall(r"-?[0-9.]+", a.path)]
    assert min(numbers) >= 0
    assert max(numbers) <= charts.WIDTH
    assert [t.label for t in stack.y_ticks] == ["0", "1", "2", "3", "4"]
    assert charts.stack([Line(name="a", values=(1,))], (0.0,)) is None
    assert charts.stack([Line(name="a", values=(0, 0))], (0.0, 1.0)) is None


def test_the_timeline_counts_what_was_open_at_each_moment() -> None:
    times = moments(0.0, 40.0, 5)
    assert times == (0.0, 10.0, 20.0, 30.0, 40.0)
    timeline = Timeline(times)
    timeline.add("a", Span(-5.0, None))  # since before
    timeline.add("a", Span(10.0, 30.0))  # begins at a moment, ends at another
    timeline.add("a", Span(11.0, 19.0))  # between two
    timeline.add("b", Span(39.0, None))
    assert timeline.lines() == (Line(name="a", values=(1, 2, 2, 1, 1)), Line(name="b", values=(0, 0, 0, 0, 1)))
    assert [line.name for line in timeline.lines(order=("b", "c"))] == ["b", "c"]
    assert len(timeline.lines(most=1)) == 1
    assert moments(5.0, 5.0) == (5.0,)


def test_a_report_of_nothing_says_so() -> None:
    data = ReportData(site="s", version="1", generated=1.0, hosts=3, states={"match": 3}, times=(0.0, 1.0))
    html = render(data)
    assert "All 3 hosts are as they must be." in html
    assert "No drift in this time." in html
    assert "Every host was read." in html
