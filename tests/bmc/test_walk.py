"""The walk over a BMC in memory: what it asks for, what it learns of a make, and what faults cost."""

from __future__ import annotations

import datetime as dt
import gc
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walked import NOW, V1, Memory, Recorded, Target, collection, link, small

from metalimmu.bmc import times, uris
from metalimmu.bmc.ask import Ask, Reply, drive
from metalimmu.bmc.document import Doc
from metalimmu.bmc.reading import Reading
from metalimmu.bmc.tree import Tree
from metalimmu.bmc.unknown import BmcTimeout
from metalimmu.bmc.walk import EVERYTHING, MakeKey, Remembered, Want, make_of, walk
from metalimmu.errors import BmcBusy, BmcError, BmcLoginRefused, BmcNotPermitted, BmcUnreachable
from metalimmu.observed.snapshot import Snapshot, canonical
from metalimmu.observed.types import Reason, SystemIdentity, Unknown

JOB = Want(frozenset({"bios", "firmware"}))
KEY = MakeKey("Contoso", "S1", "2.0")
FIRMWARE = f"{V1}/UpdateService/FirmwareInventory"


def says(found: Snapshot, *names: str) -> list[object]:
    return [found.settings.get(n) for n in names]


# what is found


def test_a_whole_snapshot() -> None:
    found = small().walk()
    assert found.settings == {
        "bios.Turbo": "On", "bios.Cores": 8, "bios.Sriov": True, "bios.Url": None,
        "firmware.bios": "1.0", "firmware.bmc": "2.0", "firmware.NIC1": "3.1",
        "boot.override": "None", "boot.order": ("Debian", "UEFI PXEv4"), "boot.mode": "UEFI",
        "secure_boot.enabled": True, "secure_boot.mode": "UserMode",
        "bmc.clock": 0, "bmc.ntp.enabled": True, "bmc.ntp.servers": ("10.0.0.1", "10.0.0.2"), "bmc.dns.servers": ("10.0.0.53",),
        "bmc.protocol.ssh": True, "bmc.protocol.ipmi": False, "bmc.protocol.https": True,
        "bmc.accounts": ("admin",), "bmc.account.admin.role": "Administrator",
        "bmc.certificate.not_after": "2030-01-01T00:00:00Z", "bmc.certificate.issuer": "CN=CA, O=Contoso",
        "hardware.health": "Warning",
    }  # fmt: skip
    assert found.staged == {"bios.Turbo": "Off"}
    assert isinstance(found.jobs, tuple)
    assert [(j.id, j.state, j.about, j.percent) for j in found.jobs] == [("2", "New", "bios", 5)]
    assert found.registry == "Reg.v1_0_0"
    assert found.at == NOW
    assert isinstance(found.identity, SystemIdentity)
    assert found.identity.nics == Unknown(Reason.not_read, "the interfaces were not asked for", f"{V1}/Systems/1")
    assert {u: w.reason for u, w in found.unknown.items()} == {
        "secure_boot.current": Reason.not_modelled,
        "bmc.lockdown": Reason.not_modelled,
        "bmc.syslog.enabled": Reason.not_modelled,
        "bmc.syslog.servers": Reason.not_modelled,
        "hardware": Reason.not_read,
        "cabling": Reason.not_read,
    }
    assert found.source("bios.Turbo") == f"{V1}/Systems/1/Bios"
    assert found.source("bmc.ntp.servers") == f"{V1}/Managers/1/NetworkProtocol"


def test_what_is_not_asked_for_is_not_read_and_not_missing() -> None:
    machine = small()
    found = machine.walk(Want(frozenset({"bios"})))
    assert found.why_unknown("firmware.bios") == Unknown(Reason.not_read, "this reading did not ask for it")
    assert found.firmware == found.jobs == found.unknown["boot"]
    assert not [p for p in machine.asked if "UpdateService" in p or "Account" in p]


def test_nothing_is_asked_twice() -> None:
    machine = small(items=24)
    machine.walk(EVERYTHING)
    assert len(machine.asked) == len(set(machine.asked))


# $expand


