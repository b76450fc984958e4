from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.desired.load import load
from metalimmu.desired.resolve import resolve_all
from metalimmu.desired.selector import labels, matches, parse, select
from metalimmu.errors import UsageError

LABELS = {"role": "web", "rack": "r12", "tier": "front", "image": "web@2"}


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("role=web", True),
        ("role==web", True),
        ("role=db", False),
        ("role=web,rack=r12", True),
        ("role=web,rack=r13", False),
        (" role = web , tier ", True),
        ("role!=web", False),
        ("role!=db", True),
        ("gone!=x", True),
        ("tier", True),
        ("gone", False),
        ("gone=x", False),
        ("image=web", True),
        ("image=web@2", True),
        ("image=web@1", False),
        ("image!=web@1", True),
        ("image!=web", False),
        ("image=we", False),
    ],
)
def test_matches(expression: str, fits: bool) -> None:
    assert matches(LABELS, expression) is fits


@pytest.mark.parametrize("expression", ["", ",", "role=", "=web", "role=web,", "role=web,,rack=r1", "a b=c", "!role"])
def test_no_selector(expression: str) -> None:
    """Never everything by mistake."""
    with pytest.raises(UsageError, match="no key=value"):
        parse(expression)


@given(st.text(max_size=20))
def test_any_text(expression: str) -> None:
    try:
        terms = parse(expression)
    except UsageError:
        return
    assert terms
    assert all(t.key for t in terms)


def test_select(make_site: Any) -> None:
    site = make_site(
        {
            "hosts/a.yaml": "- {name: a, bmc: 'ipmi://10.0.0.1', role: web, labels: {tier: front}}\n"
            "- {name: b, bmc: 'ipmi://10.0.0.2', role: web, location: {rack: r1}}\n- {name: c, bmc: 'ipmi://10.0.0.3'}\n",
            "roles/web.yaml": "image: web@2",
        }
    )
    specs = list(resolve_all(load(site), root=site).values())

    def names(expression: str, **more: dict[str, str]) -> list[str]:
        return [s.name for s in select(specs, expression, more=more)]

    assert names("role=web") == ["a", "b"]
    assert names("tier=front") == ["a"]
    assert names("rack=r1,role=web") == ["b"]
    assert names("name=c") == ["c"]
    assert names("image=web@2") == ["a", "b"]
    assert names("image=web@1", a={"image": "web@1", "state": "active"}) == ["a"]
    assert names("image=web@2", a={"image": "web@1", "state": "active"}) == ["b"]
    assert names("state=active", a={"state": "active"}) == ["a"]
    assert "image" not in labels(specs[2])


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("model=ProLiant*", True),
        ("model=proliant dl3?0*", True),
        ("model=Power*", False),
        ("model!=Power*", True),
        ("no=*", False),
    ],
)
def test_globs(expression, fits):
    assert matches({"model": "ProLiant DL360 Gen11"}, expression) is fits
