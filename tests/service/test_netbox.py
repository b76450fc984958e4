"""NetBox's API, played by a small server: paging, the token, and what goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from metalimmu.errors import MetalimmuError, SecretError, UsageError
from metalimmu.service.brownfield import imports
from metalimmu.service.brownfield.netbox import NetBox, token

TOKEN = "0123456789abcdef0123456789abcdef01234567"


class Api:
    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {
            "dcim/devices": [],
            "dcim/interfaces": [],
            "ipam/ip-addresses": [],
        }
        self.requests: list[tuple[str, str, dict[str, list[str]], str]] = []
        self.answer: Callable[[str], tuple[int, dict[str, str], bytes]] | None = None
        self.page = 2

    def get(self, path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        if self.answer:
            return self.answer(path)
        rows = self.tables[path.removeprefix("/api/").strip("/")]
        for key, field in (("device_id", "device"), ("interface_id", "assigned_object_id")):
            if key in query:
                wanted = {int(v) for v in query[key]}
                rows = [r for r in rows if (r[field]["id"] if isinstance(r[field], dict) else r[field]) in wanted]
        offset = int(query["offset"][0])
        some = rows[offset : offset + self.page]  # NetBox caps the limit that it is asked for
        more = offset + len(some) < len(rows)
        # Behind a proxy NetBox names itself by another host: whoever followed it would take the token there.
        following = "http://stranger.example.com/api/next" if more else None
        return 200, {}, json.dumps({"count": len(rows), "next": following, "results": some}).encode()


@pytest.fixture
def api() -> Iterator[tuple[Api, str]]:
    state = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            state.requests.append(("GET", parts.path, query, self.headers.get("Authorization", "")))
            status, headers, body = state.get(parts.path, query)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield state, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def device(ident: int, oob: str | None) -> dict[str, Any]:
    address = {"address": oob} if oob else None
    return {"id": ident, "name": f"n{ident}", "serial": f"S{ident}", "oob_ip": address, "site": {"slug": "ams1"}}


def test_all_pages_and_the_management_interfaces_of_those_that_need_it(
    api: tuple[Api, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, url = api
    state.tables["dcim/devices"] = [device(i, f"10.0.0.{i}/24" if i != 3 else None) for i in range(1, 6)]
    state.tables["dcim/interfaces"] = [{"id": 33, "name": "bmc", "mgmt_only": True, "device": {"id": 3}}]
    state.tables["ipam/ip-addresses"] = [
        {"address": "10.0.9.3/24", "assigned_object_type": "dcim.interface", "assigned_object_id": 33}
    ]
    monkeypatch.setenv("NETBOX_TOKEN", TOKEN)
    result = imports.netbox(
        f"{url}/api/",
        token_ref="env:NETBOX_TOKEN",
        ca=None,
        scheme="redfish+https",
        only={"site": "ams1"},
        folder=Path(),
    )
    assert [c.fields["bmc"].rpartition("/")[2] for c in result.candidates] == [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.9.3",
        "10.0.0.4",
        "10.0.0.5",
    ]
    assert result.left_out == []
    assert {r[3] for r in state.requests} == {f"Token {TOKEN}"}
    assert all(r[2]["site"] == ["ams1"] for r in state.requests if r[1] == "/api/dcim/devices/")
    assert [r[2]["device_id"] for r in state.requests if r[1] == "/api/dcim/interfaces/"] == [["3"]]
    assert len([r for r in state.requests if r[1] == "/api/dcim/devices/"]) == 3


def test_newer_tokens_are_bearers(api: tuple[Api, str]) -> None:
    state, url = api
    NetBox(url, "nbt_abcdef.0123456789").devices()
    assert state.requests[0][3] == "Bearer nbt_abcdef.0123456789"


@pytest.mark.parametrize(
    ("status", "headers", "body", "words"),
    [
        (403, {}, b"{}", "HTTP 403"),
        (500, {}, b"oops", "HTTP 500"),
        (302, {"Location": "http://stranger.example.com/"}, b"", "HTTP 302"),
        (200, {}, b"<html>", "no JSON"),
        (200, {}, b"[]", "no object"),
        (200, {}, b"{}", "no results"),
    ],
)
def test_what_goes_wrong(api: tuple[Api, str], status: int, headers: dict[str, str], body: bytes, words: str) -> None:
    state, url = api
    state.answer = lambda _path: (status, headers, body)
    with pytest.raises(MetalimmuError, match=words) as caught:
        NetBox(url, TOKEN).devices()
    assert TOKEN not in str(caught.value)
    assert len(state.requests) == 1


def test_a_server_that_pages_for_ever_ends(api: tuple[Api, str], monkeypatch: pytest.MonkeyPatch) -> None:
    state, url = api
    monkeypatch.setattr("metalimmu.service.brownfield.netbox.PAGES", 5)
    state.answer = lambda _path: (
        200,
        {},
        b'{"next": "x", "results": [{"id": 1, "oob_ip": {"address": "10.0.0.1/8"}}]}',
    )
    with pytest.raises(MetalimmuError, match="more than 5 pages"):
        NetBox(url, None).devices()


def test_nobody_there() -> None:
    with pytest.raises(MetalimmuError) as caught:
        NetBox("http://127.0.0.1:1", TOKEN).devices()
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("url", ["netbox", "ftp://x", "https://user:pw@netbox"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        NetBox(url, None)
    assert "pw" not in str(caught.value)


def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T", f"{TOKEN}\n")
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\nrest")
    file.chmod(0o600)
    assert token("env:T", folder=tmp_path) == token("file:token", folder=tmp_path) == TOKEN
    assert token(None, folder=tmp_path) is None
    file.chmod(0o644)
    for ref in ("file:token", "file:none", "env:NONE", "plain", "env:"):
        with pytest.raises(SecretError):
            token(ref, folder=tmp_path)
