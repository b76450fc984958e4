"""NetBox's API: devices, and where they have no oob_ip their management interfaces. GET only, paged, the token to one address."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from metalimmu import log
from metalimmu.desired.imports_netbox import Json, management, without_address
from metalimmu.errors import MetalimmuError, SecretError, UsageError

PAGE = 250
PAGES = 4000
AT_ONCE = 50  # ids in one query
LARGEST = 64 << 20
TIMEOUT = 60.0


class NetBox:
    """`url` is NetBox's own, with or without /api. Raises MetalimmuError for what goes wrong on the way."""

    def __init__(self, url: str, token: str | None, *, ca: str | None = None) -> None:
        import requests

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is no address of a NetBox", hint="write https://netbox.example.com")
        if parts.username or parts.password:
            raise UsageError("the address of NetBox carries a login", hint="use --token-ref env:NAME")
        self.base = url.rstrip("/").removesuffix("/api/dcim/devices").removesuffix("/api")
        self._session = requests.Session()
        self._session.headers["Accept"] = "application/json"
        if ca:
            self._session.verify = ca
        if token:
            # NetBox 4.5's tokens say by their beginning that they are bearer tokens.
            kind = "Bearer" if token.startswith("nbt_") else "Token"
            self._session.headers["Authorization"] = f"{kind} {log.secret(token)}"

    def devices(self, filters: Iterable[tuple[str, str]] = ()) -> tuple[list[Json], dict[int, str]]:
        """All devices that fit, and by id the management addresses of those without an oob_ip."""
        found = list(self._all("dcim/devices", filters))
        missing = without_address(found)
        interfaces = [
            i
            for ids in _chunks(missing)
            for i in self._all("dcim/interfaces", [("mgmt_only", "true"), *_ids("device_id", ids)])
        ]
        wanted = [i["id"] for i in interfaces if isinstance(i.get("id"), int)]
        addresses = [a for ids in _chunks(wanted) for a in self._all("ipam/ip-addresses", _ids("interface_id", ids))]
        return found, management(interfaces, addresses)

    def _all(self, path: str, query: Iterable[tuple[str, str]]) -> Iterator[Json]:
        """All pages. `next` links are not followed, only counted on: behind a proxy they name another host, and a token
        goes to no other.
        """
        offset = 0
        for _ in range(PAGES):
            page = self._get(path, [*query, ("limit", str(PAGE)), ("offset", str(offset))])
            results = page.get("results")
            if not isinstance(results, list):
                raise MetalimmuError(f"{self.base}/api/{path}/: no results in the answer", hint="is this NetBox?")
            yield from (r for r in results if isinstance(r, dict))
            offset += len(results)
            if not page.get("next") or not results:
                return
        raise MetalimmuError(f"{self.base}/api/{path}/: more than {PAGES} pages", hint="narrow it with --only")

    def _get(self, path: str, query: list[tuple[str, str]]) -> Mapping[str, Any]:
        import requests

        url = f"{self.base}/api/{path}/?{urlencode(query)}"
        shown = f"{self.base}/api/{path}/"
        try:
            with self._session.get(url, timeout=TIMEOUT, allow_redirects=False, stream=True) as answer:
                body = answer.raw.read(LARGEST + 1, decode_content=True)
        except requests.exceptions.SSLError as exc:
            raise MetalimmuError(f"{shown}: {exc}", hint="--ca FILE names the certificate authority of NetBox") from exc
        except (requests.exceptions.RequestException, OSError) as exc:
            raise MetalimmuError(f"{shown}: {log.redact(str(exc))[:300]}", hint="is the address right?") from exc
        if answer.status_code in (401, 403):
            raise MetalimmuError(
                f"{shown}: HTTP {answer.status_code}", hint="--token-ref env:NAME, of a token that may view devices"
            )
        if answer.status_code != 200 or len(body) > LARGEST:
            why = "the answer is too large" if len(body) > LARGEST else f"HTTP {answer.status_code}"
            raise MetalimmuError(f"{shown}: {why}", hint="is this the address of NetBox itself?")
        return _object(body, shown)


def _object(body: bytes, shown: str) -> Mapping[str, Any]:
    import json

    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise MetalimmuError(f"{shown}: no JSON", hint="is this the address of NetBox itself?") from exc
    if not isinstance(found, dict):
        raise MetalimmuError(f"{shown}: JSON, and no object", hint="is this NetBox?")
    return found


def token(ref: str | None, *, folder: Path) -> str | None:
    """`env:NAME` is that variable, `file:PATH` the first line of a file that nobody else can read. Raises SecretError."""
    if not ref:
        return None
    scheme, _, name = ref.partition(":")
    if scheme == "env" and name:
        value = os.environ.get(name, "")
        if not value:
            raise SecretError(f"token env:{name} is not set in the environment", hint=f"export {name}")
        return log.secret(value.strip())
    if scheme == "file" and name:
        path = folder / Path(name).expanduser()
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise SecretError(f"token file {path} is open to others", hint=f"chmod 600 {path}")
                value = file.readline(4096).decode("utf-8", "replace").strip()
        except OSError as exc:
            raise SecretError(f"token file {path} cannot be read: {exc.strerror}") from exc
        if not value:
            raise SecretError(f"token file {path} is empty")
        return log.secret(value)
    raise SecretError(f"token reference {ref!r} is not understood", hint="write env:NAME or file:PATH")


def _chunks(ids: list[int]) -> Iterator[list[int]]:
    for i in range(0, len(ids), AT_ONCE):
        yield ids[i : i + AT_ONCE]


def _ids(name: str, ids: list[int]) -> list[tuple[str, str]]:
    return [(name, str(i)) for i in ids]
