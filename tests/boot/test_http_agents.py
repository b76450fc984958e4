"""The agents' API over real TLS: binding, orders, counting, and a store that fails."""

from __future__ import annotations

import dataclasses
import json
import socket
import struct
import threading
import time

import pytest
from boot_rig import Rig, until

from metalimmu.boot.http import BootService
from metalimmu.boot.tls import ensure
from metalimmu.boot.tokens import SiteKey
from metalimmu.desired.types import Listen, Urls
from metalimmu.errors import ListenError, SecretError, UsageError
from metalimmu.store.fakes import FailingStore
from metalimmu.wire import codec
from metalimmu.wire.manifest import CHUNK, Manifest, read_back_digest
from metalimmu.wire.messages import (
    Assignment,
    CheckIn,
    Disk,
    Failure,
    Identity,
    Orders,
    Progress,
    Report,
    RunTimeConfig,
    SystemReport,
)

CHECK_IN = CheckIn(Identity("SN-n1", "00112233-4455-6677-8899-aabbccddeeff"), "x86_64", "uefi", "boot-1", "1")


class Agent:
    """One machine's requests by hand."""

    def __init__(self, rig: Rig, name: str = "n1") -> None:
        self.rig = rig
        self.token = rig.key.secret("agent", name)
        self.proof = rig.key.secret("proof", name)

    def post(self, path: str, said, kind=Orders, *, status: int = 200, token: str | None = None):
        got, _, body = self.rig.ask("POST", f"/v1/{path}", token=token or self.token, body=codec.encode(said))
        assert got == status, body
        return json.loads(body) if kind is dict else codec.decode(kind, body)

    def check_in(self, said=CHECK_IN) -> Assignment:
        return self.post("check-in", said, Assignment)


@pytest.fixture
def agent(rig):
    rig.digest = rig.images.add("web", "1")
    rig.deploy("n1", rig.digest)
    return Agent(rig)


def good_report(rig, **fields) -> Report:
    manifest = rig.images.by_digest(rig.digest).manifest
    given = Report(
        Disk("/dev/sda", 10), rig.digest, read_back_digest(manifest.chunks), "boot-1", config_digest="c" * 64
    )
    return dataclasses.replace(given, **fields)


def test_the_first_machine_binds_the_deployment(rig, agent):
    task = agent.check_in()
    assert (task.deployment, task.host, task.stage, task.fence) == ("n1", "n1", "write", 1)
    assert task.chunk_base == f"{rig.urls.chunks}/c/{rig.key.secret('chunk', 'n1')}"
    assert abs(task.clock - time.time()) < 60
    other = dataclasses.replace(CHECK_IN, identity=Identity("SN-n1", "99999999-4455-6677-8899-aabbccddeeff"))
    refusal = agent.post("check-in", other, dict, status=409)
    assert refusal["code"] == "IdentityMismatch"
    d = rig.store.deployment("n1")
    assert d.check_in == CHECK_IN
    assert d.refusal.evidence["uuid"].startswith("99999999")


