"""What counts as a change between plan and apply: cases from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from saved_rig import content, host_plan, image, site

from metalimmu.observed.types import PowerState, Reason, SystemIdentity, Unknown
from metalimmu.plan.differences import Difference, guard_differences, host_differences, of_power, unplanned, with_power
from metalimmu.plan.saved import SavedGuards

CASES = yaml.safe_load((Path(__file__).parent / "difference_cases.yaml").read_text())


def changed(folder: Path, case: dict[str, Any]) -> Any:
    for file, edits in case.get("docs", {}).items():
        path = folder / file
        text = path.read_text() if path.exists() else ""
        for old, new in edits.items():
            assert old in text
            text = text.replace(old, new, 1)
        path.write_text(text)
    seen = dict(case.get("seen", {}))
    if "power" in seen:
        seen["power"] = PowerState(seen["power"])
    if "identity" in seen:
        now = host_plan(folder, "node-1").plan.identity
        seen["identity"] = msgspec.convert(msgspec.to_builtins(now) | seen["identity"], SystemIdentity)
    facts = msgspec.structs.replace(image(), **case.get("image", {}))
    return host_plan(folder, "node-1", seen=seen, image_facts=facts, **case.get("host", {}), **case.get("memory", {}))


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_difference(tmp_path: Path, case: dict[str, Any]) -> None:
    before = host_plan(site(tmp_path), "node-1")
    after = changed(tmp_path, case)
    found = {d.setting: d for d in host_differences(before, after)}
    assert sorted(found) == sorted(case["differ"])
    for setting, (planned, now) in case["differ"].items():
        assert planned in found[setting].planned, found[setting]
        assert now in found[setting].now, found[setting]
        assert bool(planned) == bool(found[setting].planned)
        assert bool(now) == bool(found[setting].now)
    at_turn = [d.setting for d in host_differences(before, after, documents=False)]
    assert sorted(at_turn) == sorted(case.get("turn", []))


def test_the_same_plan_has_no_difference_after_a_journey_through_json(tmp_path: Path) -> None:
    before = host_plan(site(tmp_path), "node-1")
    again = msgspec.json.decode(msgspec.json.encode(before), type=type(before))
    assert host_differences(before, again) == ()


def test_long_values_differ_visibly(tmp_path: Path) -> None:
    site(tmp_path)
    (tmp_path / "templates").mkdir()
    text = "#cloud-config\n" + "# the same\n" * 100
    (tmp_path / "templates/u.j2").write_text(text + "a: 1\n")
    (tmp_path / "roles/web.yaml").write_text("image: web@2\nconfig: {user-data: u.j2}\n")
    before = host_plan(tmp_path, "node-1")
    (tmp_path / "templates/u.j2").write_text(text + "a: 2\n")
    [found] = host_differences(before, host_plan(tmp_path, "node-1"))
    assert found.setting == "document.templates.user-data"
    assert found.planned != found.now
    assert "1119 characters, sha256" in found.planned
    assert len(str(found)) < 500


def test_control_characters_of_a_bmc_are_shown(tmp_path: Path) -> None:
    before = host_plan(site(tmp_path), "node-1")
    identity = msgspec.structs.replace(before.plan.identity, serial="\x1b[2J\n")
    [found] = host_differences(before, host_plan(tmp_path, "node-1", seen={"identity": identity}))
    assert str(found) == "node-1: identity.serial: planned S001, now \\u001b[2J\\n"


def test_nics_that_are_unknown_now(tmp_path: Path) -> None:
    before = host_plan(site(tmp_path), "node-1")
    identity = msgspec.structs.replace(before.plan.identity, nics=Unknown(Reason.timeout))
    [found] = host_differences(before, host_plan(tmp_path, "node-1", seen={"identity": identity}))
    assert (found.planned, found.now) == ("nothing", "unknown: timeout")


def test_power_alone_can_be_accepted(tmp_path: Path) -> None:
    before = host_plan(site(tmp_path), "node-1")
    now = host_plan(tmp_path, "node-1", seen={"power": PowerState.off})
    [found] = host_differences(before, now)
    assert of_power(found)
    started = with_power(before.plan, now.plan)
    assert [r.body for r in started.step("power").requests] == [{"ResetType": "On"}]
    assert msgspec.structs.replace(started, steps=before.plan.steps) == before.plan


def test_guards(tmp_path: Path) -> None:
    saved = content(tmp_path)
    assert guard_differences(saved.guards, saved.guards) == ()
    now = SavedGuards(site={"max_hosts": 500}, pools={"web": {"approvals": 2}})
    assert [str(d) for d in guard_differences(saved.guards, now)] == [
        "site: guards.max_hosts: planned 10, now 500",
        "pool web: guards.min_active: planned 1, now nothing",
        "pool web: guards.approvals: planned nothing, now 2",
    ]
    assert [d.host for d in guard_differences(saved.guards, SavedGuards(site={"max_hosts": 10}))] == ["pool web"]


def test_a_host_that_cannot_be_planned_any_more() -> None:
    assert unplanned("node-1", "no answer\x1b") == Difference(
        host="node-1", setting="look", planned="a plan", now="no answer\\u001b"
    )
