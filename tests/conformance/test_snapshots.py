"""Snapshots of real machines, walked over their recordings with no network: what is read, what it costs, what is unknown."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import sushy
import sushy.auth
import sushy.connector
from subjects import named, recordings
from walked import V1, Memory, Recorded, Target, from_zip

from metalimmu.bmc import logs, passwords, uris
from metalimmu.bmc.answers import Answer
from metalimmu.bmc.walk import EVERYTHING, Want, drive, make_of
from metalimmu.observed.log_entry import LogKind
from metalimmu.observed.snapshot import Snapshot, canonical
from metalimmu.observed.types import PowerState, Reason, SystemIdentity, Unknown

FOUND = {path.stem: path for path in recordings()}
JOB = Want(frozenset({"bios", "firmware"}))
"""BIOS attributes and firmware: the job that the collector's speed is measured by."""


@dataclass
class Facts:
    settings: dict[str, int]  # by section, of EVERYTHING
    says: dict[str, object]  # what a person who knows the machine would say
    unknown: dict[str, Reason]
    requests: tuple[int, int, int]  # JOB plain, with `$expand`, with remembered paths
    whole: tuple[int, int]  # the usual sections, plain and with all that was learnt
    idle: set[str] = field(default_factory=set)  # firmware that does not run
    ambiguous: dict[str, int] = field(default_factory=dict)
    staged: set[str] = field(default_factory=set)
    notes: tuple[str, ...] = ()  # beside that of the clock, which stood still when it was recorded


