"""Whatever text a user puts in, `load` and `check` say what is wrong and never fall over."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metalimmu.desired.check import check
from metalimmu.desired.documents import parse
from metalimmu.desired.load import examine, load
from metalimmu.desired.problems import Problem
from metalimmu.desired.profile import BmcExpected, Hardware, Profile, Setting, Version
from metalimmu.desired.types import Host, Network, RootDiskHints
from metalimmu.errors import SiteError

SITE = 'name: ams1\nurls: {bmc: "http://10.0.0.5:8080", machines: "https://10.1.0.5:8443"}\n'
FILES = ("site.yaml", "hosts/a.yaml", "hosts/b.csv", "roles/web.yaml", "pools/p.yaml", "profiles/x.yaml", "images.lock", "holds.yaml")  # fmt: skip

# Text that is nearly YAML finds more than random text.
PIECES = st.sampled_from(
    ["name: a", "bmc: 'redfish+https://10.0.0.1'", "- ", "{", "}", "[", "]", ": ", "? ", "&a ", "*a", "<<: *a", "\n", "  ",
     "|", ">", "'", '"', "#", "!!int ", "!!set ", "!!timestamp ", "!!binary ", "!!python/name:os ", "2026-13-45", "0x", "1e999",
     ".nan", "1_0", "0o7", "11:22:33", "~", "=", "---", "...", "%YAML 1.1", "@", "`", "\t", "\u2028", "\ufeff", "\x85", "é", "🖧",
     "network: {address: 10.0.0.1/24}", "routes: [{to: default, via: x}]", "image: web@1", "vars: {x: [1]}", "host: a", ","]
)  # fmt: skip
NEARLY = st.lists(PIECES, max_size=30).map("".join)
ANY_TEXT = st.one_of(NEARLY, st.text(max_size=200))

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.text(max_size=20), st.sampled_from(["a", "web", "10.0.0.1/24", "10GB", "5m", "env:X", "fe80::/0", "[::1", "0.0.0.0/0", "redfish+https://[::1", "https://a:b", "{{ x }}", "~root/x", "~nobody-at-all/x"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda v: st.one_of(st.lists(v, max_size=3), st.dictionaries(st.text(max_size=5), v, max_size=3)),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sites")


def site_with(top: Path, files: dict[str, str | bytes]) -> Path:
    folder = Path(tempfile.mkdtemp(dir=top))
    for name, text in {"site.yaml": SITE, **files}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return folder


def say_so(folder: Path) -> None:
    """`load` returns or raises SiteError with lines; `check` reports."""
    lines: tuple[str, ...] = ("",)
    try:
        load(folder)
    except SiteError as exc:
        lines = exc.problems
    assert lines
    assert "".join(lines).isprintable()
    for problem in check(folder).problems:
        assert problem.line >= 1
        assert problem.expected
        assert problem.write


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FILES), ANY_TEXT)
@example("hosts/a.yaml", "!!timestamp x")
@example("hosts/a.yaml", "? [a]\n: b")
@example("hosts/a.yaml", "- &a [*a]")
@example("hosts/a.yaml", "<<: 5")
@example("hosts/a.yaml", "{name: a, <<: [5]}")
@example("hosts/a.yaml", "9" * 5000)
@example("hosts/a.yaml", "- {name: a, bmc: x, vars: {? [1, 2]: 3}}")
@example("hosts/b.csv", 'name,bmc\n"a')
@example("hosts/b.csv", "name\n\x00")
def test_any_text(top: Path, file: str, text: str) -> None:
    say_so(site_with(top, {file: text}))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FILES), st.binary(max_size=100))
def test_any_bytes(top: Path, file: str, data: bytes) -> None:
    say_so(site_with(top, {file: data}))


def documents_of(kind: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    """Documents with the right field names and any values."""
    return st.dictionaries(st.sampled_from([*kind.__struct_fields__, "unknown"]), VALUES, max_size=6)


NETWORKS = documents_of(Network)
HINTS = documents_of(RootDiskHints)


@settings(max_examples=150, deadline=None)
@given(documents_of(Host), NETWORKS, HINTS)
def test_any_values_of_a_host(top: Path, host: dict[str, Any], network: dict[str, Any], hints: dict[str, Any]) -> None:
    whole = {"name": "a", "bmc": "redfish+https://10.0.0.1", **host}
    rows = [whole, {**whole, "network": network, "root_disk": hints}]
    text = yaml.safe_dump(rows, allow_unicode=True)
    folder = site_with(top, {"hosts/a.yaml": text, "roles/web.yaml": "image: web@1\n"})
    say_so(folder)
    assert examine(folder).problems, "the second host has the name of the first"


PROFILES = st.tuples(*map(documents_of, (Profile, BmcExpected, Hardware, Version, Setting)))


@settings(max_examples=250, deadline=None)
@given(PROFILES)
def test_any_values_of_a_profile(top: Path, documents: tuple[dict[str, Any], ...]) -> None:
    whole, bmc, hardware, version, setting = documents
    parts = {
        "bmc": bmc,
        "hardware": hardware,
        "firmware": {"bios": version},
        "bios": {"sriov": setting},
        "bios_raw": {"A": setting},
    }
    files = {
        "profiles/x.yaml": {**parts, **whole},
        "profiles/y.yaml": {**whole, **parts, "extends": ["x"], "unknown": 1},
    }
    folder = site_with(top, {name: yaml.safe_dump(value, allow_unicode=True) for name, value in files.items()})
    say_so(folder)
    assert any(p.file == "profiles/y.yaml" for p in examine(folder).problems)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_template(top: Path, text: str) -> None:
    folder = site_with(
        top,
        {
            "hosts/a.yaml": "- {name: a, bmc: 'redfish+https://10.0.0.1', role: web}",
            "roles/web.yaml": "image: web@1\nconfig: {user-data: t, motd: t}\n",
            "templates/t": text.encode("utf-8", "surrogatepass"),
        },
    )
    say_so(folder)


@settings(max_examples=200, deadline=None)
@given(NEARLY)
def test_the_same_values_as_pyyaml(text: str) -> None:
    """Where PyYAML reads a text and it has no key twice, so do we, and to the same value."""
    problems: list[Problem] = []
    _, value = parse("x.yaml", text.encode(), problems)
    if not problems:
        assert repr(value) == repr(yaml.load(text.encode(), yaml.CSafeLoader))
