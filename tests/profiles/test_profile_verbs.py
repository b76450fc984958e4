"""The profile commands, as a user calls them: on files, on recordings, on a site with scans in its store."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent.parent / "conformance"))

from redfish_server import PASSWORD, USER, RedfishServer
from redfish_server import recording as tree_of

from metalimmu.cli.profile import _tell as tell_of_lint
from metalimmu.main import run as program
from metalimmu.observed.registry import Attribute, Registry
from metalimmu.observed.snapshot import Snapshot
from metalimmu.observed.types import PowerState, Reason, SystemIdentity, Unknown
from metalimmu.plan.lint import Report
from metalimmu.plan.order import Order
from metalimmu.plan.types import Finding, Word
from metalimmu.service.scans.scan import scan
from metalimmu.service.site import OpenSite
from metalimmu.store.scan_records import About, Scanned

DELL = "dell-poweredge-r750-idrac9"


def run(*args: str) -> Result:
    from metalimmu.cli import cli

    return CliRunner().invoke(cli, ["profile", *args], catch_exceptions=True)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METALIMMU_SITE", raising=False)
    return tmp_path


@pytest.fixture
def site(here: Path) -> Path:
    (here / "site.yaml").write_text(
        "name: test\nurls: {bmc: 'http://127.0.0.1:8080', machines: 'https://127.0.0.1:8443'}\n"
        "credentials: [{ref: 'env:LAB'}]\nbmc: {rate: 1000/s}\n"
    )
    (here / "profiles").mkdir()
    (here / "hosts").mkdir()
    (here / "hosts" / "r1.yaml").write_text("".join(f"- {{name: r1-{i}, bmc: 'fake://{i}'}}\n" for i in (1, 2, 3)))
    return here


def profile(folder: Path, name: str, **fields: Any) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(fields, sort_keys=False))
    return file


def test_list_without_a_site_names_those_that_ship(here: Path) -> None:
    found = json.loads(run("list", "-o", "json").output)
    assert {"dell-poweredge-r750", "openbmc-gb200", "basics"} <= {f["name"] for f in found}
    assert all(f["from"] == "shipped" and f["settings"] for f in found)
    r750 = next(f for f in found if f["name"] == "dell-poweredge-r750")
    assert r750["extends"] == ["basics", "x86", "dell"]
    assert r750["match"] == {"vendor": "dell", "model": "PowerEdge R750"}


def test_a_profile_of_the_site_wins_over_one_that_ships(site: Path) -> None:
    profile(site / "profiles", "dell", extends="x86", bios={"sriov": "disabled"})
    found = {f["name"]: f["from"] for f in json.loads(run("list", "-o", "json").output)}
    assert found["dell"] == "site"
    assert found["hpe"] == "shipped"
    said = json.loads(run("show", "dell", "-o", "json").output)[0]
    sriov = next(s for s in said["settings"] if s["setting"] == "bios.sriov")
    assert (sriov["expected"], sriov["from"]) == ("disabled", "dell:3")


def test_a_file_elsewhere_extends_profiles_of_the_site(site: Path) -> None:
    profile(site / "profiles", "base", bios={"sriov": "disabled"})
    assert run("lint", str(profile(site, "new", extends="base", bios={"turbo": "enabled"}))).exit_code == 0
    wrong = run("lint", str(profile(site, "new", extends="bose"))).exception
    assert "write base" in wrong.problems[0]  # type: ignore[union-attr]


def test_show_prints_chain_and_where_each_setting_is_from(here: Path) -> None:
    found = run("show", "dell-poweredge-r750")
    assert found.exit_code == 0
    assert "dell-poweredge-r750 <- dell <- x86 <- basics" in found.output
    line = next(x for x in found.output.splitlines() if x.startswith("bios.power_profile"))
    assert "performance" in line
    assert "dell-poweredge-r750:" in line


def test_show_of_nothing_says_what_there_is(here: Path) -> None:
    found = run("show", "dell-poweredge-r75")
    assert found.exit_code != 0
    assert "no profile 'dell-poweredge-r75'" in str(found.exception)


def test_lint_of_a_bad_document_names_file_line_and_what_to_write(here: Path) -> None:
    file = profile(here, "p", extends="del", bios={"srov": "enabled"}, bios_raw={"X": {"value": []}})
    found = run("lint", str(file))
    problems = "\n".join(found.exception.problems)  # type: ignore[union-attr]
    assert f"{file}:1: extends: expected the name of a profile" in problems
    assert "write dell" in problems
    assert f"{file}:3: bios.srov" in problems
    assert "write sriov" in problems


def test_lint_of_a_good_document_says_that_more_can_be_checked(here: Path) -> None:
    found = run("lint", str(profile(here, "p", bios={"sriov": "enabled"})))
    assert found.exit_code == 0
    assert "--against RECORDING|HOST" in found.output


@pytest.mark.parametrize("content", ["", "[]", "a: [", "extends: p\n", "x" * 100, "bios: {sriov: {value: [1, {}]}}"])
def test_lint_never_breaks_on_a_document(here: Path, content: str) -> None:
    (here / "p.yaml").write_text(content)
    found = run("lint", "p.yaml")
    assert found.exception is None or type(found.exception).__name__ in ("SiteError", "SystemExit")


def test_lint_against_a_recording_fails_a_pull_request(here: Path, recording: Callable[[str], Path]) -> None:
    file = profile(
        here,
        "web",
        extends="dell-poweredge-r750",
        bios={"sriov": "enabled"},
        bios_raw={
            "ErrPromt": "Disabled",
            "MemOpMode": "Optimizer",
            "ProcCStates": "Enabled",
            "AcPwrRcvryUserDelay": 9999,
        },
    )
    found = run("lint", str(file), "--against", str(recording(DELL)), "-o", "json")
    assert found.exit_code == 1
    report = json.loads(found.stdout)[0]
    said = {r["field"]: (r["line"], r["write"]) for r in report["remarks"]}
    assert said["bios_raw.ErrPromt"] == (5, "write ErrPrompt")
    assert said["bios_raw.MemOpMode"][1].startswith("write OptimizerMode")
    assert said["bios_raw.ProcCStates"][1] == "leave it out, or change SysProfile"
    assert said["bios_raw.AcPwrRcvryUserDelay"][1] == "write 600 or less"
    assert all(r["file"].endswith("web.yaml") for r in report["remarks"])
    table = run("lint", str(file), "--against", str(recording(DELL)))
    assert table.exit_code == 1
    assert "4 errors, 0 remarks" in table.stderr


def test_the_order_of_writing_is_printed_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a whole captured profile it is hundreds of names."""
    names = tuple(f"Attribute{i}" for i in range(240))
    report = Report(registry="R", checked=241, order=Order(steps=(names, ("Last",))))
    tell_of_lint(report, "r750", "table")
    said = capsys.readouterr().err
    assert "241 BIOS settings against R of r750: 0 errors, 0 remarks" in said
    assert "in 2 steps" in said
    assert "Attribute7" not in said
    tell_of_lint(report, "r750", "wide")
    assert "Attribute239; then Last" in capsys.readouterr().err