@pytest.mark.parametrize("items", [3, 24])
def test_expand_is_compared_once_and_then_trusted(items: int) -> None:
    machine, memory = small(items=items), Memory()
    first = machine.walk(JOB, memory)
    assert first.requests == 7 + items  # root, Systems, 1, Managers/1, Bios, the collection both ways, and each item
    assert memory[KEY].expand == {"firmware": True}
    second = machine.walk(JOB, memory)
    assert second.requests == 6
    assert second.settings == first.settings
    assert machine.walk(JOB, memory, KEY).requests == 3
    assert machine.asked == [f"{V1}/Systems/1", f"{V1}/Systems/1/Bios", f"{FIRMWARE}?$expand=.($levels=1)"]
    assert memory.puts == 1


@pytest.mark.parametrize("wrong", ["links", "poor", "400"])
def test_a_wrong_expand_is_remembered_as_wrong(wrong: str) -> None:
    machine, memory = small(), Memory()
    machine.expand = wrong
    right = small().walk(Want(expand=False)).settings
    assert machine.walk(Want(), memory).settings == right
    assert memory[KEY].expand["firmware"] is False
    assert machine.walk(Want(), memory).settings == right
    assert not [p for p in machine.asked if "$expand" in p and "FirmwareInventory" in p]


def test_expand_is_not_asked_of_a_bmc_that_does_not_offer_it() -> None:
    machine = small()
    machine.edit(V1, lambda d: d["ProtocolFeaturesSupported"]["ExpandQuery"].update(Levels=False))
    machine.walk(Want(), Memory())
    assert not [p for p in machine.asked if "$expand" in p]


def test_an_expanded_collection_may_come_in_pages_and_with_a_bare_link() -> None:
    machine, memory = small(items=5), Memory()
    machine.walk(JOB, memory)

    def page(document: dict[str, object]) -> dict[str, object]:
        members = document["Members"]
        assert isinstance(members, list)
        return document | {"Members": members[:2], "Members@odata.nextLink": f"{FIRMWARE}?$skip=2&$expand=.($levels=1)"}

    whole = json.loads(machine.tree[uris.key(FIRMWARE)])
    items = [json.loads(machine.tree[uris.key(m["@odata.id"])]) for m in whole["Members"]]
    rest = whole | {"Members": [items[2], whole["Members"][3], items[4]]}
    machine.edit(FIRMWARE, page)
    machine.tree[uris.key(f"{FIRMWARE}?$skip=2&$expand=.($levels=1)")] = json.dumps(rest).encode()
    found = machine.walk(JOB, memory, KEY)
    assert says(found, "firmware.NIC1", "firmware.NIC2", "firmware.NIC3") == ["3.1"] * 3
    assert machine.asked[-2:] == [f"{FIRMWARE}?$skip=2&$expand=.($levels=1)", f"{FIRMWARE}/NIC2"]


# what is remembered of a make


def test_a_bmc_that_was_updated_is_compared_anew() -> None:
    """Also when the manager is not read: the firmware inventory tells."""
    machine, memory = small(), Memory()
    machine.walk(JOB, memory)
    machine.edit(f"{V1}/Managers/1", lambda d: d.update(FirmwareVersion="2.1"))
    machine.edit(f"{FIRMWARE}/BMC", lambda d: d.update(Version="2.1"))
    machine.expand = "poor"
    found = machine.walk(JOB, memory, KEY)
    assert says(found, "firmware.bmc", "firmware.NIC1") == ["2.1", "3.1"]
    assert make_of(found) == MakeKey("Contoso", "S1", "2.1")
    assert memory[MakeKey("Contoso", "S1", "2.1")].expand == {"firmware": False}
    assert memory[KEY].expand == {"firmware": True}


def test_a_machine_of_another_model_is_not_read_by_the_memory_of_this_one() -> None:
    machine, memory = small(), Memory()
    machine.walk(Want(), memory)
    machine.edit(f"{V1}/Systems/1", lambda d: d.update(Model="S2"))
    found = machine.walk(Want(), memory, KEY)
    assert f"{V1}/" in machine.asked
    assert set(memory) == {KEY, MakeKey("Contoso", "S2", "2.0")}
    assert isinstance(found.identity, SystemIdentity)
    assert found.identity.model == "S2"


