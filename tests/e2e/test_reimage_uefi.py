"""One UEFI server from nothing to version 1, to version 2, and back: each proven, with the fewest boots, bytes and requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from e2e_rig import Rig, plain

from metalimmu.store.records import DeploymentRecord, HostRecord

pytestmark = pytest.mark.e2e

NODE = "node-1"


@dataclass(frozen=True)
class Told:
    """A plan, what its run did, and what was so when the run had ended."""

    plan: dict[str, Any]
    writes: list[tuple[str, str, Any]]
    boots: int  # starts and resets of the machine, as QEMU counts them
    systems: tuple[int, int]  # ramdisks and installed systems that came up
    deployment: DeploymentRecord
    host: HostRecord
    bmc: tuple[str, str, str]
    said: str


def carried_out(rig: Rig, *verb: str, **plan: str) -> Told:
    words = [word for name, value in plan.items() for word in (f"--{name}", value)]
    (planned,) = rig.json("plan", NODE, *words)
    asked, boots, systems = len(rig.lab.requests(NODE)), rig.starts_and_resets(), rig.boots()
    said = rig(*verb)
    now = rig.boots()
    return Told(
        plan=planned,
        writes=rig.writes(since=asked),
        boots=rig.starts_and_resets() - boots,
        systems=(now[0] - systems[0], now[1] - systems[1]),
        deployment=rig.deployed(),
        host=rig.host(),
        bmc=rig.bmc(),
        said=said,
    )


@pytest.fixture(scope="module")
def rig(up_for_all) -> Rig:
    made = up_for_all("uefi", firmware="uefi", disk_size=1 << 30)
    made.limits(report_again="5s")
    return made


@pytest.fixture(scope="module")
def first(rig: Rig) -> Told:
    return carried_out(rig, "reimage", NODE, "--yes")


@pytest.fixture(scope="module")
def second(rig: Rig, first: Told) -> Told:
    rig.role(image="tiny@2")
    return carried_out(rig, "reimage", NODE, "--yes")


@pytest.fixture(scope="module")
def repeated(rig: Rig, second: Told) -> Told:
    return carried_out(rig, "reimage", NODE, "--yes")


@pytest.fixture(scope="module")
def back(rig: Rig, repeated: Told) -> Told:
    return carried_out(rig, "rollback", NODE, "--yes", "--hold", "--reason", "version 2 was too new", image="tiny@1")


def whole(told: Told) -> None:
    """Proven, with all that this stands on; nothing left behind."""
    assert (told.host.state, told.host.proof, told.host.quarantine, told.host.error) == ("active", "proven", None, None)
    assert told.bmc == ("On", "", "")
    proof = told.host.proof_evidence
    serial = told.plan["identity"]["serial"]
    assert proof["check_in"]["serial"] == serial
    assert proof["system"]["serial"] == serial
    assert f"{proof['system']['image_id']}@{proof['system']['image_version']}" == told.host.image
    assert told.deployment.read_back_ok is True
    assert told.deployment.report is not None
    assert proof["read_back"] == told.deployment.report.read_back
    assert proof["config_digest"] == told.deployment.config_digest == proof["system"]["config_digest"]
    assert proof["disk"] == "/dev/vda"
    assert proof["media_ejected"] is True
    assert proof["override_cleared"] is True


def test_version_1_is_proven(first: Told) -> None:
    whole(first)
    assert (first.host.image, first.host.previous_image) == ("tiny@1", None)
    assert first.deployment.check_in is not None
    assert first.deployment.check_in.firmware == "uefi"
    assert "tiny@1: proven" in first.said


def test_two_boots_and_no_more(first: Told, second: Told, back: Told) -> None:
    for told in (first, second, back):
        assert told.boots == 2
        assert told.systems == (1, 1)
        assert sum(step["boots"] for step in told.plan["steps"]) == 2
        assert len(told.deployment.boot_ids) == 1


def test_the_bmc_was_asked_what_the_plan_lists(first: Told, second: Told, back: Told) -> None:
    for told in (first, second, back):
        steps = told.plan["steps"]
        will = [(r["method"], r["path"], plain(r["body"])) for s in steps for r in s["requests"]]
        assert len(will) == 4  # insert, override, power, eject: this BMC clears a one-time override itself
        assert told.writes == will


def test_the_firmwares_first_entry_is_ours_and_the_old_one_is_gone(first: Told, second: Told) -> None:
    for told in (first, second):
        assert told.deployment.report is not None
        entries = told.deployment.report.efi_entries
        assert f"metalimmu {told.host.image}" in entries[0]
        assert len([e for e in entries if "metalimmu" in e]) == 1, entries


def test_only_changed_chunks_move(rig: Rig, second: Told, back: Told) -> None:
    whole(second)
    assert (second.host.image, second.host.previous_image) == ("tiny@2", "tiny@1")
    for told, old, new in ((second, "tiny@1", "tiny@2"), (back, "tiny@2", "tiny@1")):
        changed = rig.changed_chunks(old, new)
        report = told.deployment.report
        assert report is not None
        # One more: the first chunk has the partition table, which was made to fit the disk's size.
        assert report.fetched_chunks == len(changed) + 1
        assert report.fetched_chunks + report.kept_chunks == len([c for c in rig.chunks(new) if c])
        assert told.deployment.chunk_bytes <= 1.2 * rig.stored(changed)
        assert told.plan["transfer"] == rig.stored(changed)


def test_a_host_proven_at_this_image_is_left_alone(repeated: Told, second: Told) -> None:
    assert "already proven at tiny@2" in repeated.said
    assert repeated.plan["steps"] == []
    assert (repeated.writes, repeated.boots) == ([], 0)
    assert repeated.deployment.id == second.deployment.id


def test_a_rollback_with_hold_and_the_site_agrees(rig: Rig, back: Told) -> None:
    whole(back)
    assert (back.host.image, back.host.previous_image) == ("tiny@1", "tiny@2")
    assert "held: node-1 at tiny@1" in back.said
    (hold,) = yaml.safe_load((rig.lab.site / "holds.yaml").read_text())
    assert (hold["host"], hold["image"], hold["reason"]) == (NODE, "tiny@1", "version 2 was too new")
    (row,) = rig.json("host", "list", "-l", "image=tiny@1,proof=proven")
    assert (row["wanted"], row["image"], row["state"], row["proof"]) == ("tiny@1", "tiny@1", "active", "proven")
    assert rig.json("host", "list", "-l", "image=tiny@2") == []
    assert "already proven at tiny@1" in rig("plan", NODE)


def test_it_proves_itself_again(rig: Rig, back: Told) -> None:
    assert "node-1: proven at tiny@1" in rig("prove", NODE)
    again = rig.host().proof_evidence["again"]
    assert again["system"]["boot_id"] == back.host.proof_evidence["system"]["boot_id"]  # it did not boot meanwhile
    assert again["at"] > back.host.proof_evidence["at"]


def test_its_history_and_its_runs_are_kept(rig: Rig, first: Told, second: Told, back: Told) -> None:
    runs = rig.json("run", "list", "--host", NODE)
    assert [(r["verb"], r["status"]) for r in runs] == [
        ("rollback", "succeeded"),
        ("reimage", "succeeded"),
        ("reimage", "succeeded"),
    ]
    history = [row["text"] for row in rig.json("history", NODE)]
    proven = [text for text in history if "is proven at" in text]
    assert [text.rpartition(" ")[2] for text in proven] == ["tiny@1", "tiny@2", "tiny@1"]
    assert any("checked in" in text for text in history), history
    (shown,) = rig.json("run", "show", first.deployment.run)
    assert [s["name"] for s in shown["steps"]] == [s["name"] for s in first.plan["steps"]]
    assert all(s["outcome"] in ("done", "skipped") for s in shown["steps"])


def test_power_and_inventory(rig: Rig, back: Told) -> None:
    assert rig("power", "status", NODE).strip() == "node-1: On"
    systems = rig.boots()[1]
    assert rig("power", "off", NODE, "--yes").strip() == "node-1: Off"
    assert rig.bmc() == ("Off", "", "")
    assert rig("power", "on", NODE).strip() == "node-1: On"
    (seen,) = rig.json("host", "inspect", NODE)
    server = rig.lab.server(NODE)
    assert seen["identity"]["serial"] == server.serial
    assert seen["identity"]["uuid"].lower() == server.uuid
    rig.until(lambda: rig.boots()[1] == systems + 1, "the installed system's boot, by itself")