def test_of_two_machines_at_once_only_one_is_first(rig, agent):
    rig.deploy("n2", rig.digest, expected={"serial": ""})
    answers = []

    def knock(i: int) -> None:
        said = dataclasses.replace(CHECK_IN, identity=Identity(f"SN-{i}", ""), boot_id=f"boot-{i}")
        token = rig.key.secret("agent", "n2")
        answers.append(rig.ask("POST", "/v1/check-in", token=token, body=codec.encode(said))[0])

    threads = [threading.Thread(target=knock, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert sorted(answers) == [200] + [409] * 7


def test_manifest_and_config(rig, agent):
    path = f"/v1/manifest/{rig.digest.removeprefix('sha256:')}"
    assert rig.ask("GET", "/v1/config", token=agent.token)[0] == 409
    agent.check_in()
    status, _, body = rig.ask("GET", path, token=agent.token)
    assert status == 200
    assert Manifest.decode(body).digest == rig.digest
    config = codec.decode(RunTimeConfig, rig.ask("GET", "/v1/config", token=agent.token)[2])
    assert config == rig.run_time_config("n1")
    assert rig.ask("GET", "/v1/manifest/" + "0" * 64, token=agent.token)[0] == 404


def test_progress_is_written_at_most_once_a_second_and_phases_at_once(rig, agent):
    agent.check_in()
    written = []
    real = rig.store.beat
    rig.store.beat = lambda beats: (written.append(len(list(beats))), real(beats))[1]
    start = time.monotonic()
    for i in range(100):
        agent.post("progress", Progress("write", i, 100, log=(f"line {i}",), boot_id="boot-1"))
    spent = time.monotonic() - start
    assert len(written) <= spent + 3
    agent.post("progress", Progress("read-back", 0, 100, boot_id="boot-1"))
    assert rig.store.deployment("n1").progress.phase == "read-back"
    assert [e.text for e in rig.store.history("n1")] == [f"line {i}" for i in range(100)]


def test_progress_without_check_in_is_refused(rig, agent):
    refusal = agent.post("progress", Progress("write", boot_id="boot-1"), dict, status=409)
    assert refusal["message"] == "this boot has not checked in"


def test_an_agent_that_waits_and_was_not_heard_is_to_report_again(rig, agent):
    """Its report was to a controller whose memory is lost."""
    agent.check_in()
    refusal = agent.post("progress", Progress("wait", boot_id="boot-1"), dict, status=409)
    assert refusal["message"] == "this controller has not heard the report of what was written"
    assert agent.check_in().stage == "write"
    agent.post("report", good_report(rig))
    assert agent.post("progress", Progress("wait", boot_id="boot-1")) == Orders(1, stage="wait")


def test_a_token_of_a_deployment_that_is_not_known(rig, agent):
    """Made by this site's key, after the backup that the store is from. A stranger gets nothing."""
    token = rig.key.token("agent", "later")
    refusal = agent.post("check-in", CHECK_IN, dict, status=403, token=token)
    assert refusal["message"] == "not known: later"
    proof = rig.key.token("proof", "later")
    said = SystemReport("web", "2", "b", "SN-n1", "boot-9")
    assert agent.post("system", said, dict, status=403, token=proof)["code"] == "AgentRefused"
    assert rig.unknowns == [("later", CHECK_IN), ("later", said)]
    secret = rig.key.secret("agent", "later")
    for stranger in (f"{secret}.other", f"{'a' * 32}.later", secret, f"{secret}.", ".later"):
        assert rig.ask("POST", "/v1/check-in", token=stranger, body=codec.encode(CHECK_IN))[0] == 404
    assert len(rig.unknowns) == 2
    assert rig.ask("POST", "/v1/check-in", token=rig.key.token("agent", "n1"), body=codec.encode(CHECK_IN))[0] == 200


def test_only_a_controller_of_the_site_is_told_which_this_is(rig):
    status, _, body = rig.ask("GET", "/v1/controller", token=rig.key.controller)
    assert (status, json.loads(body)) == (200, {"floor": 7})
    for stranger in (None, "x", rig.key.secret("agent", "n1"), SiteKey(b"k" * 32).controller):
        assert rig.ask("GET", "/v1/controller", token=stranger)[0] == 404


def test_a_controller_learns_from_a_machine_that_it_was_replaced(rig, agent):
    agent.check_in()
    refusal = agent.post("progress", Progress("write", boot_id="boot-1", fence=7), dict, status=409)
    assert refusal["code"] == "LeaseLost"
    assert rig.store.deployment("n1").superseded == 7
    agent.post("check-in", dataclasses.replace(CHECK_IN, fence=1 << 70), dict, status=409)
    assert rig.store.deployment("n1").superseded == 1 << 62


def test_go_and_stop_reach_the_machine_and_are_noted(rig, agent):
    agent.check_in()
    said = Progress("read-back", boot_id="boot-1")
    assert agent.post("progress", said) == Orders(1, stage="write")
    rig.store.update_deployment("n1", go=True, fence=2)
    assert agent.post("progress", said) == Orders(2, go=True, stage="write")
    went = rig.store.deployment("n1").went
    assert went is not None
    agent.post("progress", said)
    assert rig.store.deployment("n1").went == went
    rig.store.update_deployment("n1", stop="cancelled")
    assert agent.post("progress", said) == Orders(2, stop="cancelled", stage="done")
    assert agent.check_in().stage == "done"


def test_a_good_report_and_a_bad_one(rig, agent):
    agent.check_in()
    assert agent.post("report", good_report(rig)).stage == "wait"
    assert rig.store.deployment("n1").read_back_ok is True
    assert agent.check_in().stage == "wait"
    bad = agent.post("report", good_report(rig, read_back="0" * 64))
    assert "reads back as 000" in bad.stop
    assert rig.store.deployment("n1").failure.code == "ReadBackDiffers"


def test_a_failure_is_kept(rig, agent):
    agent.check_in()
    agent.post(
        "failure", Failure("DiskUnsuitable", "too\nsmall", "buy", disks=(Disk("/dev/sda", 1),), boot_id="boot-1")
    )
    kept = rig.store.deployment("n1").failure
    assert (kept.code, kept.message, kept.disks[0].path) == (
        "DiskUnsuitable",
        "too\N{REPLACEMENT CHARACTER}small",
        "/dev/sda",
    )


def test_the_system_is_acknowledged_only_when_it_is_the_right_one(rig, agent):
    agent.check_in()
    right = SystemReport("web", "1", "build-1-1", "SN-n1", "boot-2", config_digest="c" * 64)
    old = dataclasses.replace(right, image_version="0")
    assert agent.post("system", old, dict, token=agent.proof) == {"acknowledged": False, "again": 300, "config": None}
    assert rig.store.deployment("n1").system_why == "it is web@0, expected web@1"
    assert agent.post("system", right, dict, token=agent.proof) == {"acknowledged": True, "again": 300, "config": None}
    assert agent.post("system", old, dict, token=agent.proof) == {"acknowledged": False, "again": 300, "config": None}
    assert rig.store.deployment("n1").system == right
    rig.store.update_deployment("n1", ended=time.time())
    assert agent.post("system", right, dict, token=agent.proof) == {"acknowledged": True, "again": 300, "config": None}


def test_a_store_that_fails_makes_machines_wait_not_fail(rig):
    digest = rig.images.add("web", "1")
    rig.deploy("n1", digest)
    rig.service.stop()
    failing = FailingStore(rig.store, only=frozenset({"update_deployment", "beat"}))
    inner, rig.store = rig.store, failing
    rig.service = rig.new_service()
    rig.service.start()
    agent = Agent(rig)
    failing.broken = True
    refusal = agent.post("check-in", CHECK_IN, dict, status=503)
    assert refusal["code"] == "StoreError"
    failing.broken = False
    agent.check_in()
    failing.broken = True
    agent.post("progress", Progress("write", 5, 10, log=("kept",), boot_id="boot-1"))
    until(lambda: failing.calls.count("beat") >= 2, 10)
    failing.broken = False
    until(lambda: (inner.deployment("n1").progress or Progress("")).done == 5, 10)
    assert [e.text for e in inner.history("n1")] == ["kept"]


def test_who_waits_is_woken_by_the_machine(rig, agent):
    rig.service.wait("n1", 0.01)
    woken = []

    def waiter() -> None:
        start = time.monotonic()
        rig.service.wait("n1", 30)
        woken.append(time.monotonic() - start)

    thread = threading.Thread(target=waiter)
    thread.start()
    agent.check_in()
    thread.join(20)
    assert woken
    assert woken[0] < 10
    agent.check_in()
    start = time.monotonic()
    rig.service.wait("n1", 30)
    assert time.monotonic() - start < 10, "a change between looking and waiting was lost"


def big_image(rig) -> str:
    """One chunk of 8 MB on the wire: larger than what sockets take at once."""
    sha = "e" * 64
    path = rig.images.chunk_path(sha)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xab" * 8_000_000)
    manifest = Manifest("disk", "x86_64", CHUNK, (sha,))
    rig.images.images[manifest.digest] = type("Image", (), {"manifest": manifest})
    rig.deploy("big", manifest.digest)
    return f"/c/{rig.key.secret('chunk', 'big')}/{sha}"


def reset(connection) -> None:
    """Close at once, as a machine that loses its power does not: with a reset, and nothing more is taken."""
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("secure", [False, True])
def test_what_was_sent_is_counted_also_when_the_reader_goes(rig, secure):
    path = big_image(rig)
    connection = rig.secure() if secure else rig.plain()
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.getheader("Content-Length") == "8000000"
    got = len(answer.read(100_000))
    reset(connection)
    until(lambda: rig.store.deployment("big").chunk_bytes > 0, 10)
    time.sleep(1.2)
    counted = rig.store.deployment("big").chunk_bytes
    assert got <= counted < 8_000_000

    connection = rig.secure() if secure else rig.plain()
    connection.request("GET", path)
    assert len(connection.getresponse().read()) == 8_000_000
    connection.close()
    until(lambda: rig.store.deployment("big").chunk_bytes == counted + 8_000_000, 10)
    assert rig.store.deployment("big").media_bytes == 0


def test_media_that_breaks_off_is_counted_too(rig, agent):
    with rig.iso.open("r+b") as file:
        file.truncate(20_000_000)
    path = f"/m/{rig.key.secret('media', 'n1')}/boot.iso"
    connection = rig.plain()
    connection.request("GET", path)
    answer = connection.getresponse()
    got = len(answer.read(100_000))
    reset(connection)
    until(lambda: rig.store.deployment("n1").media_bytes > 0, 10)
    time.sleep(1.2)
    counted = rig.store.deployment("n1").media_bytes
    assert got <= counted < 20_000_000
    rig.get(path, method="HEAD")
    rig.get(path, headers={"Range": "bytes=5-104"})
    until(lambda: rig.store.deployment("n1").media_bytes == counted + 100, 10)


def test_a_taken_port_is_named(rig, tmp_path):
    second = rig.new_service()
    with pytest.raises(ListenError, match=rf"port {rig.bmc_port} \(listen.bmc\): Address already in use") as caught:
        second.start()
    assert f"sport = :{rig.bmc_port}" in caught.value.hint
    rig.service.stop()
    second.start()
    second.stop()
    second.stop()


def service_for(rig, urls: Urls, listen: Listen) -> BootService:
    return BootService(urls, listen, tls=rig.tls, key=rig.key, deployments=rig.store, images=rig.images, content=rig)


def test_an_address_that_is_not_ours_is_named(rig):
    service = service_for(rig, rig.urls, Listen(bmc="192.0.2.1:8080"))
    with pytest.raises(ListenError, match=r"192\.0\.2\.1, port 8080") as caught:
        service.start()
    assert "no address 192.0.2.1" in caught.value.hint


def test_one_port_for_both_needs_tls_on_both(rig):
    with pytest.raises(UsageError, match="both lead to port 8080"):
        service_for(rig, Urls(bmc="http://h:8080", machines="https://h:8080"), Listen())
    with pytest.raises(UsageError, match="machines"):
        service_for(rig, Urls(bmc="http://h:8080", machines="https://h:99999"), Listen())


def test_one_listener_serves_both_when_they_are_one_address(rig, agent):
    rig.service.stop()
    rig.urls = Urls(bmc=rig.urls.machines, machines=rig.urls.machines)
    rig.service = service_for(rig, rig.urls, Listen())
    rig.service.start()
    assert agent.check_in().chunk_base.startswith(rig.urls.machines)
    assert rig.ask("GET", f"/m/{rig.key.secret('media', 'n1')}/boot.iso")[0] == 200


def test_chunks_stay_behind_tls_unless_the_site_says_otherwise(tmp_path):
    rig = Rig(tmp_path, chunks_in_clear=False)
    rig.service.start()
    try:
        digest = rig.images.add("web", "1")
        rig.deploy("n1", digest)
        sha = next(c for c in rig.images.by_digest(digest).manifest.chunks if c)
        path = f"/c/{rig.key.secret('chunk', 'n1')}/{sha}"
        assert rig.get(path)[0] == 404
        assert rig.ask("GET", path)[0] == 200
    finally:
        rig.close()


def test_addresses_of_media_are_known_again(rig, agent):
    url = rig.service.media_url("n1")
    assert "?" not in url
    assert "=" not in url
    assert len(url) < 127
    shown = [
        url,
        url.upper(),
        url[: url.index("/m/") + 14],
        url.replace("/", "%2F"),
        f" {url}\n",
        url.removeprefix("http://"),
    ]
    assert all(rig.service.is_media_of("n1", text) for text in shown)
    others = ["", "boot.iso", rig.urls.bmc, f"{rig.urls.bmc}/m/", rig.service.media_url("n2")]
    assert not any(rig.service.is_media_of("n1", text) for text in others)


def test_the_site_s_key_and_certificate_stay(tmp_path):
    files = ensure(tmp_path / "tls", "https://10.1.0.5:8443")
    again = ensure(tmp_path / "tls", "https://other:1")
    assert (files.pin, files.pem) == (again.pin, again.pem)
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in files.pem
    one, two = SiteKey.at(tmp_path / "tls" / "site.key"), SiteKey.at(tmp_path / "tls" / "site.key")
    assert one.secret("agent", "d1") == two.secret("agent", "d1")
    secrets = {one.secret(kind, d) for kind in ("agent", "proof", "media", "chunk") for d in ("d1", "d2")}
    assert len(secrets) == 8
    (tmp_path / "tls" / "site.key").chmod(0o644)
    with pytest.raises(SecretError, match="can be read by others"):
        SiteKey.at(tmp_path / "tls" / "site.key")
    (tmp_path / "tls" / "site.key").write_bytes(b"short")
    with pytest.raises(SecretError, match="5 bytes instead of 32"):
        SiteKey.at(tmp_path / "tls" / "site.key")


def test_processes_that_start_at_once_agree_on_the_certificate(tmp_path):
    pins, keys = set(), set()

    def start() -> None:
        pins.add(ensure(tmp_path / "tls", "https://h:1").pin)
        keys.add(SiteKey.at(tmp_path / "tls" / "site.key").secret("agent", "d"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert len(pins) == len(keys) == 1
    assert sorted(p.name for p in (tmp_path / "tls").iterdir()) == ["controller.key", "controller.pem", "site.key"]
    ensure(tmp_path / "tls", "https://h:1").context()