def test_a_path_that_is_gone_is_looked_for() -> None:
    machine, memory = small(), Memory()
    first = machine.walk(Want(), memory)
    assert memory[KEY].paths["interface"] == f"{V1}/Managers/1/EthernetInterfaces/eth0"
    machine.tree[uris.key(f"{V1}/Managers/1/EthernetInterfaces/mgmt")] = machine.tree.pop(
        uris.key(f"{V1}/Managers/1/EthernetInterfaces/eth0")
    )
    machine.edit(f"{V1}/Managers/1/EthernetInterfaces", lambda _: collection("Managers/1/EthernetInterfaces", "mgmt"))
    assert machine.walk(Want(), memory, KEY).settings == first.settings
    assert memory[KEY].paths["interface"] == ""  # it differs from machine to machine
    machine.walk(Want(), memory, KEY)
    assert f"{V1}/Managers/1/EthernetInterfaces/eth0" not in machine.asked


def test_a_system_that_is_gone_is_looked_for() -> None:
    machine, memory = small(), Memory()
    first = machine.walk(Want(), memory)
    memory[KEY] = Remembered(paths={"system": f"{V1}/Systems/Self"}, root=memory[KEY].root)
    assert machine.walk(Want(), memory, KEY).settings == first.settings
    assert machine.asked[:2] == [f"{V1}/Systems/Self", f"{V1}/"]
    assert memory[KEY].paths["system"] == ""
    machine.walk(Want(), memory, KEY)
    assert machine.asked[0] == f"{V1}/"


def test_a_system_named_in_the_host_document_wins() -> None:
    machine, memory = small(), Memory()
    machine.walk(Want(), memory)
    machine.edit(f"{V1}/Systems", lambda _: collection("Systems", "1", "2"))
    other = json.loads(machine.tree[uris.key(f"{V1}/Systems/1")]) | {
        "@odata.id": f"{V1}/Systems/2",
        "Id": "2",
        "BiosVersion": "9",
    }
    machine.tree[uris.key(f"{V1}/Systems/2")] = json.dumps(other).encode()
    found = machine.walk(Want(), memory, KEY, Target(system="2"))
    assert isinstance(found.identity, SystemIdentity)
    assert found.identity.system_id == "2"
    assert found.notes == ("bios: the firmware inventory says 1.0, /redfish/v1/Systems/2 says 9",)


def test_a_path_with_a_serial_number_in_it_is_not_remembered() -> None:
    machine, memory = small(), Memory()
    machine.edit(f"{V1}/Systems/1", lambda d: d.update(SerialNumber="eth0-4711"))
    machine.tree[uris.key(f"{V1}/Managers/1/EthernetInterfaces/eth0-4711")] = b'{"NameServers": []}'
    machine.edit(
        f"{V1}/Managers/1/EthernetInterfaces", lambda _: collection("Managers/1/EthernetInterfaces", "eth0-4711")
    )
    machine.walk(Want(), memory)
    assert "interface" not in memory[KEY].paths
    assert memory[KEY].paths["system"] == f"{V1}/Systems/1"


@pytest.mark.parametrize(
    ("fault", "reason"), [(BmcTimeout("slow"), Reason.timeout), (Reply(403, {}, b"{}"), Reason.not_permitted)]
)
def test_a_known_system_that_cannot_be_read_is_unknown_for_that_reason(fault: Reply | BmcError, reason: Reason) -> None:
    machine, memory = small(), Memory()
    machine.walk(Want(), memory)
    machine.faults[uris.key(f"{V1}/Systems/1")] = fault
    found = machine.walk(Want(), memory, KEY)
    assert isinstance(found.identity, Unknown)
    assert {found.identity.reason} == {found.unknown[s].reason for s in ("bios", "firmware", "bmc")} == {reason}
    assert found.settings == {}


def test_walks_at_the_same_time_learn_together() -> None:
    machine, memory = small(), Memory()
    machine.walk(Want(frozenset({"firmware"})), memory)
    meanwhile = Remembered(paths={"system": "", "accounts": "/a"}, expand={"accounts": True, "boot_options": False})

    def fetch(ask: Ask) -> Reply:
        if ask.expand:  # it has looked into the memory already
            memory[KEY] = meanwhile
        return machine.fetch(ask)

    del memory[KEY]
    drive(walk(Target(), JOB, memory, now=lambda: NOW), fetch)
    assert memory[KEY].paths == {"system": "", "accounts": "/a", "firmware": FIRMWARE}
    assert memory[KEY].expand == {"accounts": True, "boot_options": False, "firmware": True}


