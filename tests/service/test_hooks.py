"""Hooks and checks really asked: programs, HTTP, TCP, Prometheus; what is said to them, and what becomes of bad answers."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from alert_sinks import own_certificate
from hook_rig import Asked, Prometheus, gone, script, service, talking, until

from metalimmu import log
from metalimmu.desired.hooks import Health, Hook, Undo
from metalimmu.desired.types import HostSpec
from metalimmu.errors import HookFailed, MetalimmuError, SecretError, TemplateError
from metalimmu.service.hooks import Caller
from metalimmu.workflows.calls import Answer, Occasion

SPEC = msgspec.convert(
    {
        "name": "n1.example", "bmc": "fake://n1", "system": None, "serial": "S1", "credentials": None, "tls": {}, "proxy": None,
        "connect_timeout": 10.0, "read_timeout": 60.0, "mode": "read-write", "nics": [], "network": {"address": "10.1.2.3/24"},
        "role": "web", "pool": "web-ams", "image": "web@2", "digest": None, "held": None, "boot": "auto", "firmware": "uefi",
        "ramdisk": "lab", "root_disk": {}, "wipe_signatures": False, "proof": {}, "templates": {}, "vars": {"port": 8080},
        "labels": {"rack": "r 12; rm -rf /", "name": "n1"}, "protected": False, "limits": {},
    },
    HostSpec,
)  # fmt: skip


def never() -> None:
    """Nothing ends the wait."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LB_TOKEN", "sesame-open-sesame")
    monkeypatch.setenv("NOT_FOR_HOOKS", "private")
    yield tmp_path
    log.forget("sesame-open-sesame")


def caller(folder: Path) -> Caller:
    site: Any = SimpleNamespace(folder=folder, docs=SimpleNamespace(site=SimpleNamespace(name="ams1")))
    return Caller(site)


def occasion(phase: Any = "before", attempt: int = 1) -> Occasion:
    facts = {"run": "r-1", "verb": "reimage", "host": "n1.example", "image": "web@2", "previous_image": "web@1"}
    facts |= {"phase": phase, "hook_key": "r-1/before/1-drain"}
    return Occasion(SPEC, phase, "drain", "r-1/before/1-drain", attempt, facts, {"host": "n1.example", "n": 1})


def hook(folder: Path, **document: Any) -> Answer:
    return caller(folder).hook(msgspec.convert(document, Hook), occasion(), check=never)


def look(folder: Path, **document: Any) -> Answer:
    return caller(folder).look(msgspec.convert({"timeout": "5s", **document}, Health), occasion("health"), check=never)


# programs


def test_what_a_program_is_told(folder: Path) -> None:
    script(folder, 'env | sort; echo "args: $1 | $2"; cat')
    answer = hook(
        folder,
        command='./drain {{ name }} "{{ labels.rack }}:{{ vars.port }}"',
        env=["LB_TOKEN"],
        secrets={"API_KEY": "env:LB_TOKEN"},
    )
    assert answer.good, answer
    said = answer.evidence["output"].splitlines()
    told = dict(line.split("=", 1) for line in said if "=" in line and not line.startswith("{"))
    assert {k: v for k, v in told.items() if k not in ("PATH", "HOME", "LANG", "PWD", "_", "SHLVL", "OLDPWD")} == {
        "API_KEY": "***",
        "LB_TOKEN": "***",
        "METALIMMU_HOOK_KEY": "r-1/before/1-drain",
        "METALIMMU_HOST": "n1.example",
        "METALIMMU_IMAGE": "web@2",
        "METALIMMU_PHASE": "before",
        "METALIMMU_PREVIOUS_IMAGE": "web@1",
        "METALIMMU_RUN": "r-1",
        "METALIMMU_SITE": str(folder),
        "METALIMMU_SITE_NAME": "ams1",
        "METALIMMU_VERB": "reimage",
    }
    assert "args: n1.example | r 12; rm -rf /:8080" in said  # one argument, and no shell
    assert json.loads(said[-1]) == {"host": "n1.example", "n": 1}


def test_the_secret_reaches_the_program_and_no_evidence(folder: Path) -> None:
    script(folder, 'test "$API_KEY" = sesame-open-sesame && echo "$API_KEY" | rev && echo "is $API_KEY"')
    answer = hook(folder, command="./drain", secrets={"API_KEY": "env:LB_TOKEN"})
    assert answer.good
    assert "sesame-open-sesame" not in repr(answer)
    assert "is ***" in answer.evidence["output"]


