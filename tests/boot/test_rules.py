"""What a machine is told, case by case."""

from __future__ import annotations

import dataclasses
import re

import pytest

from metalimmu.boot import rules
from metalimmu.store.records import DeploymentRecord
from metalimmu.wire.manifest import CHUNK, Manifest, read_back_digest
from metalimmu.wire.messages import (
    Assignment,
    CheckIn,
    Disk,
    Failure,
    Identity,
    Nic,
    Progress,
    Report,
    RootDisk,
    SystemReport,
)

UUID = "00112233-4455-6677-8899-aabbccddeeff"
OTHER_ORDER = "33221100-5544-7766-8899-aabbccddeeff"
MAC = "52:54:00:00:00:01"
NOW = 1000.0

MANIFEST = Manifest("disk", "x86_64", 3 * CHUNK, ("a" * 64, None, "b" * 64), build_id="b-2", firmware=("uefi",))
READ_BACK = read_back_digest(MANIFEST.chunks)

SAID = CheckIn(
    Identity("SN1", UUID, nics=(Nic("eth0", MAC), Nic("eth1", "52:54:00:00:00:02"))), "x86_64", "uefi", "boot-1", "1"
)
REPORT = Report(Disk("/dev/sda", 10), MANIFEST.digest, READ_BACK, "boot-1", config_digest="c1")
SYSTEM = SystemReport("web", "2", "b-2", "SN1", "boot-9", uuid=UUID, config_digest="c1")


def record(**fields) -> DeploymentRecord:
    wanted = {"serial": "SN1", "uuid": UUID, "nics": (MAC,)} | fields.pop("expected", {})
    assignment = Assignment(
        deployment="d1",
        fence=0,
        stage="write",
        image="web@2",
        digest=MANIFEST.digest,
        chunk_base="",
        root_disk=RootDisk(),
        **wanted,
    )
    given = {
        "id": "d1",
        "run": "r1",
        "host": "n1",
        "token_hash": "",
        "proof_hash": "",
        "media_hash": "",
        "chunk_hash": "",
        "assignment": assignment,
        "fence": 3,
        "config_digest": "c1",
    }
    return DeploymentRecord(**(given | fields))


def bound(**fields) -> DeploymentRecord:
    return record(check_in=SAID, boot_ids=("boot-1",), **fields)


def identity(**fields) -> CheckIn:
    return dataclasses.replace(SAID, identity=dataclasses.replace(SAID.identity, **fields))


