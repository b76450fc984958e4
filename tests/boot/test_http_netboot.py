"""Boots from the network over real sockets: who gets a script, who is told to boot its disk, and who is stopped."""

from __future__ import annotations

import http.client
import socket
import time

import pytest
from boot_rig import Rig, free_port, until

from metalimmu.boot import netboot
from metalimmu.desired.types import Urls
from metalimmu.errors import UsageError
from metalimmu.store.fakes import FailingStore

MAC = "52:54:00:00:00:01"
UUID = "00112233-4455-6677-8899-aabbccddeeff"
ASK = f"/boot/ipxe?mac={MAC}&uuid={UUID}&serial=SN-n1&platform=efi&arch=x86_64&vendor=QEMU&product=Standard%20PC"
EXPECTED = {"serial": "SN-n1", "uuid": UUID, "nics": (MAC,)}


@pytest.fixture
def offered(rig):
    digest = rig.images.add("web", "1")
    rig.deploy("n1", digest, expected=EXPECTED, offered=time.time(), method="pxe")
    return rig


def text(answer) -> str:
    status, headers, body = answer
    assert status == 200, answer
    assert headers["Content-Type"].startswith("text/plain")
    assert "Server" not in headers
    return body.decode()


def is_disk(answer) -> bool:
    return "booting from disk" in text(answer)


def test_a_machine_with_a_deployment_gets_its_boot(offered):
    script = text(offered.get(ASK))
    secret = offered.key.secret("media", "n1")
    assert f"kernel --name vmlinuz {offered.urls.bmc}/m/{secret}/vmlinuz initrd=initrd initrd=slot.cpio " in script
    assert "metalimmu.media=network quiet" in script
    for name in ("vmlinuz", "initrd", "slot.cpio"):
        status, _, body = offered.get(f"/m/{secret}/{name}")
        assert (status, body) == (200, f"n1 {name} ".encode() * 100_000)
    assert offered.get(f"/m/{secret}/root.cpio")[0] == 404
    until(lambda: offered.store.deployment("n1").media_bytes > 2_000_000, what="bytes are counted")
    until(lambda: offered.store.deployment("n1").asked == 1, what="that it has asked is written")
    assert offered.store.deployment("n1").last_seen is not None
    (said,) = [e.text for e in offered.store.history("n1") if "boot script given" in e.text]
    assert "1 of at most 5" in said
    assert "serial number and UUID and MAC" in said


def test_its_grub_config_has_the_same_files(offered):
    config = text(offered.get(f"/boot/grub.cfg?mac={MAC}&uuid={UUID}"))
    secret = offered.key.secret("media", "n1")
    place = f"(http,127.0.0.1:{offered.bmc_port})/m/{secret}"
    assert f"linux \"{place}/vmlinuz\" 'metalimmu.media=network' 'quiet'" in config
    assert f'initrd "{place}/initrd" "{place}/slot.cpio"' in config


def test_a_range_of_a_file(offered):
    secret = offered.key.secret("media", "n1")
    status, headers, body = offered.get(f"/m/{secret}/initrd", headers={"Range": "bytes=10-29"})
    assert (status, headers["Content-Range"], len(body)) == (206, "bytes 10-29/1000000", 20)


@pytest.mark.parametrize(
    "path",
    [
        "/boot/ipxe?mac=52:54:00:00:00:77",
        "/boot/ipxe",
        "/boot/ipxe?",
        "/boot/ipxe?mac=%00&uuid=%ff&serial=" + "x" * 3000,
        "/boot/grub.cfg",
        "/boot/grub.cfg?mac=52:54:00:00:00:77",
        f"/boot/ipxe?mac={MAC}&serial=SN-another",  # a copied MAC
    ],
)
def test_everybody_else_boots_its_disk(offered, path):
    assert is_disk(offered.get(path))
    assert offered.store.deployment("n1").asked == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"offered": None},
        {"ended": 1.0},
        {"go": True},
        {"stop": "no"},
        {"stage": "done"},
    ],
)
def test_only_what_is_offered(offered, fields):
    offered.store.update_deployment("n1", **fields)
    assert is_disk(offered.get(ASK))


