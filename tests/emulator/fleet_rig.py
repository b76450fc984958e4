"""A plain HTTP client for the fleet's tests: one kept-alive connection, nothing hidden."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from metalimmu_emulator.fleet import Bmc, Fleet

ROOT = "/redfish/v1"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["error"]["@Message.ExtendedInfo"][0]["MessageId"].rpartition(".")[2])


@dataclass
class Client:
    bmc: Bmc
    ca: str
    timeout: float = 5.0
    headers: dict[str, str] = field(default_factory=dict)
    session: str = ""

    def __post_init__(self) -> None:
        where = self.bmc.url.partition("://")[2]
        if self.bmc.url.startswith("https"):
            context = ssl.create_default_context(cafile=self.ca)
            self.http: http.client.HTTPConnection = http.client.HTTPSConnection(
                where, timeout=self.timeout, context=context
            )
        else:
            self.http = http.client.HTTPConnection(where, timeout=self.timeout)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        sent = self.headers | {k.replace("_", "-"): v for k, v in headers.items()}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None and not isinstance(body, bytes):
            sent.setdefault("Content-Type", "application/json")
        self.http.request(method, path, data, sent)
        answer = self.http.getresponse()
        found = {k.lower(): v for k, v in answer.getheaders()}
        return Reply(answer.status, found, answer.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, **headers)

    def read(self, path: str) -> Any:
        reply = self.get(path)
        assert reply.status == 200, (path, reply)
        return reply.json

    def patch(self, path: str, body: Any) -> Reply:
        """With the current ETag, as a careful client does."""
        etag = self.get(path).headers.get("etag", "")
        return self.ask("PATCH", path, body, **({"If_Match": etag} if etag else {}))

    def post(self, path: str, body: Any) -> Reply:
        return self.ask("POST", path, body)

    def log_in(self, user: str = "", password: str = "") -> Reply:
        login = {"UserName": user or self.bmc.username, "Password": password or self.bmc.password}
        reply = self.ask("POST", f"{ROOT}/SessionService/Sessions", login)
        if reply.status == 201:
            self.headers["X-Auth-Token"] = reply.headers["x-auth-token"]
            self.session = reply.headers["location"]
        return reply

    def basic(self, user: str = "", password: str = "") -> None:
        pair = f"{user or self.bmc.username}:{password or self.bmc.password}"
        self.headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()

    def close(self) -> None:
        self.http.close()


def client(fleet: Fleet, which: int | str = 0, **more: Any) -> Client:
    """Logged in."""
    made = Client(fleet[which], str(fleet.ca), **more)
    assert made.log_in().status == 201
    return made


def clients(fleet: Fleet) -> Iterator[Client]:
    for bmc in fleet:
        found = client(fleet, bmc.index)
        yield found
        found.close()


def links(value: Any) -> Iterator[str]:
    """All that a document links to."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name == "@odata.id" and isinstance(one, str):
                yield one
            else:
                yield from links(one)
    elif isinstance(value, list):
        for one in value:
            yield from links(one)


def walk(http: Client) -> dict[str, Any]:
    """The whole tree, every link followed: path -> document."""
    found: dict[str, Any] = {}
    todo = [ROOT + "/"]
    while todo:
        uri = todo.pop().partition("#")[0]
        if uri not in found:
            found[uri] = http.read(uri)
            todo += links(found[uri])
    return found
