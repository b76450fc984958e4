"""Every check of the doctor, well and ill."""

from __future__ import annotations

import datetime as dt
import json
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from rack import Rack

from metalimmu.boot import tls
from metalimmu.boot.listeners import Listener
from metalimmu.boot.loaders import Loaders
from metalimmu.desired.netboot import Netboot
from metalimmu.errors import SecretError
from metalimmu.main import run
from metalimmu.service.doctor import machine, netboot, network, state
from metalimmu.service.doctor.check import Check, Verdict
from metalimmu.service.doctor.examine import examine
from metalimmu.service.doctor.probes import Clock, System
from metalimmu.service.site import OpenSite
from metalimmu.store.migrations import names
from metalimmu.store.sqlite import SqliteStore

DAY, GIB = 86400.0, 1 << 30
NOW = 1_800_000_000.0


@dataclass
class Fake:
    """A machine where all is well, unless told otherwise."""

    busy: dict[int, str] = field(default_factory=dict)
    pins: dict[int, str] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    ours: set[str] = field(default_factory=lambda: {"10.0.0.5"})
    sources: dict[str, str | None] = field(default_factory=dict)
    time: Clock = field(default_factory=lambda: Clock(True, 0.01))
    space: tuple[int, int, int] = (100 * GIB, 200 * GIB, 1_000_000)
    missing: set[str] = field(default_factory=set)
    dead: set[int] = field(default_factory=set)
    interfaces: set[str] = field(default_factory=lambda: {"eth1"})
    without: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()

    def listen(self, listener: Listener) -> str:
        return self.busy.get(listener.port, "")

    def pin(self, _host: str, port: int) -> str | None:
        return self.pins.get(port)

    def addresses(self, host: str) -> list[str]:
        return self.names.get(host, [host] if host[:1].isdigit() else [])

    def is_ours(self, address: str) -> bool:
        return address in self.ours

    def source(self, address: str) -> str | None:
        return self.sources.get(address, "10.0.0.5")

    def clock(self) -> Clock:
        return self.time

    def free(self, _path: Path) -> tuple[int, int, int]:
        return self.space

    def program(self, name: str) -> str | None:
        return None if name in self.missing else f"/usr/bin/{name}"

    def alive(self, pid: int) -> bool:
        return pid not in self.dead

    def interface(self, name: str) -> bool:
        return name in self.interfaces

    def lacks(self) -> tuple[str, ...]:
        return self.without

    def dhcp(self, interface: str) -> tuple[str, ...]:
        assert interface in self.interfaces
        assert not self.without
        return self.servers

    def now(self) -> float:
        return NOW


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    rack = Rack(tmp_path)
    rack.write("hosts/real.yaml", [_host("r1", "redfish+https://10.9.0.7"), _host("r2", "redfish+https://10.9.0.8")])
    document(rack, urls={"bmc": "http://10.0.0.5:8080", "machines": "https://10.0.0.5:8443"})
    return rack


def _host(name: str, bmc: str) -> dict[str, object]:
    return {"name": name, "bmc": bmc, "credentials": "env:DOCTOR", "role": "web", "serial": name}


def document(rack: Rack, **fields: object) -> None:
    path = rack.site / "site.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | fields))


def docs(rack: Rack):
    return OpenSite(rack.site).docs


def said(checks: Iterable[Check]) -> dict[str, tuple[str, str]]:
    found = {}
    for check in checks:
        assert check.hint or check.verdict in (Verdict.ok, Verdict.unknown), f"{check} says nothing to do"
        found[check.name] = (str(check.verdict), f"{check.what} | {check.hint}")
    return found


# ports and addresses -------------------------------------------------------------------------------------------


def test_ports_that_are_free(rack: Rack) -> None:
    found = said(network.ports(docs(rack), Fake(), pin=None, holder=None))
    assert found["port 8080"][0] == found["port 8443"][0] == "ok"
    (listening,) = {w for w, _ in said(network.ports(docs(rack), Fake(), pin=None, holder="vm pid 7")).values()}
    assert listening == "warn", "a worker that does not listen"