def test_a_walk_that_is_over_leaves_no_circles() -> None:
    """Ten thousand of them must not wait for the garbage collector."""
    machine = small()
    machine.faults[uris.key(f"{V1}/Systems/1/SecureBoot")] = Reply(403, {}, b"{}")
    machine.walk(EVERYTHING)

    def alive() -> int:
        return sum(isinstance(o, (Reading, Tree, Doc)) for o in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(5):
            machine.walk(EVERYTHING, Memory())
        assert alive() == before
    finally:
        gc.enable()


def test_the_memory_may_forget() -> None:
    assert small().walk(Want(), Memory(), KEY).settings == small().walk().settings


# faults


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Reply(403, {}, b"{}"), Reason.not_permitted),
        (BmcNotPermitted("403"), Reason.not_permitted),
        (BmcTimeout("slow"), Reason.timeout),
        (BmcBusy("503"), Reason.broken),
        (Reply(200, {}, b'{"Attri'), Reason.broken),
        (Reply(404, {}, b""), Reason.not_modelled),
    ],
)  # fmt: skip
def test_one_resource_that_fails_costs_one_section(fault: Reply | BmcError, reason: Reason) -> None:
    machine, whole = small(), small().walk()
    machine.faults[uris.key(f"{V1}/Systems/1/Bios")] = fault
    found = machine.walk()
    assert found.unknown["bios"].reason is reason
    assert {s: v for s, v in found.settings.items() if not s.startswith("bios.")} == {
        s: v for s, v in whole.settings.items() if not s.startswith("bios.")
    }


def test_accounts_that_may_not_be_seen_are_unknown_not_absent() -> None:
    machine = small()
    machine.faults[uris.key(f"{V1}/AccountService/Accounts")] = Reply(403, {}, b"{}")
    found = machine.walk()
    why = found.why_unknown("bmc.account.admin.role")
    assert why is not None
    assert why.reason is found.unknown["bmc.accounts"].reason is Reason.not_permitted
    assert found.settings["bmc.ntp.enabled"] is True


@pytest.mark.parametrize(
    ("fault", "told"),
    [(Reply(403, {}, b"{}"), True), (Reply(404, {}, b"{}"), True), (BmcTimeout("no answer"), None), (Reply(503), None)],
)
def test_what_may_be_over_the_next_time_is_not_answered_from_elsewhere(
    fault: Reply | BmcError, told: bool | None
) -> None:
    """Dell's attributes say another NTP than the standard's resource: a slow answer must not look like a change."""
    machine = small("Dell Inc.")
    attributes = "Managers/1/Oem/Dell/DellAttributes/iDRAC.Embedded.1"
    machine.edit(
        f"{V1}/Managers/1", lambda d: d.update(Links={"Oem": {"Dell": {"DellAttributes": [link(attributes)]}}})
    )
    document = link(attributes) | {"Attributes": {"NTPConfigGroup.1.NTPEnable": "Disabled"}}
    machine.tree[uris.key(f"{V1}/{attributes}")] = json.dumps(document).encode()
    assert machine.walk().settings["bmc.ntp.enabled"] is False
    machine.faults[uris.key(f"{V1}/{attributes}")] = fault
    found = machine.walk()
    assert found.settings.get("bmc.ntp.enabled") is told
    assert (found.why_unknown("bmc.ntp.enabled") is None) is (told is not None)


def test_what_a_certificates_description_lacks_is_unknown_not_missing() -> None:
    machine = small()
    where = "Managers/1/NetworkProtocol/HTTPS/Certificates/1"
    machine.edit(f"{V1}/{where}", lambda d: d.update(ValidNotAfter=None))
    found = machine.walk()
    assert found.settings["bmc.certificate.issuer"] == "CN=CA, O=Contoso"
    assert found.unknown["bmc.certificate.not_after"].reason is Reason.not_modelled


