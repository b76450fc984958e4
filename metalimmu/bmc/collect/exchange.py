"""Requests to one BMC on its own address, redirects that stay there followed. The only place from which a scan sends.

No `If-None-Match`: ETags help where something is written (If-Match, see sushy_bridge), and a scan writes nothing.
Measured (`python -m benchmarks.scan_etags`, nothing changed between two scans, which is the best case), CPU per BMC plain
and conditional: HPE 10.7 and 11.3 ms, Lenovo 9.2 and 9.8, Supermicro 8.0 and 10.4, OpenBMC 8.6 and 10.0; Dell sends none.
No other round was better by more than a busy machine's noise. A 304 spares the TLS of 27 to 45 kB for each BMC, and costs the
unpacking of what was kept of it (11 to 16 kB each); that must be parsed all the same. And a BMC whose ETag stays when
the value has changed would hide drift.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from metalimmu.bmc import answers, readonly, uris
from metalimmu.bmc.address import base_url
from metalimmu.bmc.answers import Answer
from metalimmu.bmc.collect import proxy
from metalimmu.bmc.collect.dial import Place
from metalimmu.bmc.collect.line import Broke, Line, Response, Times
from metalimmu.bmc.collect.unpack import unpacked
from metalimmu.bmc.login import Request
from metalimmu.bmc.ports import Target
from metalimmu.bmc.tls import context_and_pin
from metalimmu.errors import BmcRefused

HOPS = 3
WHOLE = 4
"""How many read timeouts a whole answer may take."""
GZIP = b"\x1f\x8b"
SAFE = "!#$%&'()*+,/:;=?@[]~"
FIXED = (
    "Accept: application/json\r\n"
    "OData-Version: 4.0\r\n"
    "User-Agent: metalimmu\r\n"
)  # fmt: skip


class Exchange:
    """One request at a time over one kept-alive connection. Not logged in, nothing repeated but what an idle end ate."""

    def __init__(self, target: Target, *, largest: int, on_silence: Callable[[], None]) -> None:
        """Raises UsageError for an address, a CA file or a proxy that cannot be used."""
        self.base = base_url(target.bmc)
        self.count = 0
        parts = urlsplit(self.base)
        secure = parts.scheme == "https"
        context, pin = context_and_pin(target.tls, self.base, quiet=True) if secure else (None, None)
        through = proxy.parsed(target.proxy) if target.proxy else None
        place = Place(self.base, parts.hostname or "", parts.port or (443 if secure else 80), context, pin, through)
        self.line = Line(place, largest=largest, on_silence=on_silence)
        self._largest = largest
        self._headers: dict[str, str] | None = None
        self._made = ""
        self._fixed = f" HTTP/1.1\r\nHost: {parts.netloc}\r\n{FIXED}"

    def close(self) -> None:
        self.line.close()

    async def __call__(self, request: Request, times: Times) -> tuple[Response, str]:
        """(answer of any status, path that it came from). Raises BmcError."""
        method, path, _, _ = request
        path = uris.local(path)
        for _ in range(HOPS):
            data = self._data(request, path)
            self.count += 1
            try:
                response = await self.line.exchange(data, times)
            except Broke:
                # BMCs close idle connections without a word; reads and the end of a session may be asked for again.
                if method == "POST":
                    raise
                self.count += 1
                response = await self.line.exchange(data, times)
            if response.status < 300:
                break
            follow = (301, 302, 303, 307, 308) if method in readonly.READS else (307, 308)
            onward = response.headers.get("Location", "") if response.status in follow else ""
            if not onward:
                break
            path = self._onward(path, onward, method)
        else:
            raise BmcRefused(f"{method} {path}: more than {HOPS} redirects")
        if response.body[:2] == GZIP:
            response = response._replace(body=unpacked(response.body, self._largest, self.base))
        return response, path

    def _data(self, request: Request, path: str) -> bytes:
        """What is sent. Nothing leaves that `readonly` does not allow."""
        method, _, body, headers = request
        readonly.check(method, path)
        if " " in path or not path.isascii():
            path = quote(path, safe=SAFE)
        head = f"{method} {path}{self._head(headers)}".encode("latin-1")
        if body is None:
            return head + b"\r\n"
        content = msgspec.json.encode(body)
        return head + f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content

    def _onward(self, path: str, onward: str, method: str) -> str:
        url = urljoin(self.base + path, onward)
        if uris.origin(url) != uris.origin(self.base):
            raise BmcRefused(
                f"{method} {path}: redirected to another address, {answers.clean(url, 200)}; it was not followed",
                hint="give the BMC's final address in the host document",
            )
        return uris.local(url)

    def _head(self, headers: dict[str, str]) -> str:
        """All but the first words of the request line. The same for request after request, so it is kept."""
        if headers is not self._headers:
            # Compressed answers get other (weak) ETags on some makes; HPE Gen10 Plus has its registries compressed only.
            whole = {"Accept-Encoding": "identity"} | headers
            self._made = self._fixed + "".join(f"{name}: {value}\r\n" for name, value in whole.items())
            self._headers = headers
        return self._made


def answer(response: Response, path: str) -> Answer:
    return Answer(response.status, response.headers, response.body, url=path)