def test_lint_against_a_folder_is_the_same(here: Path, recording: Callable[[str], Path]) -> None:
    import zipfile

    with zipfile.ZipFile(recording("nvidia-gb200-openbmc")) as archive:
        archive.extractall(here / "unpacked")
    found = run("lint", "openbmc-gb200", "--against", str(here / "unpacked"))
    assert found.exit_code == 0
    assert "6 BIOS settings against BiosAttributeRegistry of" in found.stderr


def test_lint_against_a_machine_without_a_registry_says_so(here: Path, recording: Callable[[str], Path]) -> None:
    found = run("lint", "supermicro-x13", "--against", str(recording("supermicro-x10sdv-redfish101")))
    assert type(found.exception).__name__ == "BmcUnsupported"
    assert "has no attribute registry" in str(found.exception)


def test_lint_against_nothing_is_a_usage_error(here: Path) -> None:
    found = run("lint", "dell", "--against", "nowhere.zip")
    assert type(found.exception).__name__ == "UsageError"
    (here / "empty").mkdir()
    found = run("lint", "dell", "--against", "empty")
    assert "has no index.json" in str(found.exception)


@contextmanager
def r750(site: Path, recording: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[RedfishServer]:
    """Host r750 of the site, as recorded."""
    monkeypatch.setenv("LAB_USERNAME", USER)
    monkeypatch.setenv("LAB_PASSWORD", PASSWORD)
    with RedfishServer(tree_of(recording(DELL))) as server:
        (site / "hosts" / "r1.yaml").write_text(f"- {{name: r750, bmc: '{server.address}'}}\n")
        yield server


def test_lint_and_capture_against_a_host_write_nothing(
    site: Path, recording: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with r750(site, recording, monkeypatch) as server:
        found = run("lint", "dell-poweredge-r750", "--against", "r750")
        assert found.exception is None, found.exception
        assert "0 errors" in found.stderr
        assert len(server.requests) < 12
        captured = run("capture", "r750", "--out", "mine.yaml")
        assert captured.exception is None, captured.exception
        assert server.writes == []
        assert server.sessions == {}
    text = (site / "mine.yaml").read_text()
    assert "#   r750: Dell Inc. PowerEdge R750, BIOS 1.8.2" in text
    assert run("lint", "mine.yaml", "--against", str(recording(DELL))).exit_code == 0
    again = run("capture", "r750", "--out", "mine.yaml")
    assert "is there already" in str(again.exception)  # before anybody was asked


def test_capture_after_a_scan_without_a_profile_passes_its_own_lint(
    site: Path, recording: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the README has it. Nothing needed the registry before, so it is fetched now, once, and kept."""
    with r750(site, recording, monkeypatch) as server:
        opened = OpenSite(site)
        scan(opened)
        opened.close()
        found = run("capture", "r750", "--out", "mine.yaml")
        assert found.exception is None, found.exception
        assert "read-only attributes may be" not in found.output + (site / "mine.yaml").read_text()
        assert "CurrentMemOpModeState" not in (site / "mine.yaml").read_text()
        linted = run("lint", "mine.yaml", "--against", "r750")
        assert (linted.exit_code, "0 errors" in linted.stderr) == (0, True), linted.output
        asked = len(server.requests)
        assert run("capture", "r750").exit_code == 0
        assert len(server.requests) == asked
        assert (server.writes, server.sessions) == ([], {})


def test_capture_without_a_registry_says_what_may_be_wrong(scanned: Path) -> None:
    """Its BMC answers no more, and the scan left none."""
    opened = OpenSite(scanned)
    opened.store.keep_registry("Acme", "A1", "1.0", Unknown(Reason.timeout))
    opened.close()
    found = run("capture", "r1-1", "r1-2")
    assert found.exit_code == 0
    assert "no attribute registry of r1-1, r1-2: read-only attributes may be" in found.stderr
    assert yaml.safe_load(found.stdout)["bios_raw"] == {"Speed": "3 GHz"}


def test_diff_setting_by_setting(here: Path) -> None:
    profile(here, "a", bios={"sriov": "enabled", "turbo": "enabled"}, bmc={"accounts": {"present": ["root"]}})
    profile(
        here,
        "b",
        bios={"sriov": "disabled", "turbo": {"value": "enabled", "severity": "critical"}},
        firmware={"bios": {"at_least": "2.10"}},
    )
    found = json.loads(run("diff", "a.yaml", "b.yaml", "-o", "json").output)
    assert [(d["setting"], d["change"]) for d in found] == [
        ("bios.sriov", "differs"),
        ("bios.turbo", "same value"),
        ("bmc.accounts", "only in A"),
        ("firmware.bios", "only in B"),
    ]
    assert (found[0]["a"], found[0]["b"]) == ("enabled", "disabled")
    assert found[1]["b"] == "enabled, severity critical"
    assert "ask for the same" in run("diff", "a.yaml", "a.yaml").output


def test_capture_from_recordings_of_two_machines(here: Path, recording: Callable[[str], Path]) -> None:
    one, other = recording("hpe-dl360-gen10plus-ilo5"), recording("hpe-dl380a-gen12-ilo7")
    found = run("capture", "--from", str(one), "--from", str(other))
    assert found.exit_code == 0
    document = yaml.safe_load(found.output)
    assert document["match"] == {"vendor": "hpe"}
    assert document["bios"]["sriov"] == "enabled"
    assert "#   hardware.memory.sizes" in found.output


def test_capture_from_nothing(here: Path) -> None:
    assert type(run("capture").exception).__name__ == "UsageError"
    assert type(run("capture", "r1").exception).__name__ == "UsageError"


REGISTRY = Registry(
    id="R", source="/r", attributes={"Speed": Attribute(name="Speed", type="String", read_only=True)}, owner="Acme"
)
ABOUT = About(manufacturer="Acme", model="A1", bios_version="1.0", bmc_version="2.0", profile="acme")
VALUES = {
    "bios.Turbo": "Enabled",
    "bios.Speed": "3 GHz",
    "bmc.ntp.enabled": True,
    "bmc.clock": 0.5,
    "boot.mode": "UEFI",
}


def result(host: str, values: dict[str, Any], findings: list[Finding]) -> Scanned:
    identity = SystemIdentity("1", "/redfish/v1/Systems/1", "Acme", "A1")
    snapshot = Snapshot(host=host, at=1000.0, identity=identity, bmc={}, power=PowerState.on, settings=values)
    return Scanned(host=host, at=1000.0, snapshot=snapshot, findings=tuple(findings), about=ABOUT)


@pytest.fixture
def scanned(site: Path) -> Path:
    opened = OpenSite(site)
    store = opened.store
    store.keep_registry("Acme", "A1", "1.0", REGISTRY)
    findings = [
        Finding(setting="bios.Turbo", word=Word.match, expected="on", actual="Enabled", severity="warning"),
        Finding(setting="bmc.ntp.enabled", word=Word.differs, expected="on", actual="true", severity="warning"),
    ]
    scan = store.begin_scan({}, trigger="test", hosts=["r1-1", "r1-2"]).id
    other = VALUES | {"bios.Turbo": "Disabled"}
    store.record_scanned(scan, [result("r1-1", VALUES, findings), result("r1-2", other, findings[:1])])
    store.finish_scan(scan, {})
    opened.close()
    return site


def test_coverage_counts_what_could_be_decided(scanned: Path) -> None:
    found = json.loads(run("coverage", "-o", "json").output)
    assert [(f["host"], f["covered"], f["settings"], f["percent"]) for f in found] == [
        ("r1-1", 2, 3, 66.7),
        ("r1-2", 1, 3, 33.3),
    ]
    assert found[0]["not_covered"] == ["boot.mode"]  # not the clock, and not what is read-only
    assert found[0]["bios"] == "1 of 1"
    assert found[0]["profile"] == "acme"
    named = json.loads(run("coverage", "r1-2", "-o", "json").output)
    assert [f["host"] for f in named] == ["r1-2"]


def test_coverage_of_hosts_that_nobody_scanned(scanned: Path) -> None:
    found = run("coverage", "r1-3")
    assert found.exit_code == 0
    assert "scan" in found.stderr


def test_what_is_not_covered_is_a_table_too(scanned: Path) -> None:
    found = run("coverage", "--uncovered")
    assert found.exit_code == 0
    assert [line.split() for line in found.output.splitlines()][1:] == [
        ["boot.mode", "2", "r1-1,", "r1-2"],
        ["bmc.ntp.enabled", "1", "r1-2"],
    ]


def test_capture_takes_what_the_last_scan_left(scanned: Path) -> None:
    found = run("capture", "r1-1", "r1-2")
    assert found.exception is None, found.exception
    document = yaml.safe_load(found.output)
    assert document == {
        "match": {"vendor": "Acme", "model": "A1"},
        "boot_mode": "UEFI",
        "bmc": {"ntp": {"enabled": True}},
    }
    assert "#   r1-1: Acme A1, BIOS 1.0, BMC 2.0, read on 1970-01-01" in found.output
    assert "#   bios.Turbo\n#     Enabled: r1-1\n#     Disabled: r1-2\n" in found.output
    assert type(run("capture", "r9-9").exception).__name__ == "NotFound"


def test_exit_status_of_the_program(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through main: errors are printed with their hint, and 2 is for documents."""
    profile(here, "p", bios={"srov": "enabled"})
    assert program(["profile", "lint", "p.yaml"]) == 2
    assert "write sriov" in capsys.readouterr().err
    assert program(["profile", "lint", "dell"]) == 0
