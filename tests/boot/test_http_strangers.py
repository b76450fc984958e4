"""What is not part of a running deployment gets nothing; what is garbage, huge or slow gets less."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import time

import pytest
from boot_rig import until

from metalimmu.boot import answers, server
from metalimmu.boot.tokens import hashed
from metalimmu.wire import codec
from metalimmu.wire.messages import CheckIn, Identity

CHECK_IN = codec.encode(CheckIn(Identity("SN-n1", "u"), "x86_64", "uefi", "b1", "1"))


@pytest.fixture
def deployed(rig):
    rig.digest = rig.images.add("web", "1")
    rig.deploy("n1", rig.digest)
    rig.token = rig.key.secret("agent", "n1")
    rig.sha = next(c for c in rig.images.by_digest(rig.digest).manifest.chunks if c)
    return rig


def is_nothing(answer) -> bool:
    status, headers, body = answer
    return status == 404 and body == b"" and "Server" not in headers


PATHS = [
    "/",
    "/v1/",
    "/v1/check-in",
    "/m/",
    "/m/x/boot.iso",
    "/c/x/" + "0" * 64,
    "/metrics",
    "/../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/v1/manifest/" + "0" * 64,
]


@pytest.mark.parametrize("path", PATHS)
def test_strangers_are_told_nothing(deployed, path):
    assert is_nothing(deployed.get(path))
    assert is_nothing(deployed.get(path, method="DELETE"))
    assert is_nothing(deployed.ask("GET", path))


@pytest.mark.parametrize("token", [None, "", "x", "x" * 5000, "ä".encode().decode("latin-1")])
@pytest.mark.parametrize("path", ["check-in", "progress", "report", "failure", "system"])
def test_without_a_token_there_is_no_api(deployed, path, token):
    assert is_nothing(deployed.ask("POST", f"/v1/{path}", token=token, body=CHECK_IN))


def test_a_token_is_good_for_its_own_purpose_only(deployed):
    proof, media = (deployed.key.secret(kind, "n1") for kind in ("proof", "media"))
    assert is_nothing(deployed.ask("POST", "/v1/check-in", token=proof, body=CHECK_IN))
    assert is_nothing(deployed.ask("POST", "/v1/system", token=deployed.token, body=b"{}"))
    assert is_nothing(deployed.get(f"/c/{media}/{deployed.sha}"))
    assert is_nothing(deployed.get(f"/m/{deployed.token}/boot.iso"))


def test_the_store_and_the_file_have_no_token_in_clear(deployed):
    assert deployed.store.deployment("n1").token_hash == hashed(deployed.token)
    for file in deployed.root.glob("store.sqlite*"):
        assert deployed.token.encode() not in file.read_bytes()


def test_bmcs_have_no_api_and_machines_no_media(deployed):
    connection = deployed.plain()
    connection.request("POST", "/v1/check-in", body=CHECK_IN, headers={"Authorization": f"Bearer {deployed.token}"})
    assert connection.getresponse().status == 404
    connection.close()
    assert is_nothing(deployed.ask("GET", f"/m/{deployed.key.secret('media', 'n1')}/boot.iso"))


def test_only_chunks_of_the_deployment_s_image(deployed):
    base = f"/c/{deployed.key.secret('chunk', 'n1')}"
    other = deployed.images.by_digest(deployed.images.add("db", "1", seed=9)).manifest
    foreign = next(c for c in other.chunks if c)
    assert deployed.images.chunk_path(foreign).exists()
    assert deployed.get(f"{base}/{deployed.sha}")[0] == 200
    for name in (
        foreign,
        "0" * 64,
        deployed.sha[:-1],
        deployed.sha.upper(),
        "..%2f..%2fstore.sqlite",
        f"{deployed.sha}.zst",
    ):
        assert is_nothing(deployed.get(f"{base}/{name}")), name


def test_an_ended_deployment_serves_nothing_and_its_agent_is_told_why(deployed):
    media = f"/m/{deployed.key.secret('media', 'n1')}/boot.iso"
    chunk = f"/c/{deployed.key.secret('chunk', 'n1')}/{deployed.sha}"
    assert deployed.get(media)[0] == 200
    assert deployed.get(chunk)[0] == 200
    deployed.store.update_deployment("n1", ended=time.time())
    until(lambda: is_nothing(deployed.get(media)), 5)
    until(lambda: is_nothing(deployed.get(chunk)), 5)
    status, _, body = deployed.ask("POST", "/v1/check-in", token=deployed.token, body=CHECK_IN)
    assert status == 403
    assert "is over" in json.loads(body)["message"]
    assert is_nothing(deployed.ask("GET", "/v1/config", token=deployed.token))
    assert is_nothing(deployed.ask("GET", f"/v1/manifest/{deployed.digest[7:]}", token=deployed.token))
    assert deployed.store.deployment("n1").check_in is None


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b'{"identity": 5}', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000]
)
def test_garbage_is_refused_with_the_field(deployed, body):
    status, _, answer = deployed.ask("POST", "/v1/check-in", token=deployed.token, body=body)
    assert status == 400
    assert "not a CheckIn" in json.loads(answer)["message"]
    assert deployed.store.deployment("n1").check_in is None


def test_a_body_that_is_too_large_is_refused(deployed):
    status, _, _ = deployed.ask("POST", "/v1/check-in", token=deployed.token, body=b" " * (answers.MAX_BODY + 1))
    assert status == 413
    status, _, _ = deployed.ask("POST", "/v1/check-in", token=deployed.token, body=CHECK_IN.ljust(answers.MAX_BODY))
    assert status == 200


def test_garbage_instead_of_http_is_closed_without_a_word(deployed):
    with socket.create_connection(("127.0.0.1", deployed.bmc_port), timeout=10) as s:
        s.sendall(b"\x16\x03\x01 hello, is this TLS?\r\n\r\n")
        assert s.recv(1000) == b""


def test_a_header_that_is_too_long_is_closed_without_a_word(deployed):
    with socket.create_connection(("127.0.0.1", deployed.bmc_port), timeout=10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n")
        try:
            assert s.recv(1000) == b""
        except ConnectionResetError:
            return


def test_slow_clients_are_closed(deployed, monkeypatch):
    """One that never ends its headers, one that never speaks, one that never ends its body."""
    monkeypatch.setattr(server, "IDLE", 1.0)
    monkeypatch.setattr(answers, "BODY_TIME", 1.0)

    def closed(first: bytes, drip: bytes, *, tls: bool) -> bytes:
        raw = socket.create_connection(("127.0.0.1", deployed.machines_port if tls else deployed.bmc_port), timeout=10)
        s = (
            ssl.create_default_context(cadata=deployed.tls.pem).wrap_socket(raw, server_hostname="127.0.0.1")
            if tls
            else raw
        )
        with s:
            s.sendall(first)
            s.settimeout(0.2)
            deadline = time.monotonic() + 8
            got = b""
            while time.monotonic() < deadline:
                try:
                    data = s.recv(1000)
                    if not data:
                        return got
                    got += data
                except TimeoutError:
                    try:
                        s.sendall(drip)
                    except OSError:
                        return got
                except OSError:
                    return got
            raise AssertionError("still open after 8 s")

    assert closed(b"GET / HTTP/1.1\r\n", b"X: y\r\n", tls=False) == b""
    assert closed(b"", b"", tls=False) == b""
    head = f"POST /v1/check-in HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {deployed.token}\r\nContent-Length: 1000\r\n\r\n"
    assert b"408" in closed(head.encode(), b" ", tls=True).split(b"\r\n")[0]


def test_too_many_connections_do_not_take_the_service_down(deployed, monkeypatch):
    monkeypatch.setattr(server, "_most_connections", lambda: 20)
    deployed.service.stop()
    deployed.service = deployed.new_service()
    deployed.service.start()
    idle = [socket.create_connection(("127.0.0.1", deployed.bmc_port), timeout=10) for _ in range(20)]
    until(lambda: deployed_is_closed(deployed), 10)
    for s in idle:
        s.close()
    until(lambda: is_served(deployed), 10)


def deployed_is_closed(rig) -> bool:
    with socket.create_connection(("127.0.0.1", rig.bmc_port), timeout=10) as s:
        s.settimeout(1)
        try:
            return s.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


def is_served(rig) -> bool:
    try:
        return rig.get(f"/m/{rig.key.secret('media', 'n1')}/boot.iso")[0] == 200
    except OSError:
        return False


def test_no_secret_is_logged(deployed, caplog):
    caplog.set_level(logging.DEBUG)
    deployed.get(f"/m/{deployed.key.secret('media', 'n1')}/boot.iso")
    deployed.images.chunk_path(deployed.sha).unlink()
    deployed.get(f"/c/{deployed.key.secret('chunk', 'n1')}/{deployed.sha}")
    deployed.deploy("n2", "sha256:" + "0" * 64)
    status, _, body = deployed.ask("POST", "/v1/check-in", token=deployed.key.secret("agent", "n2"), body=CHECK_IN)
    assert (status, json.loads(body)["code"]) == (503, "ImageError")
    with socket.create_connection(("127.0.0.1", deployed.bmc_port), timeout=10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nAuthorization Bearer " + deployed.token.encode() + b"\r\n\r\n")
        s.recv(100)
    text = caplog.text
    assert "cannot be read" in text
    assert "POST /v1/check-in: the image store has no image with digest" in text
    for kind in ("agent", "proof", "media", "chunk"):
        assert deployed.key.secret(kind, "n1") not in text


def test_many_requests_at_once_on_both_listeners(deployed):
    failures = []

    def work() -> None:
        for _ in range(5):
            if deployed.get(f"/c/{deployed.key.secret('chunk', 'n1')}/{deployed.sha}")[0] != 200:
                failures.append("chunk")
            if deployed.ask("POST", "/v1/check-in", token=deployed.token, body=CHECK_IN)[0] != 200:
                failures.append("check-in")

    threads = [threading.Thread(target=work) for _ in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert failures == []
