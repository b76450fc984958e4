"""Found hosts merged into what people wrote: nothing of theirs changes, and what is put in reads back as it was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metalimmu.desired.insert import dumped
from metalimmu.desired.known_hosts import bmc_key, host_name
from metalimmu.desired.load import load
from metalimmu.desired.merge import Candidate, Change, Merged, merge
from metalimmu.desired.review import review
from metalimmu.errors import SiteError, UsageError

FILE = "hosts/r12.yaml"
NEW = "hosts/discovered.yaml"

THEIRS = """\
# Rack 12. Ask Anna before you touch u07.

- name: r12-u07   # the loud one
  bmc: "redfish+https://10.12.0.7"   # behind the firewall
  role: web
  labels: {tier: front}  # who serves customers

- {name: r12-u08, bmc: redfish+https://10.12.0.8, serial: ABC1}
-
    name: r12-u09
    bmc: 'redfish+https://10.12.0.9'
    location:
        rack: r12   # the third from the door
    notes_follow_here: null
"""
THEIRS = THEIRS.replace("    notes_follow_here: null\n", "")


def found(bmc: str, name: str = "x", **fields: Any) -> Candidate:
    return Candidate({"name": name, "bmc": bmc, **fields}, "found 2026-11-20")


def merged(text: str, *candidates: Candidate, file: str = FILE, target: str = NEW) -> Merged:
    return merge({file: text.encode()}, target, candidates)


def kinds(result: Merged) -> list[str]:
    return [c.kind for c in result.changes]


def hosts(text: str) -> dict[str, Any]:
    return {h["name"]: h for h in yaml.safe_load(text)}


def added(before: str, after: str) -> list[str]:
    """Lines of `after` that are not in `before`; fails if a line of `before` is gone."""
    rest = after.splitlines()
    for line in before.splitlines():
        assert line in rest, f"lost: {line}"
        rest.remove(line)
    return rest


def test_a_missing_serial_goes_below_the_bmc_and_comments_stay() -> None:
    result = merged(THEIRS, found("redfish+https://10.12.0.7", serial="7XK2P13", vendor="dell"))
    assert kinds(result) == ["filled", "filled"]
    after = result.files[FILE]
    assert added(THEIRS, after) == ["  serial: 7XK2P13", "  vendor: dell"]
    assert after.splitlines()[3:5] == [
        '  bmc: "redfish+https://10.12.0.7"   # behind the firewall',
        "  serial: 7XK2P13",
    ]
    assert hosts(after)["r12-u07"]["serial"] == "7XK2P13"
    assert NEW not in result.files


def test_within_braces() -> None:
    result = merged(THEIRS, found("redfish+https://10.12.0.8", serial="abc1", model="R750, 2U: {x}"))
    after = result.files[FILE]
    assert hosts(after)["r12-u08"] == {
        "name": "r12-u08",
        "bmc": "redfish+https://10.12.0.8",
        "serial": "ABC1",
        "model": "R750, 2U: {x}",
    }


def test_into_mappings_that_are_there() -> None:
    result = merged(
        THEIRS,
        found("redfish+https://10.12.0.9", location={"rack": "r99", "u": 9}, tls={"fingerprint": "ab" * 32}),
        found("redfish+https://10.12.0.7", labels={"tier": "back", "gpu": "true"}),
    )
    after = hosts(result.files[FILE])
    assert after["r12-u09"]["location"] == {"rack": "r12", "u": 9}
    assert after["r12-u09"]["tls"] == {"fingerprint": "ab" * 32}
    assert after["r12-u07"]["labels"] == {"tier": "front", "gpu": "true"}
    assert "# the third from the door" in result.files[FILE]
    assert "{tier: front, gpu: 'true'}  # who serves customers" in result.files[FILE]
    differs = {(c.host, c.field, c.found, c.there) for c in result.changes if c.kind == "differs"}
    assert differs == {("r12-u09", "location.rack", "r99", "r12"), ("r12-u07", "labels.tier", "back", "front")}


def test_a_field_that_somebody_wrote_is_never_overwritten() -> None:
    result = merged(THEIRS, found("redfish+https://10.12.0.8", serial="OTHER", model="R750"))
    assert result.files == {}
    (change,) = result.changes
    assert (change.kind, change.field, change.found, change.there) == ("differs", "serial", "OTHER", "ABC1")


def test_an_emptied_field_stays_empty() -> None:
    text = "- name: a\n  bmc: redfish+https://10.0.0.1\n  model:\n"
    result = merged(text, found("redfish+https://10.0.0.1", model="R750", vendor="dell"))
    assert hosts(result.files[FILE])["a"]["model"] is None


def test_serial_first_then_address() -> None:
    result = merged(THEIRS, found("redfish+https://10.99.0.1", serial="abc1", vendor="dell"))
    assert hosts(result.files[FILE])["r12-u08"]["vendor"] == "dell"
    moved = [c for c in result.changes if c.kind == "differs"]
    assert [(c.host, c.field) for c in moved] == [("r12-u08", "bmc")]
    crossed = merged(THEIRS, found("redfish+https://10.12.0.7", serial="ABC1"))
    assert kinds(crossed) == ["differs"]
    assert "r12-u08" in crossed.changes[0].why
    assert crossed.files == {}


def test_another_scheme_of_one_bmc_is_the_same_bmc() -> None:
    assert (
        bmc_key("ipmi://10.0.0.1")
        == bmc_key("redfish+https://10.0.0.1:443/")
        == bmc_key("redfish-raw+https://10.0.0.1")
    )
    assert bmc_key("redfish+https://10.0.0.1:8443") != bmc_key("redfish+https://10.0.0.1")
    result = merged(THEIRS, found("ipmi://10.12.0.8", serial="ABC1"))
    assert kinds(result) == ["same"]


def test_new_hosts_are_appended_with_their_origin() -> None:
    result = merged(THEIRS, found("redfish+https://10.9.0.1", "n1", serial="2.10"), found("ipmi://10.9.0.2", "n2"))
    text = result.files[NEW]
    assert text.startswith("# Hosts that metalimmu found")
    assert "# found 2026-11-20\n- name: n1\n" in text
    assert hosts(text)["n1"]["serial"] == "2.10"  # text, and no number
    again = merge(
        {FILE: THEIRS.encode(), NEW: text.encode()}, NEW, [found("redfish+https://10.9.0.1", "n1", serial="2.10")]
    )
    assert (kinds(again), again.files) == (["same"], {})


@pytest.mark.parametrize(
    ("text", "indent"),
    [
        ("", ""),
        ("[]\n", ""),
        ("# nothing yet\n", ""),
        ("- name: a\n  bmc: ipmi://10.0.0.1", ""),
        ("  - name: a\n    bmc: ipmi://10.0.0.1\n", "  "),
    ],
)
def test_appending_to_what_is_there(text: str, indent: str) -> None:
    result = merged(text, found("ipmi://10.0.0.2", "b"), file=NEW)
    after = result.files[NEW]
    assert f"{indent}- name: b\n" in after
    assert [h["name"] for h in yaml.safe_load(after)][-1] == "b"


def test_appended_and_filled_in_one_file() -> None:
    result = merged(
        THEIRS, found("redfish+https://10.12.0.7", serial="S7"), found("ipmi://10.1.1.1", "new"), target=FILE
    )
    after = hosts(result.files[FILE])
    assert after["r12-u07"]["serial"] == "S7"
    assert list(after)[-1] == "new"
    assert "# Ask Anna" not in "".join(added(THEIRS, result.files[FILE]))


@pytest.mark.parametrize("text", ["name: a\nbmc: ipmi://10.0.0.1\n", "[{name: a, bmc: 'ipmi://10.0.0.1'}]\n"])
def test_what_nothing_can_be_appended_to(text: str) -> None:
    with pytest.raises(UsageError, match="nothing can be appended"):
        merged(text, found("ipmi://10.0.0.2", "b"), file=NEW)


def test_names_stay_unique_and_legal() -> None:
    result = merged(
        THEIRS,
        found("ipmi://10.5.0.1", "r12-u07"),
        found("ipmi://10.5.0.2", "r12-u07"),
        found("ipmi://10.5.0.3", "Not Legal"),
    )
    assert list(hosts(result.files[NEW])) == ["r12-u07-2", "r12-u07-3"]
    assert [c.kind for c in result.changes] == ["new", "new", "left out"]
    assert host_name("", "Web 1.Example.COM ") == "web-1.example.com"
    assert host_name("...", "???") == "host"
    assert len(host_name("x" * 200)) == 63


def test_two_addresses_one_serial() -> None:
    result = merged(
        "", found("ipmi://10.0.0.1", "a", serial="S1"), found("ipmi://10.0.0.2", "b", serial="s1 "), file=NEW
    )
    assert kinds(result) == ["new", "duplicate"]
    assert "S1" in result.changes[1].why or "s1" in result.changes[1].why
    assert list(hosts(result.files[NEW])) == ["a"]


def test_one_bmc_twice_in_one_run() -> None:
    result = merged("", found("ipmi://10.0.0.1", "a"), found("redfish+https://10.0.0.1", "b"), file=NEW)
    assert kinds(result) == ["new", "duplicate"]


def test_aliases_are_not_written_into() -> None:
    text = (
        "- &base {name: a, bmc: 'ipmi://10.0.0.1', location: &here {rack: r1}}\n"
        "- {name: b, bmc: 'ipmi://10.0.0.2', location: *here}\n"
    )
    result = merged(text, found("ipmi://10.0.0.2", location={"u": 3}))
    assert result.files == {}
    assert [(c.kind, c.host, c.field) for c in result.changes] == [("by hand", "b", "location.u")]


def test_a_table_is_not_written_to() -> None:
    text = "name,bmc,serial\nweb-1,redfish+https://10.0.0.1,\n"
    result = merged(text, found("redfish+https://10.0.0.1", serial="S1"), file="hosts/t.csv")
    assert result.files == {}
    assert [(c.kind, c.field, c.found) for c in result.changes] == [("by hand", "serial", "S1")]


def test_windows_line_ends_stay() -> None:
    text = THEIRS.replace("\n", "\r\n")
    result = merged(text, found("redfish+https://10.12.0.7", serial="S7"))
    assert hosts(result.files[FILE])["r12-u07"]["serial"] == "S7"
    assert result.files[FILE].count("\r\n") == text.count("\r\n")


def test_a_host_that_is_a_file_of_its_own() -> None:
    text = "name: a\nbmc: ipmi://10.0.0.1  # here\n# the end"
    result = merged(text, found("ipmi://10.0.0.1", serial="S1"))
    assert yaml.safe_load(result.files[FILE]) == {"name": "a", "bmc": "ipmi://10.0.0.1", "serial": "S1"}
    assert "# the end" in result.files[FILE]


def test_documents_that_cannot_be_read_stop_it() -> None:
    with pytest.raises(SiteError) as caught:
        merged("- name: a\n  name: b\n", found("ipmi://10.0.0.1"))
    assert "r12.yaml:2" in caught.value.problems[0]


SCALARS = st.text(max_size=20) | st.integers(-5, 5) | st.booleans()


@given(st.dictionaries(st.sampled_from(["serial", "model", "vendor", "system"]), st.text(max_size=30), min_size=1))
@settings(max_examples=150, deadline=None)
def test_whatever_a_bmc_calls_itself_reads_back(fields: dict[str, str]) -> None:
    """Newlines, quotes, braces, colons, `yes`, `2.10`, control characters: what goes in comes out, or is listed."""
    result = merged(THEIRS, found("redfish+https://10.12.0.7", **fields))
    filled = {c.field for c in result.changes if c.kind == "filled"}
    by_hand = {c.field for c in result.changes if c.kind == "by hand"}
    assert filled | by_hand == set(fields)
    if filled:
        after = hosts(result.files[FILE])
        assert {k: after["r12-u07"][k] for k in filled} == {k: fields[k] for k in filled}
        assert after["r12-u08"] == hosts(THEIRS)["r12-u08"]


@given(SCALARS)
@example("\n")
@example("'\n\n\t'")
def test_dumped_stands_on_one_line_and_within_braces(value: Any) -> None:
    text = dumped(value)
    assert "\n" not in text
    assert yaml.safe_load(f"{{a: {text}, b: 1}}") == {"a": value, "b": 1}


# on disk


SITE = 'name: demo\nurls: {bmc: "http://127.0.0.1:1", machines: "https://127.0.0.1:2"}\n'


def test_in_a_site_all_hosts_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    (tmp_path / "site.yaml").write_text(SITE)
    (tmp_path / FILE).write_text("- name: a\n  bmc: redfish+https://10.0.0.1\n")
    (tmp_path / "hosts/t.csv").write_text("name,bmc\nb,redfish+https://10.0.0.2\n")
    candidates = [found(f"redfish+https://10.0.0.{i}", f"n{i}", serial=f"S{i}") for i in (1, 2, 3)]
    dry = review(tmp_path, NEW, candidates, write=False)
    assert not (tmp_path / NEW).exists()
    result = review(tmp_path, NEW, candidates)
    assert dry == result
    assert set(result.files) == {FILE, NEW}
    docs = load(tmp_path)
    assert {n: h.serial for n, h in docs.hosts.items()} == {"a": "S1", "b": None, "n3": "S3"}


def test_without_a_site_the_file_alone(tmp_path: Path) -> None:
    result = review(tmp_path, "found.yaml", [found("ipmi://10.0.0.1", "a")])
    assert [c.kind for c in result.changes] == ["new"]
    assert (tmp_path / "found.yaml").read_text() == result.files["found.yaml"]
    with pytest.raises(UsageError, match="YAML"):
        review(tmp_path, "found.csv", [])


def test_changes_are_plain_values() -> None:
    assert Change(kind="new", host="a") == Change(kind="new", host="a")