def test_ports_that_are_ours_or_others(rack: Rack) -> None:
    busy = {8080: "cannot listen on 8080: in use", 8443: "cannot listen on 8443: in use"}
    ours = said(network.ports(docs(rack), Fake(busy=busy, pins={8443: "aa"}), pin="aa", holder="vm pid 7"))
    assert {v for v, _ in ours.values()} == {"ok"}
    others = said(network.ports(docs(rack), Fake(busy=busy, pins={8443: "bb"}), pin="aa", holder=None))
    assert {v for v, _ in others.values()} == {"fail"}
    assert "another metalimmu or TLS server has it" in others["port 8443"][1]
    assert "ss -ltnp 'sport = :8080'" in others["port 8080"][1]


def test_urls_that_contradict_each_other(rack: Rack) -> None:
    document(rack, urls={"bmc": "http://10.0.0.5:8443", "machines": "https://10.0.0.5:8443"})
    assert said(network.ports(docs(rack), Fake(), pin=None, holder=None))["port"][0] == "fail"


@pytest.mark.parametrize(
    ("host", "fake", "verdict", "words"),
    [
        ("10.0.0.5", Fake(), "ok", "10.0.0.5 is this machine"),
        ("ctl.example", Fake(names={"ctl.example": ["10.0.0.5"]}), "ok", "ctl.example is this machine (10.0.0.5)"),
        ("ctl.example", Fake(), "fail", "means no address"),
        ("127.0.0.1", Fake(), "fail", "nobody else can reach it"),
        ("10.7.7.7", Fake(), "warn", "no address of this machine"),
        ("10.7.7.7", Fake(pins={8443: "aa"}), "ok", "leads to us"),
        ("10.0.0.5", Fake(pins={8443: "bb"}), "fail", "answers with another certificate"),
    ],
)
def test_the_address_of_machines(rack: Rack, host: str, fake: Fake, verdict: str, words: str) -> None:
    document(rack, urls={"bmc": "http://10.0.0.5:8080", "machines": f"https://{host}:8443"})
    found = said(network.addresses(docs(rack), fake, pin="aa"))["urls.machines"]
    assert found[0] == verdict
    assert words in found[1]


def test_the_address_of_boot_loaders(rack: Rack) -> None:
    urls = {"bmc": "http://10.0.0.5:8080", "machines": "https://10.0.0.5:8443", "boot": "http://10.7.7.7:8081"}
    document(rack, urls=urls)
    found = said(network.addresses(docs(rack), Fake(), pin="aa"))["urls.boot"]
    assert (found[0], "10.7.7.7 is no address of this machine" in found[1]) == ("warn", True)


DHCP = Netboot(mode="dhcp", interface="eth1", range="10.0.0.9-10.0.0.99")
GRUB = Netboot(mode="dhcp", interface="eth1", range="10.0.0.9-10.0.0.99", http_loader="grub")
PROXY = Netboot(mode="proxy", interface="eth1", range="10.0.0.0/24")


@pytest.mark.parametrize(
    ("settings", "fake", "holder", "name", "verdict", "words"),
    [
        (DHCP, Fake(), None, "programs", "ok", "snponly.efi"),
        (DHCP, Fake(missing={"dnsmasq"}), None, "programs", "fail", "apt-get install dnsmasq-base"),
        (DHCP, Fake(missing={"grub-mkimage"}), None, "programs", "ok", "snponly.efi"),
        (GRUB, Fake(), None, "programs", "ok", "snponly.efi"),
        (GRUB, Fake(missing={"grub-mkimage"}), None, "programs", "fail", "apt-get install grub-common"),
        (DHCP, Fake(), None, "interface", "ok", "eth1"),
        (DHCP, Fake(interfaces=set()), None, "interface", "fail", "no interface eth1"),
        (DHCP, Fake(), None, "rights", "ok", ""),
        (DHCP, Fake(without=("CAP_NET_RAW",)), None, "rights", "fail", "would lack CAP_NET_RAW"),
        (DHCP, Fake(without=("CAP_NET_RAW",)), "vm pid 7", "rights", "ok", "vm pid 7 is the site's worker"),
        (DHCP, Fake(without=("CAP_NET_RAW",)), None, "DHCP servers", "unknown", "only root"),
        (DHCP, Fake(), None, "DHCP servers", "ok", "no other on eth1"),
        (DHCP, Fake(servers=("10.0.0.5",)), "vm pid 7", "DHCP servers", "ok", "no other"),  # ours
        (DHCP, Fake(servers=("10.0.0.1",)), None, "DHCP servers", "fail", "another one answers on eth1: 10.0.0.1"),
        (PROXY, Fake(servers=("10.0.0.1",)), None, "DHCP servers", "ok", "10.0.0.1 gives the addresses"),
        (PROXY, Fake(), None, "DHCP servers", "warn", "machines get no address"),
    ],
)
def test_network_boot(settings: Netboot, fake: Fake, holder: str | None, name: str, verdict: str, words: str) -> None:
    found = said(netboot.netboot(settings, Loaders(""), fake, holder=holder))[f"netboot: {name}"]
    assert found[0] == verdict
    assert words in found[1]


