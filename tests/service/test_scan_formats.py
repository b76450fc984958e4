"""What other programs read: valid, complete, and harmless whatever a BMC says."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from scan_rig import Rig, away, rig

from metalimmu.service.scans.formats import COLUMNS, cell, write
from metalimmu.service.scans.result import ScanResult
from metalimmu.service.scans.scan import scan

NASTY = {
    "a": '=HYPERLINK("http://evil","x")',
    "b": "two\r\nlines, and \x00\x1b[31m red",
    "c": '<script>alert("1")</script> & ]]>',
    "d": "-2+3+cmd|' /C calc'!A0",
    "e": "\u202egnirts \ud800 \ufffe",
}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Rig]:
    made = rig(tmp_path, *NASTY, "good", "gone")
    for name, value in NASTY.items():
        made.machines[name].settings["bios.Turbo"] = value if "\ud800" not in value else value.replace("\ud800", "?")
    made.machines["gone"].failure = away("<gone>")
    yield made
    made.close()


def written(result: ScanResult, fmt: str, **options) -> str:
    out = io.StringIO(newline="")
    write(result, fmt, out, **options)
    return out.getvalue()


def test_csv_is_rfc_4180_and_no_formula(fleet):
    text = written(scan(fleet.site(), read=fleet.read), "csv")
    assert text.count("\r\n") == text.count("\n") == 1 + len(NASTY)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert tuple(rows[0]) == COLUMNS
    actual = {r["host"]: r["actual"] for r in rows}
    assert actual["a"].startswith("'=")
    assert actual["d"].startswith("'-")
    assert "\\x0d\\x0a" in actual["b"]
    assert "\\x1b" in actual["b"]
    assert actual["c"] == NASTY["c"]
    assert all(c.isprintable() for value in actual.values() for c in value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("-5", "-5"),
        ("+1.5", "+1.5"),
        ("=1", "'=1"),
        ("@x", "'@x"),
        ("-x", "'-x"),
        (True, "true"),
        (None, ""),
        (3, "3"),
        ("\t=1", "\\x09=1"),
    ],
)
def test_cells(value, shown):
    assert cell(value) == shown


def test_junit_is_valid_xml_and_counts_right(fleet):
    root = ET.fromstring(written(scan(fleet.site(), read=fleet.read), "junit"))
    suites = {s.get("name"): s for s in root}
    assert set(suites) == {*NASTY, "good", "gone"}
    for suite in suites.values():
        assert int(suite.get("tests")) == len(suite.findall("testcase"))
        assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("errors")) == len(suite.findall("testcase/error"))
    assert suites["good"].get("failures") == suites["good"].get("errors") == "0"
    assert suites["a"].get("failures") == "1"
    assert "<gone>" in suites["gone"].find("testcase/error").get("message")
    assert "<script>" in suites["c"].find("testcase/failure").get("message")


def test_junit_with_matches(fleet):
    root = ET.fromstring(written(scan(fleet.site(), read=fleet.read), "junit", matches=True))
    good = next(s for s in root if s.get("name") == "good")
    assert [c.get("name") for c in good] == ["bios.Sriov", "bios.Turbo"]
    assert not good.findall("testcase/*")


def test_json(fleet):
    data = json.loads(written(scan(fleet.site(), read=fleet.read), "json"))
    assert data["states"] == {"drift": 5, "match": 1, "unknown": 1}
    assert data["unread"][0]["examples"] == ["gone"]
    assert {d["host"]: d["actual"] for d in data["details"]}["c"] == NASTY["c"]
    assert [d["host"] for d in data["details"]] == sorted(NASTY)
    more = json.loads(written(scan(fleet.site(), read=fleet.read), "json", matches=True))
    assert len(more["details"]) == 12


def test_json_of_nothing_found(tmp_path):
    made = rig(tmp_path, "a")
    assert json.loads(written(scan(made.site(), read=made.read), "json"))["details"] == []
    made.close()


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)

    def handle_data(self, data) -> None:
        self.text += data


def test_html_shows_text_and_runs_nothing(fleet):
    page = Tags()
    page.feed(written(scan(fleet.site(), read=fleet.read), "html"))
    assert "script" not in page.tags
    assert NASTY["c"] in page.text


def test_a_stale_or_waived_finding_says_so(fleet):
    scan(fleet.site(), read=fleet.read)
    fleet.machines["a"].failure = away()
    (fleet.folder / "waivers.yaml").write_text(
        "- {hosts: [c], setting: bios.Turbo, actual: '" + NASTY["c"] + "', until: '2999-01-01', reason: r}\n"
    )
    result = scan(fleet.site(), read=fleet.read)
    rows = {d["host"]: d for d in json.loads(written(result, "json"))["details"]}
    assert rows["a"]["stale"] is True
    assert rows["c"]["waived"] == "until 2999-01-01: r"
    root = ET.fromstring(written(result, "junit"))
    assert next(s for s in root if s.get("name") == "c").get("skipped") == "1"