NOT = Reason.not_modelled
NO_SYSLOG = {"bmc.syslog.enabled": NOT, "bmc.syslog.servers": NOT}
FACTS = {
    "dell-poweredge-r750-idrac9": Facts(
        settings={"bios": 445, "firmware": 21, "boot": 3, "secure_boot": 3, "bmc": 22, "hardware": 15, "cabling": 1},
        says={
            "bios.LogicalProc": "Enabled",
            "bios.BootMode": "Uefi",
            "firmware.bios": "1.8.2",
            "firmware.bmc": "6.00.30.00",
            "firmware.NIC.Slot.5-1": "24.40.10.00",
            "boot.mode": "UEFI",
            "boot.override": "None",
            "secure_boot.enabled": False,
            "bmc.ntp.enabled": False,
            "bmc.dns.servers": ("192.168.126.21",),
            "bmc.syslog.servers": (),
            "bmc.lockdown": "Disabled",
            "bmc.protocol.telnet": False,
            "bmc.accounts": ("root", "tests_admin"),
            "bmc.account.root.role": "Administrator",
            "bmc.certificate.not_after": "2032-11-23T01:28:00Z",
            "hardware.memory.total": 16 * (32 << 30),
            "hardware.disks.models": ("Dell Ent NVMe CM6 RI 1.92TB",) * 3,
            "hardware.accelerators.models": ("NVIDIA H100 PCIe",),
            "hardware.power_supplies.watts": (2400, 2400),
            "hardware.health": "OK",
            "cabling.iDRAC.Embedded.1": "b0:4f:13:ab:13:43 swp20",
        },
        unknown={},
        requests=(35, 6, 3),
        whole=(47, 10),
        idle={"bios 1.8.2", "bios 1.2.4", "bmc 4.40.29.00", "RAID.Backplane.Firmware.1 3.48", "NIC.Integrated.1-1-1 21.80.16.95",
              "NIC.Integrated.1-2-1 21.80.16.95", "NIC.Embedded.1-1-1 21.80.9", "NIC.Embedded.2-1-1 21.80.9"},
    ),
    "hpe-dl360-gen10plus-ilo5": Facts(
        settings={"bios": 276, "firmware": 21, "boot": 3, "secure_boot": 3, "bmc": 19, "hardware": 13, "cabling": 2},
        says={
            "bios.WorkloadProfile": "GeneralPowerEfficientCompute",
            "firmware.bios": "2.34",
            "firmware.bmc": "3.11",
            "firmware.Power Supply Firmware Bay 2": "2.00",
            "boot.mode": "UEFI",
            "secure_boot.enabled": False,
            "bmc.syslog.enabled": False,
            "bmc.ntp.servers": (),
            "bmc.protocol.ipmi": False,
            "bmc.certificate.not_after": "2040-04-28T06:22:06Z",
            "hardware.processors.models": ("Intel(R) Xeon(R) Silver 4310 CPU @ 2.10GHz",) * 2,
            "hardware.memory.sizes": (16 << 30,) * 12,
            "cabling.DE080000 port 1": "bc:d7:a5:72:b3:7b 1/1",
        },
        unknown={"bmc.ntp.enabled": NOT, "bmc.lockdown": NOT},
        requests=(29, 6, 3),
        whole=(54, 13),
        idle={"Redundant System ROM 1.80"},
        ambiguous={"8 SFF 24G x1NVMe/SAS UBM6 BC BP Slot=12:Port=2I:Box=1": 2},
    ),
    "hpe-dl380a-gen12-ilo7": Facts(
        settings={"bios": 350, "firmware": 42, "boot": 3, "secure_boot": 3, "bmc": 19, "hardware": 15},
        says={
            "firmware.bios": "1.34",
            "firmware.bmc": "1.13.01",
            "firmware.NVIDIA H200 NVL PCI-E Slot 13": "96.00.B7.00.02",
            "bmc.ntp.enabled": False,
            "bmc.dns.servers": ("172.16.0.1",),
            "hardware.accelerators.count": 4,
            "hardware.memory.total": 16 * (96 << 30),
            "hardware.health": "Warning",
        },
        unknown={"bmc.lockdown": NOT},
        requests=(49, 6, 3),
        whole=(84, 13),
        ambiguous={"PCIe Captive Riser MCU Firmware": 2},
    ),
    "lenovo-sr670v2-xcc": Facts(
        settings={"bios": 347, "firmware": 40, "boot": 3, "secure_boot": 3, "bmc": 16, "hardware": 15},
        says={
            "bios.BootModes_SystemBootMode": "UEFIMode",
            "firmware.bios": "1.51",
            "firmware.bmc": "2.83",
            "firmware.Software Bundle Slot_3.1": "95.02.39.00.01",
            "firmware.Micron_7450_MTFDKBA960TFR Disk1": "E2MU200",
            "boot.order": ("Network", "HardDisk"),
            "boot.mode": "UEFI",
            "bmc.dns.servers": ("192.168.126.14", "7.2.2.3"),
            "bmc.accounts": ("root",),
            "hardware.accelerators.count": 8,
            "hardware.memory.total": 1 << 40,
        },
        unknown=NO_SYSLOG | {"bmc.lockdown": NOT, "cabling": NOT},
        requests=(49, 6, 3),
        whole=(63, 13),
        idle={"BMC BMC-Primary-Pending ", "BMC BMC-Backup 2.83", "UEFI UEFI-Pending "},
    ),
    "supermicro-sys821ge-x13": Facts(
        settings={"bios": 368, "firmware": 96, "boot": 3, "secure_boot": 3, "bmc": 21, "hardware": 13},
        says={
            "bios.AES_NI_3C75": "Enable",
            "bios.QuietBoot_002D": True,
            "firmware.bios": "1.4",
            "firmware.bmc": "11.01.01",
            "firmware.HGX_FW_GPU_SXM_1": "96.00.61.00.01",
            "firmware.CPLD Motherboard": "F5.11.CB",
            "boot.override": "None",  # the target that it shows, Pxe, is stale
            "bmc.lockdown": "Disabled",
            "bmc.dns.servers": ("192.168.126.14",),
            "bmc.ntp.servers": ("localhost", "127.0.0.1"),
            "hardware.memory.count": 32,
            "hardware.nics.count": 12,
        },
        unknown={"cabling": NOT},
        requests=(112, 6, 3),
        whole=(138, 14),
        idle={"BMC Backup Backup_BMC ", "BMC Golden Golden_BMC 01.00.26", "BMC Staging Staging_BMC 11.01.01",
              "BIOS Backup Backup_BIOS ", "BIOS Golden Golden_BIOS 1.3", "BIOS Staging Staging_BIOS 1.4", "Capsule BIOS 1.0",
              "Capsule ME 6.80.224.2", "Capsule MCU 1.0b", "CPLD Motherboard Golden Golden_CPLD_Motherboard F5.11.CA"},
    ),
    "nvidia-gb200-openbmc": Facts(
        settings={"bios": 403, "firmware": 26, "boot": 2, "secure_boot": 3, "bmc": 18, "hardware": 11},
        says={
            "bios.ActiveCores": 144,
            "firmware.bmc": "GB200Nvl-24.12-8",  # the host's, not HGX_FW_BMC_0
            "firmware.bios": "buildbrain-gcid-38635631",
            "firmware.HGX_FW_FPGA_0": "1.1C",
            "secure_boot.mode": "SetupMode",
            "bmc.ntp.enabled": True,
            "bmc.syslog.enabled": False,
            "bmc.protocol.http": False,
            "hardware.processors.count": 2,
        },
        unknown={"boot.mode": NOT, "bmc.lockdown": NOT, "hardware.nics": NOT, "cabling": NOT},
        requests=(37, 7, 3),
        whole=(68, 13),
        idle={"HGX_FW_GPU_0 97.00.6C.00.03", "HGX_FW_GPU_1 97.00.72.00.00", "HGX_FW_GPU_2 97.00.6C.00.03",
              "HGX_FW_GPU_3 97.00.6C.00.03"},  # Absent, though with a version
        staged={"boot.order"},
    ),
    "supermicro-x10sdv-redfish101": Facts(
        settings={"firmware": 2, "boot": 1, "bmc": 15, "hardware": 13},
        says={
            "firmware.bios": "1.2",  # there is no inventory: the system and the manager say it
            "firmware.bmc": "4.0",
            "bmc.ntp.servers": ("localhost", "127.0.0.1"),
            "bmc.syslog.enabled": False,
            "bmc.accounts": ("ADMIN",),
            "hardware.memory.sizes": (16 << 30,) * 4,
        },
        unknown={"bios": NOT, "pending": NOT, "firmware": NOT, "boot.order": NOT, "boot.mode": NOT, "secure_boot": NOT,
                 "bmc.lockdown": NOT, "bmc.certificate": NOT, "cabling": NOT},
        requests=(6, 6, 5),
        whole=(14, 12),
    ),
    "dmtf-public-rackmount1": Facts(
        settings={"bios": 10, "firmware": 3, "boot": 2, "secure_boot": 3, "bmc": 16, "hardware": 15},
        says={
            "firmware.bios": "1.45",
            "firmware.bmc": "1.45.455b66-rev4",
            "boot.override": "Pxe",
            "bmc.dns.servers": ("names.dmtf.org",),
            "bmc.certificate.not_after": "2019-09-07T13:22:05Z",
            "hardware.disks.sizes": (4000000000000, 8000000000000),
        },
        unknown=NO_SYSLOG | {"boot.order": NOT, "bmc.ntp.enabled": NOT, "bmc.ntp.servers": NOT, "bmc.lockdown": NOT, "cabling": NOT},
        requests=(9, 6, 6),  # its paths have its serial number in them
        whole=(21, 13),
        staged={"bios.AdminPhone", "bios.EmbeddedSata", "bios.NicBoot2", "bios.ProcTurboMode"},
        notes=(
            "the BIOS goes back to its defaults with the next reboot",
            "the last change of BIOS settings was not applied: Base.1.0.SettingsFailed /Attributes/ProcTurboMode",
        ),
    ),
}  # fmt: skip