ACCEPTED = {
    "the expected machine": (record(), SAID),
    "serial in other case and with spaces": (record(), identity(serial=" sn1 ")),
    "uuid in the other byte order": (record(), identity(uuid=OTHER_ORDER)),
    "uuid in capitals": (record(), identity(uuid=UUID.upper())),
    "a uuid that is none, the same on both sides": (record(expected={"uuid": "Not Set"}), identity(uuid="not set")),
    "MAC in capitals": (record(), identity(nics=(Nic("eth0", MAC.upper()),))),
    "nothing expected": (
        record(expected={"serial": "", "uuid": "", "nics": ()}),
        identity(serial="", uuid="", nics=()),
    ),
    "the same machine again": (bound(), SAID),
    "the same machine, another boot": (bound(), dataclasses.replace(SAID, boot_id="boot-2")),
    "an older fence": (record(), dataclasses.replace(SAID, fence=2)),
    "architecture by another name": (record(), dataclasses.replace(SAID, architecture="amd64")),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_check_in_is_accepted(case):
    d, said = ACCEPTED[case]
    verdict = rules.check_in(d, said, MANIFEST, NOW)
    assert verdict.refusal is None
    assert verdict.changes["last_seen"] == NOW
    assert ("check_in" in verdict.changes) == (d.check_in is None)
    assert (verdict.changes.get("boot_ids") or d.boot_ids)[-1] == said.boot_id
    assert ("progressed" in verdict.changes) == (said.boot_id not in d.boot_ids)


REFUSED = {
    "another serial": (record(), identity(serial="SN2"), "IdentityMismatch", "its serial is SN2, expected SN1"),
    "no serial": (record(), identity(serial=""), "IdentityMismatch", "its serial is empty, expected SN1"),
    "another uuid": (record(), identity(uuid=UUID[:-1] + "0"), "IdentityMismatch", "its UUID is"),
    "a missing NIC": (record(), identity(nics=()), "IdentityMismatch", f"it lacks the NICs {MAC}; it has none"),
    "a second machine": (
        bound(expected={"serial": "", "uuid": "", "nics": ()}),
        identity(serial="SN2"),
        "IdentityMismatch",
        "SN1 .* checked in first, now SN2",
    ),
    "another protocol": (record(), dataclasses.replace(SAID, protocol=2), "AgentRefused", "speaks protocol 2"),
    "a newer fence": (record(), dataclasses.replace(SAID, fence=4), "LeaseLost", "has seen fence 4"),
    "over": (record(ended=1.0), SAID, "AgentRefused", "d1 of n1 is over"),
    "another architecture": (
        record(),
        dataclasses.replace(SAID, architecture="aarch64"),
        "ImageError",
        "is for x86_64",
    ),
    "another firmware": (record(), dataclasses.replace(SAID, firmware="bios"), "ImageError", "boots by uefi"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_check_in_is_refused(case):
    d, said, code, text = REFUSED[case]
    verdict = rules.check_in(d, said, MANIFEST, NOW)
    assert verdict.refusal is not None
    assert verdict.refusal.code == code
    assert re.search(text, verdict.refusal.message)
    assert verdict.status in (403, 409)
    assert not {"check_in", "boot_ids", "stage"} & set(verdict.changes)


def test_a_refused_machine_is_evidence_with_both_identities():
    verdict = rules.check_in(record(), identity(serial="SN2\x1b[2J"), MANIFEST, NOW)
    kept = verdict.changes["refusal"]
    assert kept.code == "IdentityMismatch"
    assert kept.evidence["serial"] == "SN2\N{REPLACEMENT CHARACTER}[2J"
    assert kept.evidence["expected_serial"] == "SN1"
    assert kept.evidence["nics"] == f"{MAC}, 52:54:00:00:00:02"
    assert kept.evidence["expected_nics"] == MAC
    assert verdict.changes["refused_at"] == NOW


def test_the_right_machine_clears_an_earlier_refusal():
    refused = record(refusal=Failure("IdentityMismatch", "x"), refused_at=1.0)
    assert rules.check_in(refused, SAID, MANIFEST, NOW).changes["refusal"] is None


@pytest.mark.parametrize(
    ("fields", "stage", "go"),
    [
        ({}, "write", False),
        ({"stage": "wait"}, "wait", False),
        ({"stage": "wait", "go": True}, "wait", True),
        ({"stage": "wait", "go": True, "stop": "cancelled"}, "done", False),
        ({"stop": "cancelled"}, "done", False),
        ({"stage": "done"}, "done", False),
    ],
)
def test_orders_and_assignment_follow_the_record(fields, stage, go):
    d = record(**fields)
    orders = rules.orders(d)
    assert (orders.stage, orders.go, orders.stop, orders.fence) == (stage, go, fields.get("stop", ""), 3)
    task = rules.assignment(d, "http://c", NOW)
    assert (task.stage, task.fence, task.chunk_base, task.clock, task.host) == (stage, 3, "http://c", NOW, "n1")


SPOKEN = [
    (bound(), "boot-1", 3, None),
    (bound(), "boot-1", 0, None),
    (record(), "boot-1", 0, "AgentRefused"),
    (bound(), "", 0, "AgentRefused"),
    (bound(), "boot-2", 0, "AgentRefused"),
    (record(check_in=SAID, boot_ids=("boot-1", "boot-2")), "boot-1", 0, "AgentRefused"),
    (record(check_in=SAID, boot_ids=("boot-1", "boot-2")), "boot-2", 0, None),
    (bound(), "boot-1", 4, "LeaseLost"),
    (bound(ended=1.0), "boot-1", 0, "AgentRefused"),
]


@pytest.mark.parametrize(("d", "boot_id", "fence", "code"), SPOKEN)
def test_only_the_newest_boot_of_the_bound_machine_speaks(d, boot_id, fence, code):
    refusal = rules.spoken(d, boot_id, fence).refusal
    assert (refusal.code if refusal else None) == code


def test_a_good_report_means_wait():
    changes = rules.report(bound(), REPORT, MANIFEST, NOW).changes
    assert changes == {"report": REPORT, "read_back_ok": True, "stage": "wait", "last_seen": NOW, "written": NOW}


def test_a_report_that_comes_again_keeps_its_time():
    assert "written" not in rules.report(bound(report=REPORT, written=5.0), REPORT, MANIFEST, NOW).changes


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"read_back": "0" * 64}, "reads back as 000"),
        ({"read_back": READ_BACK.upper()}, "reads back as"),
        ({"digest": "sha256:" + "0" * 64}, "the machine wrote sha256:000"),
        ({"config_digest": "c2"}, "config on the disk is c2, it should be c1"),
        ({"config_digest": ""}, "config on the disk is none"),
    ],
)
def test_a_report_that_differs_stops_the_machine(fields, text):
    verdict = rules.report(bound(), dataclasses.replace(REPORT, **fields), MANIFEST, NOW)
    assert verdict.changes["read_back_ok"] is False
    assert text in verdict.changes["stop"]
    assert verdict.changes["failure"].code == "ReadBackDiffers"
    assert "stage" not in verdict.changes