@pytest.mark.parametrize(
    ("text", "document", "words"),
    [
        ("echo draining; echo 'no such backend' >&2; exit 4", {}, "exit status 4: no such backend"),
        ("echo working; sleep 600", {"limit": "500ms"}, "was ended after 0.5 s, its time limit: working"),
        ("kill -15 $$", {}, "killed by signal 15"),
        ("echo 'connections left: 12'", {"output": "^connections left: 0$"}, "does not contain"),
        ("printf '\\377\\033[2J\\007nonsense\\0\\n'; exit 1", {}, "exit status 1: \ufffdnonsense"),
    ],
)
def test_a_program_that_fails_says_why(folder: Path, text: str, document: dict[str, Any], words: str) -> None:
    answer = hook(folder, command=script(folder, text), **document)
    assert not answer.good
    assert words in answer.words


def test_one_that_lies_is_caught_by_what_it_must_say(folder: Path) -> None:
    command = script(folder, "echo 'error: backend is busy'; exit 0")
    assert hook(folder, command=command).good  # its exit status is its word
    assert not hook(folder, command=command, output="^drained").good


def test_a_program_that_is_not_there(folder: Path) -> None:
    answer = hook(folder, command="./gone")
    assert not answer.good
    assert "no such program" in answer.words


def test_a_repeated_call_ends_what_the_first_has_left(folder: Path) -> None:
    """The controller was killed: its hook went on without it."""
    script(folder, 'echo $$ >> pids; [ "$(wc -l < pids)" = 1 ] && exec setsid sleep 600; exit 0')
    document = Hook(command="./drain")
    first = threading.Thread(target=lambda: caller(folder).hook(document, occasion(), check=never), daemon=True)
    first.start()
    until(lambda: (folder / "pids").exists() and (folder / "pids").read_text().strip())
    pid = int((folder / "pids").read_text().split()[0])
    assert caller(folder).hook(document, occasion(attempt=2), check=never).good
    first.join(10)
    assert not first.is_alive()
    until(lambda: gone(pid))


def test_one_that_is_cancelled_leaves_nothing(folder: Path) -> None:
    class Stopped(BaseException):
        pass

    def check() -> None:
        if (folder / "pid").exists():
            raise Stopped

    script(folder, "setsid sh -c 'echo $$ > pid; exec sleep 600' & wait")
    with pytest.raises(Stopped):
        caller(folder).hook(Hook(command="./drain"), occasion(), check=check)
    until(lambda: gone(int((folder / "pid").read_text())))


# requests


def test_what_a_request_carries(folder: Path) -> None:
    with service() as lb:
        answer = hook(
            folder,
            http={
                "url": lb.url + "/hosts/{{ name }}/drain?rack={{ labels.rack | urlencode }}",
                "headers": {"Authorization": "Bearer {{ secrets.token }}", "X-Image": "{{ image }}"},
            },
            secrets={"token": "env:LB_TOKEN"},
        )
    (asked,) = lb.asked
    assert answer.good
    assert answer.words == "answered 200 OK"
    assert (asked.method, asked.path) == ("POST", "/hosts/n1.example/drain?rack=r%2012%3B%20rm%20-rf%20/")
    assert asked.headers["authorization"] == "Bearer sesame-open-sesame"
    assert asked.headers["x-image"] == "web@2"
    assert asked.headers["idempotency-key"] == "r-1/before/1-drain"
    assert asked.headers["content-type"] == "application/json"
    assert json.loads(asked.body) == {"host": "n1.example", "n": 1}
    assert "sesame" not in repr(answer)


def test_a_body_of_its_own(folder: Path) -> None:
    with service() as lb:
        url = lb.url + "/x"
        body = '{"key": "{{ secrets.token }}", "host": {{ name | tojson }}}'
        assert hook(folder, http={"url": url, "method": "PUT", "body": body}, secrets={"token": "env:LB_TOKEN"}).good
        assert hook(folder, http={"url": url, "method": "DELETE"}).good
    put, delete = lb.asked
    assert json.loads(put.body) == {"key": "sesame-open-sesame", "host": "n1.example"}
    assert (delete.method, delete.body) == ("DELETE", b"")


@pytest.mark.parametrize(
    ("status", "body", "document", "words"),
    [
        (503, b"<h1>busy</h1>\n", {}, "answered 503 Service Unavailable: <h1>busy</h1>"),
        (302, b"", {}, "answered 302"),
        (200, b'{"ok": false}', {"expect": '"ok": true'}, "without '\"ok\": true'"),
        (200, b"ok", {"status": 204}, "answered 200"),
        (404, b"", {"status": [200, 410]}, "answered 404"),
    ],
)
def test_an_answer_that_says_no(folder: Path, status: int, body: bytes, document: dict[str, Any], words: str) -> None:
    with service(lambda _: (status, body)) as lb:
        lb.headers = {"Location": lb.url + "/elsewhere"} if status == 302 else {}
        answer = hook(folder, http={"url": lb.url, **document})
    assert not answer.good
    assert words in answer.words
    assert len(lb.asked) == 1  # no redirect is followed