def test_another_manager_does_not_stand_in_for_the_one_that_is_silent() -> None:
    """What it says of itself would look like changes."""
    machine = small()
    both = [link("Managers", "1"), link("Managers", "2")]
    machine.edit(f"{V1}/Systems/1", lambda d: d["Links"].update(ManagedBy=both))
    other = json.loads(machine.tree[uris.key(f"{V1}/Managers/1")]) | link("Managers", "2") | {"FirmwareVersion": "9.9"}
    machine.tree[uris.key(f"{V1}/Managers/2")] = json.dumps(other).encode()
    machine.faults[uris.key(f"{V1}/Managers/1")] = BmcTimeout("no answer")
    found = machine.walk()
    assert found.unknown["bmc"].reason is Reason.timeout
    assert not any(s.startswith("bmc.") for s in found.settings)
    machine.faults[uris.key(f"{V1}/Managers/1")] = Reply(404, {}, b"{}")
    assert machine.walk().settings["bmc.ntp.enabled"] is True


def test_of_two_systems_the_one_that_is_silent_may_be_the_host() -> None:
    machine = small()
    board = link("Systems", "Board") | {"Id": "Board"}
    machine.tree[uris.key(f"{V1}/Systems/Board")] = json.dumps(board).encode()
    machine.tree[uris.key(f"{V1}/Systems")] = json.dumps(collection("Systems", "1", "Board")).encode()
    machine.edit(
        f"{V1}/Systems/1", lambda d: d.update(Actions={"#ComputerSystem.Reset": {"target": f"{V1}/Systems/1/Reset"}})
    )
    assert machine.walk().settings["bios.Turbo"] == "On"
    machine.faults[uris.key(f"{V1}/Systems/1")] = BmcTimeout("no answer")
    found = machine.walk()
    assert isinstance(found.identity, Unknown)
    assert found.identity.reason is Reason.timeout


def test_an_order_of_boot_has_a_value_or_is_unknown_and_never_both() -> None:
    machine = small()
    waiting = "Systems/1/Settings"
    machine.edit(f"{V1}/Systems/1", lambda d: d.update({"@Redfish.Settings": {"SettingsObject": link(waiting)}}))
    assert "boot.order" in machine.walk().settings  # 404: nothing can wait there
    machine.faults[uris.key(f"{V1}/{waiting}")] = BmcTimeout("no answer")
    found = machine.walk()
    assert "boot.order" not in found.settings
    assert found.unknown["boot.order"].reason is Reason.timeout


@pytest.mark.parametrize(
    ("member", "setting"),
    [
        ("AccountService/Accounts/3", "bmc.accounts"),
        ("Systems/1/BootOptions/Boot0000", "boot.order"),
        ("UpdateService/FirmwareInventory/NIC1", "firmware.NIC1"),
    ],
)
def test_a_list_of_which_one_member_cannot_be_read_is_not_half_told(member: str, setting: str) -> None:
    machine = small()
    machine.faults[uris.key(f"{V1}/{member}")] = Reply(200, {}, b'{"User')
    found = machine.walk(Want(expand=False))
    assert setting not in found.settings
    why = found.why_unknown(setting)
    assert why is not None
    assert why.reason is Reason.broken


@pytest.mark.parametrize(
    ("error", "reason"),
    [(BmcUnreachable("no route"), Reason.unreachable), (BmcLoginRefused("401"), Reason.not_permitted)],
)
def test_a_bmc_that_is_away_is_asked_once(error: BmcError, reason: Reason) -> None:
    machine = small()
    machine.faults["*"] = error
    found = machine.walk(EVERYTHING)
    assert found.settings == {}
    assert {u.reason for u in found.unknown.values()} == {reason}
    assert isinstance(found.identity, Unknown)
    assert isinstance(found.power, Unknown)
    assert isinstance(found.jobs, Unknown)
    assert isinstance(found.firmware, Unknown)
    if reason is Reason.unreachable:
        assert machine.asked == [f"{V1}/"]