def test_network_boot_that_is_off_or_has_no_loaders() -> None:
    assert said(netboot.netboot(Netboot(), Loaders(""), Fake(missing={"dnsmasq"}), holder=None)) == {}
    none = Loaders("", {"snponly.efi": ("/not/there", "ipxe")})
    assert "apt-get install ipxe" in said(netboot.netboot(DHCP, none, Fake(), holder=None))["netboot: programs"][1]


def test_in_a_lab_loopback_is_what_bmcs_reach(rack: Rack) -> None:
    fake = Fake(ours={"127.0.0.1"})
    document(rack, urls={"bmc": "http://127.0.0.1:8080", "machines": "https://127.0.0.1:8443"})
    assert said(network.addresses(docs(rack), fake, pin=None))["urls.bmc"][0] == "fail"
    rack.write("hosts/real.yaml", [_host("r1", "redfish+https://127.0.0.1:4443")])
    assert said(network.addresses(docs(rack), fake, pin=None))["urls.bmc"][0] == "ok"


def test_the_way_to_bmcs(rack: Rack) -> None:
    def route(fake: Fake) -> tuple[str, str]:
        return said(network.addresses(docs(rack), fake, pin=None))["route to BMCs"]

    assert route(Fake())[0] == "ok"
    assert route(Fake(sources={"10.9.0.7": "10.8.0.5"}))[0] == "warn"
    lost = route(Fake(sources={"10.9.0.7": None}))
    assert lost[0] == "fail"
    assert "10.9.0.7" in lost[1]
    document(rack, bmc={"proxy": "socks5://bastion:1080"})
    assert route(Fake())[0] == "unknown"


def test_a_name_that_bmcs_must_look_up(rack: Rack) -> None:
    document(rack, urls={"bmc": "http://ctl.example:8080", "machines": "https://10.0.0.5:8443"})
    fake = Fake(names={"ctl.example": ["10.0.0.5"]})
    assert said(network.addresses(docs(rack), fake, pin=None))["urls.bmc by name"][0] == "warn"


# the machine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "event", "ahead", "name", "verdict"),
    [
        (Clock(True), None, [], "clock", "ok"),
        (Clock(False), None, [], "clock", "warn"),
        (Clock(None, why="no adjtimex"), None, [], "clock", "unknown"),
        (Clock(True), NOW + 7200, [], "clock and store", "fail"),
        (Clock(True), None, [-3600.0, -3540.0, 0.0, -3600.0], "clock and BMCs", "warn"),
        (Clock(True), None, [0.0, 60.0, 0.0, 99999.0], "clock and BMCs", "ok"),
    ],
)
def test_the_clock(clock: Clock, event: float | None, ahead: list[float], name: str, verdict: str) -> None:
    found = said(machine.clock(Fake(time=clock), newest_event=event, ahead=ahead))
    assert found[name][0] == verdict


@pytest.mark.parametrize(
    ("space", "verdict"),
    [
        ((100 * GIB, 200 * GIB, 10**6), "ok"),
        ((15 * GIB, 200 * GIB, 10**6), "warn"),
        ((GIB, 200 * GIB, 10**6), "fail"),
        ((100 * GIB, 200 * GIB, 10), "fail"),
    ],
)
def test_disks(space: tuple[int, int, int], verdict: str) -> None:
    found = said(machine.disks(Fake(space=space), {"images": (Path("/x"), 2 * GIB, 20 * GIB)}))
    assert found["disk: images"][0] == verdict


def test_programs() -> None:
    used = {"ssh": ("openssh-client", "prove hosts by ssh")}
    assert said(machine.programs(Fake(), used))["programs"][0] == "ok"
    found = said(machine.programs(Fake(missing={"ssh", "xorriso"}), used))
    assert found["program: ssh"] == (
        "fail",
        "not installed, needed to prove hosts by ssh | apt-get install openssh-client",
    )
    assert found["program: xorriso"][0] == "warn"
    assert "apt-get install xorriso" in found["program: xorriso"][1]


