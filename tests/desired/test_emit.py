"""Our short way to YAML says, byte for byte, what PyYAML says."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.desired.emit import dump


class Plain(yaml.CSafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        return True


def pyyaml(value: object) -> str:
    return str(yaml.dump(value, Dumper=Plain, sort_keys=False, default_flow_style=False, allow_unicode=True))


WORDS = "on y Null NULL 2.10 0x10 1_000 ~ ' \" é b8:ca:3a:00:00:01 12:34:56:00:00:01 10.0.0.1/8 1.2 2026-11-20 = << ? !x &a *a % @ ` 😀"
ODD = (
    *WORDS.split(),
    "",
    " ",
    "- a",
    "a: b",
    "a #b",
    "x" * 90,
    "a b " * 30,
    "\u2028",
    "\ufeff",
    "\x85",
    "a\nb",
    "0...",
    "...",
    "---",
    "--- a",
)
PATTERNS = (
    r"\A[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z",
    r"\A[0-9.]{1,15}(/[0-9]+)?\Z",
    r"\A[a-zA-Z0-9_./@+:-]{1,12}\Z",
    r"\A[yYnNtToOfF~0-9eE.+_-]{1,5}\Z",
)
Text = st.text(max_size=30) | st.text(max_size=120) | st.sampled_from(ODD) | st.one_of(*map(st.from_regex, PATTERNS))
Leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | Text
Value = st.recursive(Leaf, lambda v: st.lists(v, max_size=4) | st.dictionaries(Text, v, max_size=4), max_leaves=20)


@settings(max_examples=600, deadline=None)
@given(st.dictionaries(Text, Value, max_size=5) | Value)
def test_as_pyyaml_writes_it(value: object) -> None:
    assert dump(value) == pyyaml(value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"a": {}, "b": [], "c": [[], {}, [[1], {"x": [{"y": None}]}]]},
        {1: 2, "a": {3: 4}},
        {"keys": ["ssh-ed25519 " + "A" * 68 + " alice@example.org"] * 2},
        {"a": "word " * 40, "b": {"c": "x" * 200}},
        {"k" * 200: 1},
        {"a": (1, 2)},
        {
            "network": {
                "version": 2,
                "ethernets": {"nic0": {"match": {"macaddress": "b8:ca:3a:00:00:01"}, "dhcp4": False}},
            }
        },
    ],
)
def test_shapes(value: object) -> None:
    assert dump(value) == pyyaml(value)


def test_a_reference_is_a_copy() -> None:
    """No anchors: the same list twice is written twice."""
    same = ["10.0.0.1"]
    assert dump({"a": same, "b": same}) == "a:\n- 10.0.0.1\nb:\n- 10.0.0.1\n"
