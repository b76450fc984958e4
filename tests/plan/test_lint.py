"""The profile compiler, by cases (lint_cases.yaml), and by properties on registries and profiles of any shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.bmc.document import Doc
from metalimmu.bmc.registry import parse
from metalimmu.observed.registry import Attribute, Choice, Condition, Dependency, Registry
from metalimmu.plan import expression
from metalimmu.plan.dependencies import Rules
from metalimmu.plan.lint import Wanted, lint
from metalimmu.plan.order import order

CASES = yaml.safe_load((Path(__file__).parent / "lint_cases.yaml").read_text())


def registry(case: dict[str, Any]) -> Registry:
    """From the document that a BMC would send, so that the parser takes part."""
    document = {
        "Id": "R",
        "OwningEntity": case.get("owner", ""),
        "RegistryEntries": {
            "Attributes": [attribute(n, a) for n, a in case["attributes"].items()],
            "Dependencies": [dependency(*d) for d in case.get("dependencies", [])],
        },
    }
    found = parse(Doc(document, "/redfish/v1/Registries/R"))
    return Registry(
        id=found.id,
        source=found.source,
        attributes=found.attributes,
        dependencies=found.dependencies,
        trusted="why_not" not in case,
        why_not=case.get("why_not", ""),
        duplicates=tuple(case.get("duplicates", ())),
        doubted=case.get("doubted", {}),
        owner=found.owner,
    )


def attribute(name: str, short: dict[str, Any]) -> dict[str, Any]:
    long: dict[str, Any] = {"AttributeName": name, "Type": short.get("type", "Enumeration")}
    if "values" in short:
        values = short["values"]
        named = values if isinstance(values, dict) else dict.fromkeys(values, "")
        long["Value"] = [{"ValueName": n, "ValueDisplayName": d or n} for n, d in named.items()]
    if "range" in short:
        lower, upper, step = short["range"]
        long |= {"Type": "Integer", "LowerBound": lower, "UpperBound": upper, "ScalarIncrement": step}
    keys = {"min": "MinLength", "max": "MaxLength", "pattern": "ValueExpression", "read_only": "ReadOnly"}
    keys |= {"immutable": "Immutable", "hidden": "Hidden", "unique": "IsSystemUniqueProperty"}
    return long | {keys[k]: v for k, v in short.items() if k in keys}


def dependency(target: str, prop: str, value: object, conditions: list[list[Any]]) -> dict[str, Any]:
    made = []
    for name, compare, wanted, *terms in conditions:
        one = {"MapFromAttribute": name, "MapFromProperty": "CurrentValue", "MapFromCondition": compare}
        made.append(one | {"MapFromValue": wanted} | ({"MapTerms": ",".join(terms)} if terms else {}))
    body = {"MapFrom": made, "MapToAttribute": target, "MapToProperty": prop, "MapToValue": value}
    return {"Type": "Map", "DependencyFor": target, "Dependency": body}


def wanted(fields: dict[str, Any], prefix: str = "") -> list[Wanted]:
    return [
        Wanted(
            attribute=n, values=tuple(v) if isinstance(v, list) else (v,), field=prefix + n, file="p.yaml", line=i + 1
        )
        for i, (n, v) in enumerate(fields.items())
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_case(case: dict[str, Any]) -> None:
    noise = frozenset(case.get("noise", ()))
    found = lint(
        wanted(case["want"]) + wanted(case.get("also", {}), "bios."),
        registry(case),
        current=case.get("now"),
        noise=lambda n: n in noise,
    )
    said = [(r.severity, r.field, str(r)) for r in found.remarks]
    assert len(said) == len(case["expect"]), said
    for severity, field, words in case["expect"]:
        assert any(s == severity and f == field and words in text for s, f, text in said), (words, said)
    if "order" in case:
        assert [list(s) for s in found.order.steps] == case["order"]
    assert found.errors == sum(e[0] == "error" for e in case["expect"])


def test_all_names_of_cases_differ() -> None:
    assert len({c["name"] for c in CASES}) == len(CASES)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 62), 1 << 62), st.floats(allow_nan=False), st.text(max_size=12)
)
NAMES = st.sampled_from(["A", "B", "C", "D", "E_0012", "E_0013", "", "Nobody"])
ATTRIBUTES = st.builds(
    Attribute,
    name=NAMES,
    type=st.sampled_from(["Enumeration", "String", "Integer", "Boolean", "Password"]),
    choices=st.lists(st.builds(Choice, name=st.text(max_size=4), display=st.text(max_size=4)), max_size=4).map(tuple),
    lower=st.none() | st.integers(-5, 5),
    upper=st.none() | st.integers(-5, 5),
    step=st.none() | st.integers(-3, 3),
    min_length=st.none() | st.integers(-3, 9),
    max_length=st.none() | st.integers(-3, 9),
    pattern=st.sampled_from(["", "(", "^a+$", "[", "(a+)+$", "\\1", "{2}", "a{99999}", "(?<n>x)", "*"])
    | st.text(max_size=8),
    read_only=st.booleans(),
    immutable=st.booleans(),
    hidden=st.booleans(),
    grayed_out=st.booleans(),
)
CONDITIONS = st.builds(
    Condition,
    attribute=NAMES,
    property=st.sampled_from(["CurrentValue", "ReadOnly", "Hidden", "GrayOut", "LowerBound", ""]),
    compare=st.sampled_from(["EQU", "NEQ", "GTR", "GEQ", "LSS", "LEQ", "odd"]),
    value=SCALARS,
    terms=st.lists(st.sampled_from(["AND", "OR"]), max_size=3).map(tuple),
)
DEPENDENCIES = st.builds(
    Dependency,
    attribute=NAMES,
    property=st.sampled_from(["ReadOnly", "Hidden", "GrayOut", "CurrentValue", "UpperBound", ""]),
    value=SCALARS,
    conditions=st.lists(CONDITIONS, min_size=1, max_size=4).map(tuple),
)
REGISTRIES = st.builds(
    Registry,
    id=st.just("R"),
    source=st.just("/r"),
    attributes=st.lists(ATTRIBUTES, max_size=6).map(lambda found: {a.name: a for a in found}),
    dependencies=st.lists(DEPENDENCIES, max_size=8).map(tuple),
    trusted=st.booleans(),
    doubted=st.dictionaries(NAMES, st.just("because"), max_size=2),
    duplicates=st.lists(NAMES, max_size=2).map(tuple),
    owner=st.sampled_from(["", "Supermicro", "Dell"]),
)
WANTED = st.lists(
    st.builds(
        Wanted,
        attribute=NAMES,
        values=st.lists(SCALARS, max_size=3).map(tuple),
        field=st.just("f"),
        line=st.integers(0, 9),
    ),
    max_size=6,
)


@settings(max_examples=400, deadline=None)
@given(REGISTRIES, WANTED, st.none() | st.dictionaries(NAMES, SCALARS, max_size=6))
def test_never_raises_and_orders_what_it_was_given(
    found: Registry, profile: list[Wanted], current: dict[str, Any] | None
) -> None:
    report = lint(profile, found, current=current)
    written = [n for step in report.order.steps for n in step]
    assert len(written) == len(set(written))
    assert set(written) <= {w.attribute for w in profile} | set(found.attributes)
    for remark in report.remarks:
        assert remark.severity in ("error", "warning", "info")
        assert "\n" not in str(remark)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdefgh"), st.sets(st.sampled_from("abcdefghi"), max_size=4)))
def test_order_is_topological(before: dict[str, set[str]]) -> None:
    found = order(before, before)
    step = {n: i for i, names in enumerate(found.steps) for n in names}
    assert sorted(step) == sorted(before)
    circles = [set(c) for c in found.cycles]
    for name, earlier in before.items():
        for other in earlier & set(before) - {name}:
            if step[other] >= step[name]:
                assert any({name, other} <= c for c in circles)
            assert step[other] <= step[name]
    for circle in circles:  # each really reaches itself through the others
        for name in circle:
            assert reaches(before, name, name, circle)


def reaches(before: dict[str, set[str]], start: str, goal: str, within: set[str]) -> bool:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for other in before.get(todo.pop(), set()) & within - {start} if todo else ():
            if other not in seen:
                seen.add(other)
                todo.append(other)
        if any(goal in before.get(s, set()) for s in seen if s != goal):
            return True
    return False


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "AttributeName",
                        "Type",
                        "Value",
                        "ValueName",
                        "Dependency",
                        "MapFrom",
                        "MapFromAttribute",
                        "MapTerms",
                        "LowerBound",
                        "UpperBound",
                        "ScalarIncrement",
                        "MapToAttribute",
                        "MapToProperty",
                        "ReadOnly",
                    ]
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=30,
    )
)
def test_any_document_parses_into_a_registry_that_can_be_used(anything: object) -> None:
    document = {"RegistryEntries": {"Attributes": [anything, {"AttributeName": "A"}], "Dependencies": [anything]}}
    found = parse(Doc(document, "/r"))
    assert "A" in found.attributes
    lint([Wanted(attribute=n, values=(1,), field=n) for n in found.attributes], found, current={"A": 1})


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "^(a|a)*$",
        "^(a|aa)+$",
        "((a*)*)*b",
        "^a*a*a*a*a*$",
        r"^(\-(\w+|\*))*((\w+|\*))*$",
        "(a{1,90}){1,90}$",
        r"(a)\1*$",
        "(?=a+)+b",
        "(?:a?){60}a{60}",
        "[a",
        "(",
    ],
)
def test_expressions_that_could_take_for_ever_are_not_used(pattern: str) -> None:
    assert expression.search(pattern, "a" * 60 + "!") is None


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^[0-9a-fA-F]{64,64}$", "ab" * 32, "ab"),
        (r"^(iqn|IQN)\.[0-9a-zA-Z\.\-]+[0-9a-zA-Z\-](\:[0-9a-zA-Z\-]*)?$|^$", "iqn.1988-11.com.dell:x", "dell"),
        (r"^((?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\.){3}(?:25[0-5]|[01]?[0-9][0-9]?)$|^$", "10.0.0.1", "10.0.0"),
        (r"^[\ -\~]*$", "plain", "\x07"),
        (r"^[]a]+$", "]a", "b"),
    ],
)
def test_expressions_of_real_registries_are_used(pattern: str, good: str, bad: str) -> None:
    assert expression.search(pattern, good) is True
    assert expression.search(pattern, bad) is False


def test_numbers_compare_and_text_has_no_order() -> None:
    found = registry({"attributes": {"A": {"range": [0, 9, 1]}, "T": {"type": "String"}}})
    rules = Rules(found)

    def holds(name: str, compare: str, value: object, now: object) -> bool | None:
        condition = Condition(attribute=name, compare=compare, value=value)  # type: ignore[arg-type]
        return rules.holds(
            Dependency(attribute="X", property="Hidden", value=True, conditions=(condition,)), {name: now}
        )  # type: ignore[dict-item]

    assert holds("A", "GTR", 3, 4) is True
    assert holds("A", "LSS", 3, 4) is False
    assert holds("A", "GEQ", 3, 3) is True
    assert holds("A", "LEQ", 3, 4) is False
    assert holds("T", "GTR", "a", "b") is None
    assert holds("A", "ALMOST", 3, 4) is None
    assert holds("A", "EQU", True, 1) is False
