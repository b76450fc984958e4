"""Plans, from small documents: what is known of a host, what its BMC says, what must come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from metalimmu.desired.types import HostSpec
from metalimmu.errors import MetalimmuError, by_code
from metalimmu.plan.reimage import Memory, Requests, Seen, check_image, choose_slot, plan_reimage
from metalimmu.plan.types import ImageFacts, Plan

CASES = yaml.safe_load(Path(__file__).with_name("reimage_cases.yaml").read_text())

SPEC: dict[str, Any] = {
    "name": "node-1", "bmc": "fake://node-1", "system": None, "serial": "S1", "credentials": None, "tls": {}, "proxy": None,
    "connect_timeout": 10.0, "read_timeout": 60.0, "mode": "read-write", "nics": [], "network": {}, "role": "web", "pool": None,
    "image": "web@2", "digest": None, "held": None, "boot": "auto", "firmware": "uefi", "ramdisk": "lab", "root_disk": {},
    "wipe_signatures": False, "proof": {}, "templates": {}, "vars": {}, "labels": {}, "protected": False,
    "limits": {"power": 300, "media": 300, "check_in": 1800, "stall": 600, "phone_home": 1800, "bmc": 900},
}  # fmt: skip
IMAGE: dict[str, Any] = {
    "ref": "web@2", "digest": "sha256:" + "2" * 64, "kind": "disk", "architecture": "x86_64", "firmware": ["uefi", "bios"],
    "size": 1 << 30, "all_bytes": 300_000_000,
}  # fmt: skip
SLOT: dict[str, Any] = {
    "id": "Cd", "uri": "/redfish/v1/Managers/1/VirtualMedia/Cd", "media_types": ["CD", "DVD"], "inserted": False, "image": None,
    "by_action": True, "can_eject": True,
}  # fmt: skip
SEEN: dict[str, Any] = {
    "identity": {"system_id": "1", "uri": "/redfish/v1/Systems/1", "serial": "S1"},
    "power": "On",
    "boot": {"enabled": "Disabled", "target": "None", "mode": "UEFI"},
    "media": [SLOT],
}


def planned(case: dict[str, Any]) -> Plan:
    spec = msgspec.convert({**SPEC, **case.get("spec", {})}, HostSpec)
    image = msgspec.convert({**IMAGE, **case.get("image", {})}, ImageFacts)
    seen = msgspec.convert({**SEEN, **case.get("seen", {})}, Seen)
    memory = msgspec.convert(case.get("memory", {}), Memory)
    check_image(spec, image)
    slot = choose_slot(seen.media)
    return plan_reimage(
        spec, image, memory, seen, transfer=1000, requests=Requests(), slot=slot, force=case.get("force", False)
    )


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_case(case: dict[str, Any]) -> None:
    expect = case["expect"]
    if "error" in expect:
        with pytest.raises(MetalimmuError) as caught:
            planned(case)
        assert isinstance(caught.value, by_code(expect["error"]))
        assert expect["says"] in caught.value.message
        assert caught.value.hint
        return
    plan = planned(case)
    assert expect.get("why", "") in plan.why
    assert plan.boots == expect["boots"]
    assert plan.nothing is (expect["boots"] == 0)
    if "steps" in expect:
        assert [s.name for s in plan.steps] == expect["steps"]
    if "slot" in expect:
        assert plan.slot is not None
        assert plan.slot.id == expect["slot"]
    for words in expect.get("warnings", []):
        assert any(words in w for w in plan.warnings), plan.warnings
    for setting, word in expect.get("findings", {}).items():
        assert {f.setting: str(f.word) for f in plan.findings}[setting] == word


def test_a_plan_survives_the_store() -> None:
    plan = planned({})
    assert Plan.decode(msgspec.json.decode(msgspec.json.encode(plan.encode()))) == plan