def test_a_bmc_that_is_silent_twice_is_not_asked_again() -> None:
    machine = small(items=24)
    machine.faults |= {uris.key(f"{V1}/{p}"): BmcTimeout("slow") for p in ("Systems/1/Bios", "TaskService/Tasks")}
    found = machine.walk(Want(expand=False))
    assert machine.asked[-2:] == [f"{V1}/Systems/1/Bios", f"{V1}/TaskService/Tasks"]
    assert {found.unknown[s].reason for s in ("bios", "firmware", "boot.order", "bmc.accounts")} == {Reason.timeout}
    assert found.settings["boot.override"] == "None"  # the system had been read


def test_without_a_make_nothing_is_guessed() -> None:
    """Rules of another make would give components other names, and all of them would be missing."""
    machine = small()
    machine.tree[uris.key(V1)] = b"<html>"
    found = machine.walk()
    assert found.settings == {}
    assert {u.reason for s, u in found.unknown.items() if s not in {"hardware", "cabling"}} == {Reason.broken}


def test_links_never_lead_elsewhere() -> None:
    machine = small()
    machine.edit(
        f"{V1}/Systems/1", lambda d: d.update(Bios={"@odata.id": "https://evil.example/redfish/v1/Systems/1/Bios"})
    )
    machine.edit(f"{V1}/Systems/1", lambda d: d.update(SecureBoot={"@odata.id": "/redfish\x00\n"}))
    found = machine.walk()
    assert found.settings["bios.Turbo"] == "On"
    assert found.unknown["secure_boot"].reason is Reason.not_modelled
    assert all(p.isprintable() for p in machine.asked)


def test_a_circle_of_pages_ends() -> None:
    machine = small()
    machine.edit(FIRMWARE, lambda d: d.update({"Members@odata.nextLink": FIRMWARE}))
    assert machine.walk(Want(expand=False)).settings["firmware.NIC1"] == "3.1"


def test_text_is_made_fit_for_a_terminal() -> None:
    machine = small()
    machine.edit(f"{V1}/Systems/1/Bios", lambda d: d["Attributes"].update(Turbo="On\x1b[2J", Tag=" kept as it is "))
    assert says(machine.walk(), "bios.Turbo", "bios.Tag") == ["On [2J", " kept as it is "]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["@odata.id", "Members", "Id"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(
    seed=st.randoms(use_true_random=False),
    values=st.lists(VALUES, min_size=1, max_size=12),
    vendor=st.sampled_from(["Dell Inc.", "HPE", "Supermicro", "Contoso"]),
)
@settings(max_examples=150, deadline=None)
def test_whatever_a_bmc_sends_the_walk_ends_with_a_snapshot(seed: object, values: list[object], vendor: str) -> None:
    machine = small(vendor)
    for value in values:
        key = seed.choice(sorted(machine.tree))  # type: ignore[attr-defined]
        document = json.loads(machine.tree[key])
        if isinstance(document, dict) and document:
            document[seed.choice(sorted(document))] = value  # type: ignore[attr-defined]
        machine.tree[key] = json.dumps(document).encode()
    found = machine.walk(EVERYTHING)
    assert isinstance(found, Snapshot)
    assert canonical(found.settings)
    assert found.requests < 200


# clock and certificate


@pytest.mark.parametrize(("ahead", "told"), [(0, 0), (-59, 0), (59, 0), (61, 60), (-3600, -3600)])
def test_the_clock_in_whole_minutes(ahead: int, told: int) -> None:
    machine = small()
    machine.edit(f"{V1}/Managers/1", lambda d: d.update(DateTime=times.iso(NOW + ahead)))
    found = machine.walk()
    assert found.settings["bmc.clock"] == told
    assert found.notes == ()


def test_a_clock_that_is_off_by_years_is_said() -> None:
    machine = small()
    machine.edit(f"{V1}/Managers/1", lambda d: d.update(DateTime="1970-01-01T00:00:10+00:00"))
    assert machine.walk().notes == ("the BMC's clock is 20,833 days behind: its logs and certificates are dated wrong",)


def test_the_http_date_is_the_clock_of_a_manager_without_one() -> None:
    machine = small()
    machine.edit(f"{V1}/Managers/1", lambda d: d.pop("DateTime") and None)
    assert machine.walk().unknown["bmc.clock"].reason is Reason.not_modelled
    machine.headers["Date"] = "Fri, 15 Jan 2027 09:00:00 GMT"
    assert machine.walk().settings["bmc.clock"] == 3600


def test_the_certificate_that_was_seen_is_the_one_that_counts(tmp_path: object) -> None:
    machine = small()
    machine.peer = _certificate()
    found = machine.walk()
    assert found.settings["bmc.certificate.not_after"] == "2031-05-06T07:08:09Z"
    assert found.settings["bmc.certificate.subject"] == "CN=node-1, O=Contoso"
    assert len(str(found.settings["bmc.certificate.fingerprint"])) == 64
    assert found.source("bmc.certificate.not_after") == "TLS"
    assert not [p for p in machine.asked if "Certificates" in p]


def _certificate() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Contoso"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "node-1"),
        ]
    )
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
    built = built.not_valid_before(dt.datetime(2020, 1, 1)).not_valid_after(dt.datetime(2031, 5, 6, 7, 8, 9))
    return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