def test_statuses_that_are_wanted(folder: Path) -> None:
    with service(lambda _: (404, b"")) as lb:
        assert hook(folder, http={"url": lb.url, "status": [404, 410]}).good


def test_a_server_that_is_not_there(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    answer = hook(folder, http=f"http://127.0.0.1:{port}/")
    assert not answer.good
    assert "Connection refused" in answer.words


def silent(conn: socket.socket) -> None:
    conn.recv(65536)
    time.sleep(30)


def drip(conn: socket.socket) -> None:
    """A byte each tenth of a second: every single read is in time."""
    conn.recv(65536)
    conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(300):
        conn.sendall(b".")
        time.sleep(0.1)


def flood(conn: socket.socket) -> None:
    conn.recv(65536)
    conn.sendall(b"HTTP/1.1 200 OK\r\n\r\nfine ")
    while True:
        conn.sendall(b"x" * 65536)


def endless_headers(conn: socket.socket) -> None:
    conn.recv(65536)
    conn.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        conn.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")


def garbage(conn: socket.socket) -> None:
    conn.recv(65536)
    conn.sendall(os.urandom(5000))


def cut(conn: socket.socket) -> None:
    conn.recv(65536)
    conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


@pytest.mark.parametrize("talk", [silent, drip, endless_headers, garbage, cut])
def test_bad_servers_are_no_good_within_the_time(folder: Path, talk: Callable[[socket.socket], None]) -> None:
    began = time.monotonic()
    with talking(talk) as port:
        answer = look(folder, http=f"http://127.0.0.1:{port}/healthz", timeout="1s")
    assert not answer.good, answer
    assert answer.words
    assert answer.words.isprintable()
    assert time.monotonic() - began < 5


def test_of_a_flood_only_the_beginning_is_read(folder: Path) -> None:
    with talking(flood) as port:
        answer = look(folder, http={"url": f"http://127.0.0.1:{port}/", "expect": "^fine"})
    assert answer.good
    assert len(answer.evidence["body"]) <= 2000


def test_nothing_is_unpacked(folder: Path) -> None:
    with service(lambda _: (200, gzip.compress(b"0" * 50_000_000))) as web:
        web.headers = {"Content-Encoding": "gzip"}
        answer = look(folder, http={"url": web.url, "expect": "000"})
    assert not answer.good
    assert web.asked[0].headers["accept-encoding"] == "identity"


def test_certificates(folder: Path) -> None:
    context, ca = own_certificate(folder)
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(ca.read_text())).hexdigest().upper()
    colons = ":".join(pin[i : i + 2] for i in range(0, 64, 2))
    with service(tls=context) as web:
        for tls, good in (
            ({"ca": ca.name}, True),
            ({"fingerprint": colons}, True),
            ({"fingerprint": pin}, True),
            ({"verify": False}, True),
            ({"fingerprint": "0" * 64}, False),
            ({}, False),
            ({"ca": "gone.pem"}, False),
        ):
            answer = look(folder, http={"url": web.url, "tls": tls})
            assert answer.good is good, (tls, answer)
            assert answer.words
        assert "certificate" in look(folder, http=web.url).words
        assert pin.lower() in look(folder, http={"url": web.url, "tls": {"fingerprint": "0" * 64}}).words


def test_waiting_for_a_server_can_be_ended(folder: Path) -> None:
    class Stopped(BaseException):
        pass

    def check() -> None:
        raise Stopped

    began = time.monotonic()
    with talking(silent) as port, pytest.raises(Stopped):
        caller(folder).look(Health(http=f"http://127.0.0.1:{port}/", timeout="1m"), occasion("health"), check=check)
    assert time.monotonic() - began < 5


# health


def test_a_get_without_the_change(folder: Path) -> None:
    with service() as web:
        assert look(folder, http=web.url + "/healthz?{{ address }}").good
    (asked,) = web.asked
    assert (asked.method, asked.path, asked.body) == ("GET", "/healthz?10.1.2.3", b"")
    assert "idempotency-key" not in asked.headers


def test_tcp(folder: Path) -> None:
    with talking(lambda conn: conn.sendall(b"hello")) as port:
        assert look(folder, tcp=f"127.0.0.1:{port}").good
        assert look(folder, tcp=f"localhost:{port}").good
    answer = look(folder, tcp=f"127.0.0.1:{port}")
    assert not answer.good
    assert "Connection refused" in answer.words
    assert "no ADDRESS:PORT" in look(folder, tcp="{{ vars.port }}").words


def test_a_name_that_does_not_resolve(folder: Path) -> None:
    answer = look(folder, tcp="no-such-host.invalid:80")
    assert not answer.good
    assert answer.words


def test_a_command(folder: Path) -> None:
    assert look(folder, command=script(folder, 'test "$METALIMMU_PHASE" = health')).good
    assert not look(folder, command=script(folder, "exit 2")).good


