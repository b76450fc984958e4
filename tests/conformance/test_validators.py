"""DMTF's own validators against the personas: no failure but those that the make explains.

sushy-tools 2.2.0, for comparison: service validator 555 pass, 34 fail; protocol validator 102 pass, 43 fail, and a crash.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evidence
import pytest
import yaml
from subjects import recordings

from metalimmu_emulator.fleet import MAKES, Fleet
from metalimmu_emulator.fleet.makes import build

pytestmark = pytest.mark.emulator
HERE = Path(__file__).parent
EXPECTED: dict[str, list[dict[str, str]]] = yaml.safe_load((HERE / "expected_failures.yaml").read_text())
FOUND = recordings()


@dataclass
class Verdict:
    passed: int
    failures: list[str]


def protocol(fleet: Fleet, folder: Path) -> Verdict:
    bmc = fleet[0]
    command = [
        str(Path(sys.executable).parent / "rf_protocol_validator"),
        "-r",
        bmc.url,
        "-u",
        bmc.username,
        "-p",
        bmc.password,
    ]
    command += ["--avoid-http-redirect", "--report-type", "tsv", "--report-dir", str(folder)]
    done = run(fleet, command)
    [report] = folder.glob("*.tsv") or [None]
    assert report, done.stdout + done.stderr
    with report.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    verdict = Verdict(0, [])
    for row in rows:
        if "PASS" in row:
            verdict.passed += 1
        elif "FAIL" in row:
            verdict.failures.append(" ".join((row[0], row[row.index("FAIL") - 1], row[row.index("FAIL") + 1])))
    return verdict


def service(fleet: Fleet, schemas: Path) -> tuple[Verdict, list[str]]:
    """And what it warned of."""
    bmc = fleet[0]
    done = run(
        fleet, [sys.executable, str(HERE / "service_validator.py"), bmc.url, bmc.username, bmc.password, str(schemas)]
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    told = {
        k: [f"{f['property']} {f['message']} ({f['uri']})" for f in said["found"] if f["kind"] == k]
        for k in ("FAIL", "WARN")
    }
    return Verdict(said["counts"]["pass"], told["FAIL"]), told["WARN"]


def run(fleet: Fleet, command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"REQUESTS_CA_BUNDLE": str(fleet.ca), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment, check=False)


def explained(make: str, validator: str, failures: list[str]) -> None:
    reasons = [e for e in EXPECTED.get(make, []) if e["validator"] == validator]
    unexplained = [f for f in failures if not any(re.search(r["what"], f) for r in reasons)]
    assert unexplained == []
    stale = [r["what"] for r in reasons if not any(re.search(r["what"], f) for f in failures)]
    assert stale == [], "these failures do not happen any more"


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DMTF's own where there are some (METALIMMU_REDFISH_SCHEMAS), else what the recordings tell."""
    if given := os.environ.get("METALIMMU_REDFISH_SCHEMAS"):
        return Path(given)
    if not FOUND:
        pytest.skip("METALIMMU_RECORDINGS is not set: there are no schemas to validate with")
    seen = evidence.Evidence()
    for tree in evidence.trees(FOUND):
        seen.take(tree)
    versions: dict[str, set[str]] = {"Session": {"v1_7_0"}}
    for make in MAKES:
        for page in build(make).pages.values():
            found = evidence.TYPE.match(str((page.document or {}).get("@odata.type") or ""))
            if found and found[2]:
                versions.setdefault(found[1], set()).add(found[2])
    folder = tmp_path_factory.mktemp("schemas")
    evidence.write(seen, versions, folder)
    return folder


@pytest.mark.parametrize("make", MAKES)
def test_protocol(make: str, tmp_path: Path) -> None:
    with Fleet([make]) as fleet:
        verdict = protocol(fleet, tmp_path / "report")
        assert fleet[0].counters().sessions == 0
    assert verdict.passed > 350
    explained(make, "protocol", verdict.failures)
    assert (verdict.failures == []) == (not any(e["validator"] == "protocol" for e in EXPECTED.get(make, [])))


@pytest.mark.parametrize("make", MAKES)
def test_service(make: str, schemas: Path) -> None:
    with Fleet([make]) as fleet:
        verdict, warnings = service(fleet, schemas)
        assert fleet[0].counters().writes == 0
    assert verdict.passed > 3500
    assert [w for w in warnings if "Unable to locate" in w] == []  # else it looked at less than it says
    explained(make, "service", verdict.failures)


def test_the_clean_persona_has_no_excuse() -> None:
    assert "clean" not in EXPECTED
    assert set(EXPECTED) <= set(MAKES)
    assert all(e["because"] for entries in EXPECTED.values() for e in entries)


def test_the_service_validator_finds_what_is_planted(schemas: Path) -> None:
    """That the schemas made of evidence are strict enough to be worth their time."""
    system = "/redfish/v1/Systems/1"
    with Fleet(["clean"]) as fleet:
        bmc = fleet[0]
        bmc.edit(system, {"SerialNumbre": "typo", "PowerState": 7, "UUID": "not-a-uuid", "Status": {"Healthy": True}})
        bmc.edit(f"{system}/Memory/DIMM1", {"CapacityMiB": "lots", "Members": "none"})
        bmc.edit("/redfish/v1/Managers/BMC", {"DateTime": "yesterday", "NetworkProtocol": {"@odata.id": system}})
        bmc.edit(system, {"Actions": {"#Chassis.Reset": {"target": f"{system}/Actions/Chassis.Reset"}}})
        bmc.replace("/redfish/v1/Systems/1/SecureBoot", None)
        verdict, _ = service(fleet, schemas)
    text = "\n".join(verdict.failures)
    for planted in (
        "/SerialNumbre", "/PowerState ", "/UUID ", "/Status/Healthy", "/CapacityMiB ", "/Members", "/DateTime ", "/NetworkProtocol ",
        "#Chassis.Reset", "/SecureBoot ",
    ):  # fmt: skip
        assert planted in text, planted