@functools.cache
def _tree(name: str) -> dict[str, bytes]:
    return from_zip(FOUND[name]).tree


def recorded(name: str) -> Recorded:
    named(FOUND, name)
    return Recorded(dict(_tree(name)))


@pytest.fixture(params=sorted(FACTS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@functools.cache
def whole(name: str) -> Snapshot:
    return recorded(name).walk(EVERYTHING)


def test_every_recording_has_its_facts() -> None:
    assert not FOUND or set(FOUND) == set(FACTS)


def test_settings_of_a_real_machine(name: str) -> None:
    facts = FACTS[name]
    recorded(name)  # skips
    found = whole(name)
    assert Counter(s.partition(".")[0] for s in found.settings) == facts.settings
    assert {s: found.settings.get(s) for s in facts.says} == facts.says
    assert {s: u.reason for s, u in found.unknown.items()} == facts.unknown
    assert set(found.staged) == facts.staged
    assert found.jobs == ()
    assert found.power is PowerState.on
    assert [n for n in found.notes if "clock" not in n] == list(facts.notes)
    assert all(found.source(s) for s in found.settings)


def test_firmware_of_a_real_machine(name: str) -> None:
    facts = FACTS[name]
    recorded(name)
    found = whole(name).firmware
    assert not isinstance(found, Unknown)
    assert {f"{i.key} {i.version}" for i in found if not i.running} == facts.idle
    assert {i.key: i.ambiguous for i in found if i.ambiguous > 1} == facts.ambiguous
    assert [i.key for i in found if i.running].count("bios") == 1
    assert [i.key for i in found if i.running].count("bmc") == 1


def test_no_password_is_kept(name: str) -> None:
    document = json.loads(recorded(name).tree.get(uris.key(whole(name).source("bios")), b"{}"))
    secrets = {a for a in document.get("Attributes", {}) if passwords.is_secret(a)}
    kept = set(whole(name).settings) | set(whole(name).staged)
    assert not {f"bios.{a}" for a in secrets} & kept
    assert not [s for s in kept if "password" in s.casefold() and not passwords._STATES.search(s)]


def test_walking_twice_finds_the_same(name: str) -> None:
    assert canonical(recorded(name).walk(EVERYTHING).settings) == canonical(whole(name).settings)


def test_what_it_costs(name: str) -> None:
    """Plain, with `$expand` verified and then trusted, and with remembered paths; the answers are the same in all of them."""
    facts, machine = FACTS[name], recorded(name)
    for want, plain, expanded, warm in (
        (JOB, *facts.requests),
        (Want(), facts.whole[0], None, facts.whole[1]),
    ):
        first = machine.walk(want)
        assert first.requests == len(machine.asked) == plain
        memory = Memory()
        assert machine.walk(want, memory).settings == first.settings  # verifies; asks each member plainly as well
        again = machine.walk(want, memory)
        assert again.settings == first.settings
        assert expanded in (None, again.requests)
        known = make_of(first)
        assert known is not None
        machine.expand = "right"
        last = machine.walk(want, memory, known)
        assert last.settings == first.settings
        assert last.staged == first.staged
        assert last.requests == len(machine.asked) == warm
        assert memory.puts == 1


def test_the_other_system_behind_one_bmc() -> None:
    found = recorded("nvidia-gb200-openbmc").walk(Want(), target=Target(system="HGX_Baseboard_0"))
    assert found.unknown["bios"].reason is found.unknown["secure_boot"].reason is Reason.not_modelled
    assert "boot.order" not in found.settings
    assert found.bmc["id"] == "HGX_BMC_0" if isinstance(found.bmc, dict) else False
    assert found.unknown["bmc.ntp.enabled"].reason is Reason.not_modelled


def test_every_document_broken_in_turn_costs_itself_alone(name: str) -> None:
    """What a broken answer takes away is unknown with its reason: never missing, and never another value."""
    machine = recorded(name)
    first = machine.walk(Want())
    asked = list(dict.fromkeys(machine.asked))
    broken = [b'{"Id": "1", "Na', b"", b"null", b"[]", b'"text"', b"\xff\xfe\x00"]
    for n, path in enumerate(asked[:: max(1, len(asked) // 20)]):
        machine = recorded(name)
        machine.tree[uris.key(path)] = broken[n % len(broken)]
        found = machine.walk(Want())
        gone = first.settings.keys() - found.settings.keys()
        assert not [s for s in gone if found.why_unknown(s) is None], path
        changed = {s for s in first.settings.keys() - gone if found.settings[s] != first.settings[s]}
        assert changed <= {"boot.mode", "bmc.dns.servers"}, path  # where a second place says another thing
        assert found.settings.keys() <= first.settings.keys(), path


def test_a_machine_that_is_off_has_no_bios_drift() -> None:
    machine = recorded("lenovo-sr670v2-xcc")
    machine.edit("/redfish/v1/Systems/1", lambda d: d.update(PowerState="Off"))
    machine.edit("/redfish/v1/Systems/1/Bios", lambda d: d.update(Attributes={}))
    found = machine.walk(Want())
    assert found.power is PowerState.off
    assert found.unknown["bios"].reason is Reason.off
    assert not [s for s in found.settings if s.startswith("bios.")]
    assert found.settings["firmware.bios"] == "1.51"


# why the reading is not sushy's


STOCK: dict[str, tuple[int | str, int | str, int | str]] = {
    # what sushy 5.14 says: systems, settings that wait, firmware items. What really waits is in FACTS.
    "dell-poweredge-r750-idrac9": (1, 0, 29),
    "hpe-dl360-gen10plus-ilo5": (1, 276, 23),
    "hpe-dl380a-gen12-ilo7": (1, 350, 43),
    "lenovo-sr670v2-xcc": (1, 348, 43),
    "supermicro-sys821ge-x13": (1, "TypeError", 106),
    "nvidia-gb200-openbmc": ("UnknownDefaultError", 0, 30),
    "supermicro-x10sdv-redfish101": (1, "MissingAttributeError", "ResourceNotFoundError"),
    "dmtf-public-rackmount1": (1, 10, 3),
}


class Stock(sushy.connector.Connector):  # type: ignore[misc]
    """sushy's connector over a recording: no network, and none of our reading."""

    def __init__(self, machine: Recorded) -> None:
        self.machine = machine

    def _op(self, method: str, path: str = "", *_: object, **__: object) -> Answer:
        body = self.machine.tree.get(uris.key(path))
        answer = Answer(404 if body is None else 200, {}, body or b"{}", url=path)
        if body is None:
            raise sushy.exceptions.ResourceNotFoundError(method, path, answer)
        return answer

    def set_auth(self, *_: object) -> None:
        """Nobody asks for it."""

    set_http_basic_auth = set_http_session_auth = set_auth


def stock(machine: Recorded, system: str) -> tuple[int | str, int | str, int | str]:
    root = sushy.Sushy(V1, auth=sushy.auth.BasicAuth("user", "password"), connector=Stock(machine))

    def outcome(read: Callable[[], int]) -> int | str:
        try:
            return read()
        except Exception as exc:  # that it raises, and what, is the evidence
            return type(exc).__name__

    return (
        outcome(lambda: bool(root.get_system()) + 0),
        outcome(lambda: len(root.get_system(system).bios.pending_attributes)),
        outcome(lambda: len(root.get_update_service().firmware_inventory.get_members())),
    )


def test_what_stock_sushy_reads(name: str) -> None:
    """Of eight machines it reads what waits for a reboot right on two, and cannot tell the system of one."""
    identity = whole(name).identity if recorded(name) else None
    assert isinstance(identity, SystemIdentity)
    assert stock(recorded(name), identity.uri) == STOCK[name]


def test_one_truncated_member_costs_stock_sushy_all_of_them() -> None:
    machine = recorded("dell-poweredge-r750-idrac9")
    whole_list = machine.walk(JOB)
    member = next(p for p in machine.asked if "CPLD" in p)
    machine.tree[uris.key(member)] = b'{"Id": "Instal'  # cut off; one that is not there it skips
    assert isinstance(stock(machine, "/redfish/v1/Systems/System.Embedded.1")[2], str)
    found = machine.walk(JOB)
    assert whole_list.settings.keys() - found.settings.keys() == {"firmware.CPLD.Embedded.1"}
    assert found.why_unknown("firmware.CPLD.Embedded.1") is not None


def test_a_bios_without_a_settings_object_stops_stock_sushy() -> None:
    machine = recorded("dell-poweredge-r750-idrac9")
    system = "/redfish/v1/Systems/System.Embedded.1"
    machine.edit(f"{system}/Bios", lambda d: d.pop("@Redfish.Settings") and None)
    assert stock(machine, system)[1] in ("AttributeError", "TypeError")
    found = machine.walk(Want())
    assert found.staged == {}
    assert "pending" not in found.unknown


# logs


LOGGED = {
    # entries with a time, and of those the kinds that answer "who changed it"
    "dell-poweredge-r750-idrac9": (5, {"login": 2}),
    "hpe-dl360-gen10plus-ilo5": (539, {"login": 292, "config-change": 14, "bios-change": 3, "reset-to-default": 3}),
    "hpe-dl380a-gen12-ilo7": (652, {"login": 103, "config-change": 2, "bios-change": 22, "firmware-update": 12, "reset-to-default": 1}),
    "lenovo-sr670v2-xcc": (15, {}),
    "supermicro-sys821ge-x13": (591, {"login": 89, "bios-change": 57, "config-change": 6, "firmware-update": 4}),
    "nvidia-gb200-openbmc": (20, {}),
    "supermicro-x10sdv-redfish101": (65, {}),
    "dmtf-public-rackmount1": (3, {}),
}  # fmt: skip


def test_logs_of_a_real_machine(name: str) -> None:
    machine = recorded(name)
    found = drive(logs.read(Target(), 0, 4e9, most=10_000), machine.fetch)
    assert isinstance(found, logs.Found)
    count, kinds = LOGGED[name]
    assert len(found.entries) == count
    assert Counter(e.kind.value for e in found.entries if e.kind is not LogKind.other) == kinds
    assert [e.at for e in found.entries] == sorted((e.at for e in found.entries), reverse=True)
    assert found.requests <= 10