# jobs


def test_dells_newest_jobs_are_read_and_no_more() -> None:
    machine = small("Dell Inc.")
    jobs = "Managers/1/Oem/Dell/Jobs"
    names = [f"JID_{n:012d}" for n in range(40)]
    machine.edit(f"{V1}/Managers/1", lambda d: d.setdefault("Links", {}).update(Oem={"Dell": {"Jobs": link(jobs)}}))
    machine.tree[uris.key(f"{V1}/{jobs}")] = json.dumps(collection(jobs, *names)).encode()
    for n, name in enumerate(names):
        state = {39: "Scheduled", 38: "Running"}.get(n, "Completed")
        job = link(jobs, name) | {
            "Id": name,
            "Name": "Configure: BIOS.Setup.1-1",
            "JobState": state,
            "JobType": "BIOSConfiguration",
        }
        if n == 38:
            job |= {"Name": "Firmware Update: NIC", "JobType": "FirmwareUpdate"}
        machine.tree[uris.key(f"{V1}/{jobs}/{name}")] = json.dumps(job).encode()
    found = machine.walk(Want(expand=False))
    assert isinstance(found.jobs, tuple)
    assert [(j.id, j.state, j.about) for j in found.jobs] == [
        (names[39], "Scheduled", "bios"),
        (names[38], "Running", "firmware"),
    ]
    assert len([p for p in machine.asked if "/Jobs/" in p]) == 10


def test_settings_that_wait_without_a_job_are_said() -> None:
    """On an iDRAC nothing would ever apply them."""
    machine = small("Dell Inc.")
    jobs = "Managers/1/Oem/Dell/Jobs"
    machine.edit(f"{V1}/Managers/1", lambda d: d.setdefault("Links", {}).update(Oem={"Dell": {"Jobs": link(jobs)}}))
    machine.tree[uris.key(f"{V1}/{jobs}")] = json.dumps(collection(jobs)).encode()
    assert machine.walk().notes == ("1 BIOS settings wait for a reboot, and no job is there to apply them",)
    machine.edit(f"{V1}/Systems/1/Bios/SD", lambda d: d.update(Attributes={}))
    assert machine.walk().notes == ()


def test_an_older_bmc_of_a_make_is_read_where_the_standard_says() -> None:
    """An iDRAC 8 has no DellAttributes, an old iLO no SecurityService."""
    for vendor in ("Dell Inc.", "HPE", "Supermicro"):
        found = small(vendor).walk()
        assert found.settings["bmc.accounts"] == ("admin",)
        assert found.settings["bmc.certificate.not_after"] == "2030-01-01T00:00:00Z"
        assert found.settings["bmc.dns.servers"] == ("10.0.0.53",)


def test_jobs_that_may_not_be_seen_are_unknown() -> None:
    machine = small()
    machine.faults[uris.key(f"{V1}/TaskService/Tasks")] = Reply(403, {}, b"{}")
    found = machine.walk()
    assert isinstance(found.jobs, Unknown)
    assert found.jobs.reason is Reason.not_permitted
    assert found.staged == {"bios.Turbo": "Off"}


def test_a_reader_closed_in_the_middle_leaves_nothing_behind() -> None:
    reader = walk(Target(), Want(), now=lambda: NOW)
    next(reader)
    reader.close()
    assert drive(walk(Target(), JOB, now=lambda: NOW), Recorded({}).fetch).settings == {}
