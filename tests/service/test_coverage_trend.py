"""The trend of coverage: the share that profiles decide, of scans of the same hosts, at times that people can read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scan_rig import Rig, rig

from metalimmu.cli import cli
from metalimmu.errors import UsageError
from metalimmu.service import profiles
from metalimmu.service.scans.scan import scan


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Rig]:
    made = rig(tmp_path, "n0", "n1", "n2", "n3")
    yield made
    made.close()


def trend(fleet: Rig, *more: str) -> Result:
    return CliRunner().invoke(cli, ["--site", str(fleet.folder), "profile", "coverage", "--trend", *more])


def rows(fleet: Rig, *more: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(trend(fleet, *more, "-o", "json").stdout)
    return found


def test_a_profile_that_says_more_raises_the_share(fleet: Rig) -> None:
    scan(fleet.site(), read=fleet.read)
    (fleet.folder / "profiles/acme.yaml").write_text(
        'match: {vendor: "Acme*"}\nbios_raw: {Sriov: Enabled}\nboot_mode: UEFI\n'
    )
    scan(fleet.site(), hosts=["n0"], read=fleet.read)  # of one host: no point of the trend
    fleet.machines["n1"].settings |= {"bios.SystemServiceTag": "X", "bmc.clock": 1.0}
    text = 'match: {vendor: "Acme*"}\nbios_raw: {Sriov: Enabled, Turbo: "On", Free: 7}\n'
    (fleet.folder / "profiles/acme.yaml").write_text(text)
    scan(fleet.site(), read=fleet.read)
    found = rows(fleet)
    assert [(r["percent"], r["covered"], r["read"], r["hosts"]) for r in found][1] == (50.0, 8, 4, 4)
    newest = found[0]
    # The trend's last point is what `profile coverage` says now.
    now = profiles.coverage_rows(fleet.site(), (), None)
    assert (newest["covered"], newest["settings"]) == (sum(r["covered"] for r in now), sum(r["settings"] for r in now))
    assert newest["percent"] > 70
    assert len(found) == 2


def test_times_are_readable(fleet: Rig) -> None:
    scan(fleet.site(), read=fleet.read)
    said = trend(fleet).stdout
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ +50\.0 +8 +16 +4 +4 *$", said, re.MULTILINE), said


def test_of_a_selection_are_its_own_scans(fleet: Rig) -> None:
    scan(fleet.site(), read=fleet.read)
    assert rows(fleet, "-l", "row=r1") == []
    assert "no scan of just these hosts" in trend(fleet, "-l", "row=r1").stderr
    scan(fleet.site(), selector="row=r1", read=fleet.read)
    assert [r["hosts"] for r in rows(fleet, "-l", "row=r1")] == [2]
    assert [r["hosts"] for r in rows(fleet)] == [4]
    assert isinstance(trend(fleet, "n0").exception, UsageError)