@pytest.mark.parametrize(
    ("begins", "ends", "verdict", "words"),
    [
        (-DAY, 400 * DAY, "ok", "until"),
        (-DAY, 20 * DAY, "warn", "ends on"),
        (-9 * DAY, -DAY, "fail", "has ended on"),
        (DAY, 90 * DAY, "fail", "not valid yet"),
    ],
)
def test_certificates(tmp_path: Path, begins: float, ends: float, verdict: str, words: str) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(certificate(NOW + begins, NOW + ends) + certificate(NOW - DAY, NOW + 900 * DAY))
    found = said(machine.certificates({path: "CA of r1"}, NOW))["certificate: ca.pem"]
    assert found[0] == verdict
    assert words in found[1]


def test_certificates_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    found = said(machine.certificates({tmp_path / "a": "x", tmp_path / "b": "y"}, NOW))
    assert [v for v, _ in found.values()] == ["fail", "fail"]


def certificate(begins: float, ends: float) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime.fromtimestamp(begins, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(ends, dt.UTC))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def test_permissions(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert said(machine.permissions(folder, os.geteuid()))["permissions"][0] == "ok"
    tls.ensure(folder / "tls", "https://x")
    folder.chmod(0o700)
    assert said(machine.permissions(folder, os.geteuid()))["permissions"][0] == "ok"
    (folder / "tls" / "controller.key").chmod(0o640)
    assert "controller.key" in said(machine.permissions(folder, os.geteuid()))["permissions"][1]
    (folder / "tls" / "controller.key").chmod(0o600)
    assert said(machine.permissions(folder, os.geteuid() + 1))["permissions"][0] == "fail"


# what is kept --------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Path:
    SqliteStore(tmp_path / "store.sqlite").close()
    return tmp_path / "store.sqlite"


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(sql)
        conn.commit()


def test_the_store(store: Path, tmp_path: Path) -> None:
    assert said(state.store(tmp_path / "none", names()))["store"][0] == "ok"
    assert said(state.store(store, names()))["store"][1].startswith("sound, as new as this program")
    older = said(state.store(store, names() | {"m999_later"}))["store"]
    assert older[0] == "ok"
    assert "it is migrated when it is next used" in older[1]
    change(store, "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('metalimmu', 'm999', '')")
    newer = said(state.store(store, names()))["store"]
    assert newer[0] == "fail"
    assert "newer than this program: it has m999" in newer[1]
    store.write_bytes(b"garbage" * 1000)
    assert said(state.store(store, names()))["store"][0] == "fail"


def test_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "engine.sqlite"
    assert said(state.engine(path, 5))["engine"][0] == "ok"
    change(path, "CREATE TABLE dbos_migrations (version INTEGER)")
    change(path, "INSERT INTO dbos_migrations VALUES (5)")
    assert said(state.engine(path, 5))["engine"][0] == "ok"
    assert "tables are of version 5, DBOS here knows 4" in said(state.engine(path, 4))["engine"][1]
    path.write_bytes(b"garbage" * 1000)
    assert said(state.engine(path, 5))["engine"][0] == "fail"


@pytest.mark.parametrize(
    ("holder", "free", "under_way", "verdict"),
    [("", True, 0, "ok"), ("", True, 3, "warn"), ("vm pid 7", False, 3, "ok"), ("vm pid 8", False, 3, "warn")],
)
def test_the_worker(holder: str, free: bool, under_way: int, verdict: str) -> None:
    found = said(state.worker(holder, free=free, under_way=under_way, probes=Fake(dead={8})))
    assert found["worker"][0] == verdict


def test_secrets_are_read_once_and_never_shown() -> None:
    read: list[str] = []

    def reader(ref: str) -> str:
        read.append(ref)
        if ref == "env:BAD":
            raise SecretError("env:BAD is not set", hint="export BAD")
        return "hunter2"

    refs = {"env:GOOD": ["a", "b", "c", "d"], "env:BAD": ["e"], "text:file:key": ["f"]}
    found = said(state.secrets(refs, reader))
    assert read == ["env:GOOD", "env:BAD", "text:file:key"]
    assert found["secret: env:GOOD"] == ("ok", "readable; for a, b, c and 1 more | ")
    assert found["secret: env:BAD"] == ("fail", "env:BAD is not set; needed by e | export BAD")
    assert "secret: file:key" in found
    assert "hunter2" not in json.dumps(found)


def test_ramdisks() -> None:
    wanted = dict.fromkeys(("good", "old", "broken", "none"), 4)
    found = said(state.ramdisks({"good": True, "old": False, "broken": None}, wanted))
    assert [v for v, _ in found.values()] == ["ok", "warn", "fail", "fail"]
    assert "4 hosts need it" in found["ramdisk: none"][1]


@pytest.mark.parametrize(
    ("last", "every", "verdict", "words"),
    [
        (None, None, "warn", "no backup is made by itself"),
        (None, 3600.0, "warn", "metalimmu serve"),
        ({"at": NOW - 600, "bytes": 5e6, "to": "s3://x"}, 3600.0, "ok", "10 minutes old, 5.0 MB at s3://x"),
        ({"at": NOW - 9000}, 3600.0, "warn", "one each 60 minutes"),
        ({"at": NOW - 600, "error": "503", "failed_at": NOW - 60, "hint": "mend it"}, 3600.0, "fail", "503 | mend it"),
    ],
)
def test_backups(last: dict[str, object] | None, every: float | None, verdict: str, words: str) -> None:
    found = said(state.backups(last, every, NOW))["backup"]
    assert found[0] == verdict
    assert words in found[1]


def test_after_a_restore() -> None:
    assert said(state.doubt([], None, NOW)) == {}
    assert said(state.doubt([], NOW - 60, NOW))["restore"][0] == "ok"
    assert said(state.doubt(["n1"], NOW - 60, NOW))["restore"][0] == "warn"


# all of it -----------------------------------------------------------------------------------------------------


def test_a_whole_site(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCTOR_USERNAME", "u")
    monkeypatch.setenv("DOCTOR_PASSWORD", "p4ssw0rd")
    site = OpenSite(rack.site)
    site.store.add_event("node-1", "x", "y")
    tls.ensure(site.state / "tls", "https://x")
    found = said(examine(site, Fake()))
    site.close()
    failing = {n: v for n, v in found.items() if v[0] == "fail"}
    assert failing == {}
    assert found["mode"][1].startswith("read-write")
    assert found["secret: env:DOCTOR"][1] == "readable; for r1, r2 | "
    assert "p4ssw0rd" not in json.dumps(found)
    assert {"versions", "permissions", "store", "engine", "worker", "disk: state", "ramdisk: fake"} <= set(found)


def test_documents_that_are_wrong(rack: Rack) -> None:
    document(rack, urls={"bmc": "nonsense"})
    (check,) = examine(OpenSite(rack.site), Fake())
    assert (check.name, check.verdict) == ("documents", "fail")


def test_it_changes_nothing(rack: Rack) -> None:
    import shutil

    shutil.rmtree(rack.site / ".metalimmu")
    list(examine(OpenSite(rack.site)))
    assert not (rack.site / ".metalimmu").exists()


def test_what_a_person_types(rack: Rack, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--site", str(rack.site), "doctor"]
    assert run([*args, "-o", "json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert {"check", "verdict", "what", "hint"} == set(rows[0])
    assert run(args) == 1
    out = capsys.readouterr().out
    assert "secret: env:DOCTOR: export DOCTOR_USERNAME and DOCTOR_PASSWORD" in out
    assert "documents" not in out
    assert run([*args, "--all"]) == 1
    assert "documents" in capsys.readouterr().out


def test_this_machine_answers() -> None:
    real = System()
    assert real.is_ours("127.0.0.1")
    assert not real.is_ours("198.51.100.7")
    assert real.source("127.0.0.1") == "127.0.0.1"
    assert real.addresses("127.0.0.1") == ["127.0.0.1"]
    assert real.addresses("no-such-name.invalid") == []
    assert real.pin("127.0.0.1", 1) is None
    assert real.free(Path("/tmp/not/there"))[1] > 0
    assert real.program("sh")
    assert real.program("no-such-program") is None
    assert real.alive(os.getpid())
    assert real.interface("lo")
    assert not real.interface("nope0")
    assert set(real.lacks()) <= {"CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN", "CAP_NET_RAW"}
    assert real.clock().synchronized in (True, False, None)
    assert real.clock().error >= 0
