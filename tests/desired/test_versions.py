"""The order of firmware versions, as real machines write them, and that it is an order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metalimmu.desired.versions import order, parse, same

OLDER = [  # (older, newer)
    ("2.9", "2.10"),
    ("1.8.2", "1.8.10"),
    ("1.8", "1.8.1"),
    ("6.00.30.00", "6.10.80.00"),
    ("6.00.30.00", "7.0"),
    ("1.0", "1.0a"),
    ("1.0a", "1.0b"),
    ("1.4", "2.0b"),
    ("U46 v2.34 (03/11/2025)", "U46 v2.40 (07/01/2025)"),
    ("2.30", "U46 v2.34 (03/11/2025)"),
    ("3.11 Feb 25 2025", "3.12"),
    ("iLO 5 v3.09", "3.11 Feb 25 2025"),
    ("BIOS Date: 08/04/2023 Ver 1.4", "1.5"),
    ("TGBT40A 2.75", "TGBT42S 2.83 2023-07-05"),
    ("42S-2.83", "2.90"),
    ("42S-2.83", "TGBT44C 2.90"),
    ("U8E122J", "U8E124K"),
    ("U8E122J", "U8E1A0A"),
    ("96.00.61.00.01", "96.00.B7.00.02"),
    ("97.00.6C.00.03", "97.00.72.00.00"),
    ("96.00.10.00.01", "96.00.6C.00.03"),
    ("F5.11.CA", "F5.11.CB"),
    ("0x09", "0x15"),
    ("0x00 0x0b 0x03 0x04", "0x00 0x10 0x01 0x0f"),
    ("13.3.0 Build 37", "13.3.0 Build 40"),
    ("GB200Nvl-24.12-8", "GB200Nvl-25.01-1"),
    ("HGX-22.10-1-rc34", "HGX-22.10-1-rc67"),
    ("01.03.0262.0000_n04", "01.03.0263.0000_n00"),
    ("HPG3", "HPG4"),
    ("4301A56", "4301A57"),
    ("21.80.16.95", "21.85.21.91"),
    ("P79 v1.45", "P79 v1.46 (12/06/2018)"),
]
EQUAL = [
    ("1.8", "1.8.0"),
    ("1.08", "1.8"),
    ("v2.34", "2.34"),
    ("U46 v2.34 (03/11/2025)", "2.34"),
    ("iLO 5 v3.11", "3.11 Feb 25 2025"),
    ("42S-2.83", "TGBT42S 2.83 2023-07-05"),
    ("0x0B", "0x0b"),
    ("", ""),
    ("Not Present", "Not Present"),
]
NO_ORDER = [
    ("U46 v2.34", "U47 v2.30"),  # two families of ROMs
    ("TGBT42S 2.83", "CDI342S 2.83"),  # two platforms
    ("TGBT42S 2.83", "TGBT45S 2.80"),  # build and release disagree
    ("U8E122J", "1.51"),  # a build against a release
    ("HPG3", "HPK6"),  # firmware of two drives
    ("HGX-22.10-1-rc34", "HGX-22.10-1"),  # a candidate and what it became
    ("2022.1", "2022.1-sp1"),
    ("buildbrain-gcid-38635631", "02.03.13"),
    ("96.00.6C.00.03", "96.00.108"),  # hex digits against numbers
    ("1.0b", "1.0.1"),
    ("Not Present", "1.0"),
    ("N/A", "-*"),
    ("", "1.0"),
]


@pytest.mark.parametrize(("older", "newer"), OLDER)
def test_older_and_newer(older: str, newer: str) -> None:
    assert order(older, newer) == -1
    assert order(newer, older) == 1
    assert not same(older, newer)


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal(one: str, other: str) -> None:
    assert order(one, other) == order(other, one) == 0


@pytest.mark.parametrize(("one", "other"), NO_ORDER)
def test_never_a_guess(one: str, other: str) -> None:
    assert order(one, other) is None
    assert order(other, one) is None


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("1.8.2", "1.8.2", True),
        ("U46 v2.34 (03/11/2025)", "2.34", True),
        ("U46 v2.34", "U47 v2.34", False),
        ("TGBT42S 2.83 2023-07-05", "2.83", True),
        ("TGBT42S 2.83", "TGBT43A 2.83", False),
        ("2.1", "2.10", False),
        ("2.1", "12.10", False),
        ("6.0.30.0", "6.00.30.00", False),  # exact is exact: another spelling is another text
        ("1.8", "1.8.0", False),
        ("", "", True),
        ("", "1.0", False),
        ("Not Present", "N/A", False),
    ],
)
def test_exact(one: str, other: str, expected: bool) -> None:
    assert same(one, other) is expected
    assert same(other, one) is expected


NUMBER = st.integers(0, 40)
DOTTED = st.lists(NUMBER, min_size=1, max_size=4).map(lambda n: ".".join(map(str, n)))
HEX = st.lists(st.integers(0, 255), min_size=3, max_size=5).map(lambda n: ".".join(f"{b:02X}" for b in n))
LETTERED = st.tuples(DOTTED, st.sampled_from(["", "a", "b", "c"])).map("".join)
FAMILY = st.tuples(
    st.sampled_from(["U46 v", "U47 v", "v", "iLO 5 v", ""]), DOTTED, st.sampled_from(["", " (03/11/2025)"])
).map("".join)
WORDED = st.tuples(DOTTED, st.sampled_from(["-rc", "-sp", "_n"]), NUMBER.map(str)).map("".join)
BUILD = st.tuples(st.sampled_from(["TGBT", "U8E1", ""]), st.integers(10, 99), st.sampled_from("ABC")).map(
    lambda t: f"{t[0]}{t[1]}{t[2]} {t[1]}.{ord(t[2])}" if t[0] else f"{t[1]}{t[2]}-{t[1]}.{ord(t[2])}"
)
REAL = st.sampled_from(sorted({v for pair in OLDER + EQUAL + NO_ORDER for v in pair}))
VERSION = st.one_of(DOTTED, HEX, LETTERED, FAMILY, WORDED, BUILD, REAL)


@settings(max_examples=500)
@given(VERSION, VERSION)
def test_the_other_way_round_is_the_opposite(one: str, other: str) -> None:
    there, back = order(one, other), order(other, one)
    assert (there is None) == (back is None)
    assert there is None or there == -(back or 0)
    if same(one, other):
        assert there == 0


@settings(max_examples=800, deadline=None)
@given(st.lists(VERSION, min_size=3, max_size=5, unique=True))
@example(["1.0", "1.0.0", "1.0b"])
@example(["6C.00.00", "10.00.00", "7.0.0"])
def test_no_circle(versions: list[str]) -> None:
    """Where each is comparable to the next, nobody is both older and newer than another."""
    for a, b, c in itertools.permutations(versions, 3):
        ab, bc, ac = order(a, b), order(b, c), order(a, c)
        if ab is not None and bc is not None and ac is not None and ab <= 0 and bc <= 0:
            assert ac <= 0
            assert ac < 0 or ab == bc == 0


@settings(max_examples=300)
@given(DOTTED, DOTTED)
def test_numbers_are_never_without_an_order(one: str, other: str) -> None:
    assert order(one, other) is not None


@settings(max_examples=300)
@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text(one: str, other: str) -> None:
    assert order(one, other) in {-1, 0, 1, None}
    assert order(one, one) == 0
    assert same(one, one)
    parse(one)
