"""The same driver over DMTF's client (python-redfish-library) instead of our own use of requests.

Only the HTTP is theirs: who logs in, what may be sent, what is repeated and what an error means stay ours (`connector`).
That is the place for what needs their client: multipart pushes of firmware, calls of vendors' own actions, event streams.

What their client would do by itself, and is kept from doing (seen in 3.4.2): repeat any request ten times, a POST
too; follow redirects with the session's token to wherever they lead; take proxies from the environment; read an
answer of any size into memory; verify nothing unless a CA file is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from metalimmu.bmc.answers import Answer
from metalimmu.bmc.redfish import RedfishBmc
from metalimmu.bmc.transport import Transport
from metalimmu.desired.types import Tls


class RawTransport(Transport):
    """One DMTF client on our adapter: its connection, TLS context and pin."""

    def __init__(self, base: str, *, tls: Tls | None = None, proxy: str | None = None, **more: Any) -> None:
        from redfish.rest.v1 import HttpClient

        super().__init__(base, tls=tls, proxy=proxy, **more)
        self._client = HttpClient(
            base,
            max_retry=0,
            proxies=dict(self._session.proxies) or None,
            check_connectivity=False,
            https_adapter=self._adapter,
        )
        session: requests.Session = self._client._session  # noqa: SLF001  the only way to these two settings
        session.trust_env = False
        session.hooks["response"] = [self._bounded]

    def _exchange(self, method: str, url: str, body: Any, headers: Mapping[str, str]) -> Answer:
        from redfish.rest.v1 import RetriesExhaustedError

        try:
            # The public methods cannot be told not to follow redirects.
            response = self._client._rest_request(  # noqa: SLF001
                url.removeprefix(self.base),
                method=method,
                body=body,
                headers=dict(headers),
                allow_redirects=False,
                timeout=self._timeouts,
            )
        except RetriesExhaustedError as exc:
            raise exc.__cause__ or exc from exc
        return Answer(response.status, dict(response.getheaders()), response.read or b"", url=url)

    def _bounded(self, response: requests.Response, **_: Any) -> None:
        """Read the body here, up to our limit, before their client asks for all of it."""
        try:
            response._content = self._body(response, response.url)  # noqa: SLF001
        except BaseException:
            response.close()
            raise
        response._content_consumed = True  # type: ignore[attr-defined]  # noqa: SLF001

    def close(self) -> None:
        super().close()
        self._client._session.close()  # noqa: SLF001


class RawRedfishBmc(RedfishBmc):
    driver = "redfish-raw"
    transport = RawTransport