def test_an_offer_is_seen_and_withdrawn_within_seconds(offered):
    offered.store.update_deployment("n1", offered=None)
    assert is_disk(offered.get(ASK))
    offered.store.update_deployment("n1", offered=time.time())
    until(lambda: "kernel " in text(offered.get(ASK)), 3, "the offer is seen")
    offered.store.update_deployment("n1", offered=None)
    until(lambda: is_disk(offered.get(ASK)), 3, "the offer is gone")


def test_unknown_machines_are_recorded(offered):
    assert is_disk(
        offered.get("/boot/ipxe?mac=52:54:00:00:00:AA&serial=SN-x&vendor=ACME%20Inc&product=R1&platform=pcbios")
    )
    assert is_disk(offered.get("/boot/grub.cfg?mac=52:54:00:00:00:aa"))
    until(lambda: offered.store.discovered() and offered.store.discovered()[0].times == 2, what="recorded")
    (seen,) = offered.store.discovered()
    assert (seen.mac, seen.serial, seen.vendor, seen.product) == ("52:54:00:00:00:aa", "SN-x", "ACME Inc", "R1")
    assert (seen.firmware, seen.address, seen.why) == ("bios", "127.0.0.1", "no deployment is for it")
    assert seen.first_seen <= seen.last_seen


def test_a_copied_mac_is_recorded_with_the_reason(offered):
    assert is_disk(offered.get(f"/boot/ipxe?mac={MAC}&serial=SN-another"))
    until(offered.store.discovered, what="recorded")
    assert "another serial number, SN-n1 and not SN-another" in offered.store.discovered()[0].why


def test_a_machine_that_boots_in_a_loop_is_stopped(offered):
    for i in range(netboot.MAX_BOOTS):
        assert "kernel " in text(offered.get(ASK)), i
    assert is_disk(offered.get(ASK))
    until(lambda: offered.store.deployment("n1").failure, what="it is stopped")
    record = offered.store.deployment("n1")
    assert record.failure.code == "BootLoop"
    assert "more than 5 times" in record.failure.message
    assert record.stop == record.failure.message
    assert is_disk(offered.get(ASK))


def test_boots_are_counted_over_a_restart_of_the_controller(offered):
    for _ in range(3):
        offered.get(ASK)
    offered.service.stop()
    assert offered.store.deployment("n1").asked == 3
    offered.service = offered.new_service()
    offered.service.start()
    for _ in range(2):
        assert "kernel " in text(offered.get(ASK))
    assert is_disk(offered.get(ASK))


def test_what_cannot_be_booted_is_said(offered):
    offered.no_netboot["n1"] = "the ramdisk is too old"
    assert is_disk(offered.get(ASK))
    until(lambda: any("too old" in e.text for e in offered.store.history("n1")), what="the reason is in the history")


def test_a_store_that_fails_is_no_answer(tmp_path):
    """The loader asks again; a machine is not sent to its disk because we cannot read."""
    rig = Rig(tmp_path)
    rig.store = FailingStore(rig.store)
    rig.service = rig.new_service()
    rig.service.start()
    try:
        rig.store.broken = True
        until(lambda: rig.get(ASK)[0] == 503, 5, "what was read is too old")
        rig.store.broken = False
        assert is_disk(rig.get(ASK))
    finally:
        rig.store.broken = False
        rig.close()


def test_the_first_script_asks_for_the_machines_own(offered):
    script = text(offered.get("/boot/start.ipxe"))
    assert f"{offered.urls.bmc}/boot/ipxe?mac=${{netX/mac}}&uuid=${{uuid}}" in script
    assert f"(http,127.0.0.1:{offered.bmc_port})/boot/grub.cfg?$who" in text(offered.get("/grub/grub.cfg"))