def test_a_report_of_another_boot_is_refused():
    verdict = rules.report(bound(), dataclasses.replace(REPORT, boot_id="boot-2"), MANIFEST, NOW)
    assert verdict.refusal is not None
    assert verdict.changes == {}


def test_the_awaited_system_is_acknowledged():
    d = bound(stage="wait", report=REPORT)
    verdict = rules.system(d, SYSTEM, MANIFEST, NOW)
    assert verdict.changes == {"system": SYSTEM, "system_ok": True, "system_why": "", "system_at": NOW}
    assert not rules.acknowledges(d, SYSTEM, MANIFEST)
    assert rules.acknowledges(bound(system_ok=True), SYSTEM, MANIFEST)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"image_id": "db"}, "it is db@2, expected web@2"),
        ({"image_version": "1"}, "it is web@1, expected web@2"),
        ({"image_version": ""}, "it is web@?, expected web@2"),
        ({"build_id": "b-1"}, "its build is b-1, expected b-2"),
        ({"serial": "SN2"}, "its serial is SN2, expected SN1"),
        ({"uuid": UUID[:-1] + "0"}, "its UUID is"),
        ({"boot_id": "boot-1"}, "its boot id is the ramdisk's"),
        ({"boot_id": ""}, "its boot id is the ramdisk's"),
        ({"config_digest": "c2"}, "its run-time config is c2"),
    ],
)
def test_another_system_is_evidence_and_not_acknowledged(fields, text):
    said = dataclasses.replace(SYSTEM, **fields)
    verdict = rules.system(bound(), said, MANIFEST, NOW)
    assert verdict.changes["system_ok"] is False
    assert text in verdict.changes["system_why"]
    assert not rules.acknowledges(bound(system_ok=True), said, MANIFEST)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ("", "its root is to be a RAID 1, and it runs none (arrays: none)"),
        ("md1 raid5 3/3", "(arrays: md1 raid5 3/3)"),
        ("md127 raid1 2/2", ""),
        ("md127 raid1 1/2", ""),  # a disk that died meanwhile is another matter
    ],
)
def test_a_mirror_is_proven_by_a_system_that_runs_one(arrays, text):
    """A system that mounts one half writes only there, and nobody would notice."""
    d = bound(expected={"mirrored": True})
    why = rules.another_system(d, dataclasses.replace(SYSTEM, arrays=arrays), MANIFEST)
    assert (text in why) if text else not why