QUERY = 'up{instance="{{ name }}"}'
FILLED = 'up{instance="n1.example"}'


@pytest.mark.parametrize(
    ("samples", "bounds", "good", "words"),
    [
        (["1"], {"equals": 1}, True, "1"),
        (["0"], {"equals": 1}, False, "is 0, wanted equal to 1"),
        (["3", "5"], {"at_least": 3}, True, "3 to 5 of 2 samples"),
        (["3", "2"], {"at_least": 3}, False, "is 2, wanted at least 3"),
        (["0.01"], {"at_most": 0.05}, True, "0.01"),
        (["0.4"], {"at_least": 0.5, "at_most": 1}, False, "wanted at least 0.5 and at most 1"),
        ([], {"at_least": 0}, False, "no sample"),
        (["NaN"], {"at_least": 0}, False, "is nan"),
        (["+Inf"], {"at_most": 9}, False, "is inf"),
        (["nonsense"], {"at_least": 0}, False, "no instant vector"),
    ],
)
def test_prometheus(folder: Path, samples: list[str], bounds: dict[str, float], good: bool, words: str) -> None:
    fake = Prometheus()
    fake.samples[FILLED] = [({"__name__": "up", "instance": f"n{i}"}, v) for i, v in enumerate(samples)]
    with service(fake.answer) as web:
        answer = look(folder, prometheus={"url": web.url + "/", "query": QUERY, **bounds})
    assert answer.good is good, answer
    assert words in answer.words


def test_prometheus_scalars_and_secrets(folder: Path) -> None:
    fake = Prometheus()
    fake.scalars["scalar(x)"] = "2"
    with service(fake.answer) as web:
        query = {
            "url": web.url,
            "query": "scalar(x)",
            "at_least": 2,
            "headers": {"Authorization": "Bearer {{ secrets.t }}"},
        }
        answer = look(folder, prometheus=query, secrets={"t": "env:LB_TOKEN"})
    assert answer.good
    assert web.asked[0].headers["authorization"] == "Bearer sesame-open-sesame"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, b'{"status":"error","errorType":"bad_data","error":"parse error"}', "bad_data: parse error"),
        (503, b"<html>proxy</html>", "503"),
        (200, b"[]", "not Prometheus's JSON"),
        (200, b'{"status":"success"}', "no instant vector"),
        (200, b'{"status":"success","data":{"resultType":"matrix","result":[]}}', "no instant vector"),
        (200, b'{"status":"success","data":{"resultType":"vector","result":[{"metric":5}]}}', "no instant vector"),
        (200, b'{"status":"success","data":' + b"[" * 100_000, "not Prometheus's JSON"),
    ],
)
def test_prometheus_that_answers_badly(folder: Path, status: int, body: bytes, words: str) -> None:
    with service(lambda _: (status, body)) as web:
        answer = look(folder, prometheus={"url": web.url, "query": "x", "at_least": 0})
    assert not answer.good
    assert words in answer.words


# ready


def spec(**fields: Any) -> HostSpec:
    return msgspec.structs.replace(SPEC, **fields)


def test_ready_looks_at_everything_and_runs_nothing(folder: Path) -> None:
    script(folder, "touch ran")
    undo = Undo(command="./drain", secrets={"T": "env:LB_TOKEN"})
    caller(folder).ready(spec(before=(Hook(command="./drain {{ name }}", undo=undo, env=["LB_TOKEN"]),)))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"before": (Hook(command="./gone"),)}, HookFailed, "./gone: no such program"),
        ({"before": (Hook(command="./plain"),)}, HookFailed, "may not be executed"),
        ({"before": (Hook(command="./ok", undo="./gone"),)}, HookFailed, "./gone"),
        ({"after": (Hook(command="./ok {{ vars.gone }}"),)}, TemplateError, "vars.gone"),
        ({"health": (Health(command="./ok", secrets={"X": "env:NOT_SET"}),)}, SecretError, "NOT_SET"),
        ({"health": (Health(command="./ok", env=["NOT_SET"]),)}, SecretError, "NOT_SET"),
    ],
)
def test_what_is_not_ready(folder: Path, fields: Any, error: type[MetalimmuError], words: str) -> None:
    script(folder, "exit 0", "ok")
    (folder / "plain").write_text("#!/bin/sh\n")
    with pytest.raises(error, match=words) as caught:
        caller(folder).ready(spec(**fields))
    assert caught.value.hint


def test_asked_is_what_was_seen(folder: Path) -> None:
    """The rig itself: a service sees the request as it was sent."""
    with service(lambda a: (200, a.body)) as web:
        answer = hook(folder, http={"url": web.url, "body": "{{ name }}"})
    assert answer.evidence["body"] == "n1.example"
    assert web.asked == [Asked("POST", "/", web.asked[0].headers, b"n1.example")]