def test_loaders_are_those_of_the_packages(offered):
    for name in ("snponly.efi", "ipxe.efi", "IPXE.EFI"):
        status, headers, body = offered.get(f"/boot/efi/{name}")
        assert (status, headers["Content-Type"], body[:2]) == (200, "application/efi", b"MZ")
    assert offered.get("/boot/efi/undionly.kpxe")[0] == 200
    for name in ("..%2fipxe.efi", "nothing.efi", "revocations.efi", "bootx64.efi", "grubx64.efi"):
        assert offered.get(f"/boot/efi/{name}")[0] == 404


def test_one_connection_asks_many_things(offered):
    connection = offered.plain()
    secret = offered.key.secret("media", "n1")
    for path, status in ((ASK, 200), ("/boot/ipxe?mac=x", 200), (ASK, 200), (f"/m/{secret}/vmlinuz", 200), (ASK, 200)):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


def test_in_pieces_and_pipelined(offered):
    request = f"GET {ASK} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    last = request.replace(b"Host: x", b"Host: x\r\nConnection: close")
    with socket.create_connection(("127.0.0.1", offered.bmc_port), timeout=10) as sock:
        for piece in (request[:3], request[3:20], request[20:] + request, last):
            sock.sendall(piece)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.count(b"#!ipxe") == 3


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET /boot/ipxe?" + b"x" * 20_000,
        b"GET /boot/ipxe?mac=1\r\n\r\n",
        b"GET /boot/ipxe?mac=1 HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /boot/ipxe?%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % b"&".join([b"a=b"] * 1000),
        b"\x16\x03\x01\x02\x00",
        b"\r\n\r\n",
    ],
)
def test_garbage_ends_quickly(offered, garbage):
    with socket.create_connection(("127.0.0.1", offered.bmc_port), timeout=10) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := sock.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
    assert b"kernel" not in answer
    assert is_disk(offered.get("/boot/ipxe?mac=x"))


def test_a_rack_asks_at_once(rig):
    digest = rig.images.add("web", "1")
    for i in range(60):
        rig.deploy(f"h{i}", digest, expected={"serial": f"SN{i}", "uuid": "", "nics": ()}, offered=time.time())
    connections = [rig.plain() for _ in range(60)]
    for i, connection in enumerate(connections):
        connection.request("GET", f"/boot/ipxe?serial=SN{i}&mac=x", headers={"Connection": "close"})
    for i, connection in enumerate(connections):
        answer = connection.getresponse()
        assert rig.key.secret("media", f"h{i}").encode() in answer.read()
        connection.close()
    until(lambda: all(d.asked == 1 for d in rig.store.deployments()), what="all are counted")


def test_an_address_of_its_own(tmp_path):
    rig = Rig(tmp_path)
    own = next(p for p in iter(free_port, 0) if p not in (rig.bmc_port, rig.machines_port))
    rig.urls = Urls(bmc=rig.urls.bmc, machines=rig.urls.machines, boot=f"http://127.0.0.1:{own}")
    rig.service = rig.new_service()
    rig.service.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", own, timeout=10)
        connection.request("GET", "/boot/start.ipxe")
        assert f"http://127.0.0.1:{own}/boot/ipxe".encode() in connection.getresponse().read()
        connection.close()
        assert rig.get("/boot/start.ipxe")[0] == 404
        assert rig.service.boot_url() == f"http://127.0.0.1:{own}/boot/start.ipxe"
    finally:
        rig.close()


def test_without_an_address_in_the_clear(tmp_path):
    rig = Rig(tmp_path)
    rig.urls = Urls(bmc=f"https://127.0.0.1:{rig.bmc_port}", machines=rig.urls.machines)
    rig.service = rig.new_service()
    with pytest.raises(UsageError, match="no address in the clear"):
        rig.service.boot_url()
    rig.close()


def test_ports_that_contradict_each_other(tmp_path):
    rig = Rig(tmp_path)
    rig.urls = Urls(bmc=rig.urls.bmc, machines=rig.urls.machines, boot=rig.urls.machines.replace("https", "http"))
    with pytest.raises(UsageError, match=r"urls\.boot and urls\.machines both lead to port"):
        rig.new_service()
    rig.close()