@pytest.mark.parametrize("fields", [{"uuid": ""}, {"uuid": OTHER_ORDER}, {"serial": "sn1"}, {"config_digest": ""}])
def test_what_a_small_system_does_not_know_is_not_held_against_it(fields):
    assert rules.not_the_system(bound(), dataclasses.replace(SYSTEM, **fields), MANIFEST) == ""


def test_evidence_stays_after_the_acknowledgement():
    wrong = dataclasses.replace(SYSTEM, image_version="1")
    changes = rules.system(bound(system_ok=True, system=SYSTEM), wrong, MANIFEST, NOW).changes
    assert set(changes) == {"system_why", "system_at"}  # said, for who asks again; what was proven stays
    assert "@1" in changes["system_why"]


def test_a_finished_deployment_still_acknowledges_what_it_has_seen():
    """The unit asks until it hears the answer, and the answer may have been lost."""
    done = bound(system_ok=True, system=SYSTEM, ended=5.0)
    verdict = rules.system(done, SYSTEM, MANIFEST, NOW)
    assert verdict.refusal is None
    assert verdict.changes == {"system": SYSTEM, "system_at": NOW, "system_why": ""}
    assert rules.acknowledges(done, SYSTEM, MANIFEST)
    assert rules.system(bound(ended=5.0), SYSTEM, MANIFEST, NOW).refusal is not None


def test_the_echo_of_our_own_stop_does_not_replace_the_reason():
    said = Failure("AgentRefused", "the controller says stop", boot_id="boot-1")
    assert "failure" in rules.failure(bound(), said, NOW).changes
    assert rules.failure(bound(stop="read-back differs"), said, NOW).changes == {"last_seen": NOW}
    real = dataclasses.replace(said, code="DiskUnsuitable")
    assert "failure" in rules.failure(bound(stop="cancelled"), real, NOW).changes


def test_progress_is_bounded_and_clean():
    said = Progress("write" * 100, 1, 2, log=("a\x1b[31mb", "c" * 5000, *["x"] * 500))
    assert rules.progress(said).log == ()
    assert len(rules.progress(said).phase) == 40
    lines = rules.log_lines(said)
    assert lines[0] == "a\N{REPLACEMENT CHARACTER}[31mb"
    assert len(lines[1]) == rules.MAX_LINE
    assert len(lines) == rules.MAX_LOG_LINES + 1
    assert lines[-1] == "(302 more lines left out)"


@pytest.mark.parametrize(
    ("boots", "progress", "looks"),
    [
        (("boot-1", "boot-2"), Progress("write", 5, 10), True),
        (("boot-1", "boot-2"), Progress("read-back"), True),
        (("boot-1",), Progress("write", 5, 10), False),
        (("boot-1", "boot-2"), None, False),
        (("boot-1", "boot-2"), Progress("identify"), False),
    ],
)
def test_a_machine_that_restarts_in_mid_write_is_told_to_look_at_its_disk_first(boots, progress, looks):
    d = record(check_in=SAID, boot_ids=boots, progress=progress)
    wanted = d.digest if looks else d.assignment.previous_digest
    assert rules.assignment(d, "", NOW).previous_digest == wanted


@pytest.mark.parametrize(
    ("fields", "instance", "heard", "ok"),
    [
        ({"went": 5.0}, "node-1-{id}", True, True),
        ({"went": 5.0}, "i-other", True, False),
        ({"went": None}, "node-1-{id}", False, False),
        ({"went": 5.0, "proof_by": "report"}, "node-1-{id}", False, False),
    ],
)
def test_phone_home_counts_only_where_the_role_asks_for_it_and_after_go(fields, instance, heard, ok):
    d = bound(**{"proof_by": "phone_home", **fields})
    verdict = rules.phoned_home(d, instance.format(id=d.id).replace("node-1", d.host), "node-1", NOW)
    assert (verdict.status != 404) is heard
    assert verdict.changes.get("system_ok", False) is ok
    if ok:
        assert "phoned home" in verdict.changes["system"].note
