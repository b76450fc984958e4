"""Who we are to a BMC: one session where it has a session service, Basic authentication where it has none.

Sessions are few (4 to 16 on most makes): one is made at the first request, used for all, and ended in any case.
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

from metalimmu import log
from metalimmu.bmc import answers, readonly, uris
from metalimmu.bmc.answers import Answer
from metalimmu.bmc.credentials import Credentials
from metalimmu.bmc.ledger import LoginLedger
from metalimmu.errors import BmcError, BmcLoginNotTried, BmcLoginRefused

LOG = log.get("bmc")
ROOT = "/redfish/v1/"
SESSIONS = "/redfish/v1/SessionService/Sessions"


class Request(NamedTuple):
    method: str
    path: str
    body: Any
    headers: dict[str, str]


Send = Callable[[str, str, Any, dict[str, str]], Answer]
T = TypeVar("T")
Steps = Generator[Request, Answer, T]
"""Yields a request and is sent its answer, so that one log-in serves blocking and asynchronous connections."""


class Login:
    """`headers()` logs in when nobody has; `close()` logs out, and the next `headers()` logs in anew. `send` is the raw transport:
    the session's own POST and DELETE are the only writes allowed in read-only mode. An asynchronous owner has no `send`
    and drives `entering` and `leaving` itself.
    """

    def __init__(
        self, bmc: str, credentials: Credentials | None, ledger: LoginLedger, send: Send | None = None
    ) -> None:
        self._bmc = bmc
        self._credentials = credentials
        self._ledger = ledger
        self._send = send
        self._headers: dict[str, str] | None = None if credentials else {}
        self._session: str | None = None

    def headers(self) -> dict[str, str]:
        """Raises BmcLoginRefused, also when this login was refused before, by whichever process."""
        if self._headers is None:
            self._drive(self.entering())
        return self._headers or {}

    @property
    def known(self) -> dict[str, str] | None:
        """The headers of a log-in that is made; None when nobody has logged in yet."""
        return self._headers

    @property
    def has_session(self) -> bool:
        """A lost session can be made anew; a refused Basic login stays refused."""
        return "X-Auth-Token" in (self._headers or {})

    def refused(self, why: str) -> BmcLoginRefused:
        """The error for a 401; and the login is remembered as no good, unless the BMC has just made a session with it."""
        if self._credentials is None:
            return BmcLoginNotTried(
                f"{self._bmc} wants a login, and this host has no credentials",
                hint="set `credentials` of the host, or a `match` rule in site.yaml",
            )
        if not self.has_session:
            self._headers = None
            self._ledger.record_refusal(self._bmc, self._credentials.version, time.time())
        return BmcLoginRefused(f"{self._bmc} refused user {self._credentials.username!r}: {why}")

    def close(self) -> None:
        """Never raises."""
        try:
            self._drive(self.leaving())
        except Exception as exc:  # noqa: BLE001  also at interpreter exit, where anything can be gone
            LOG.warning("%s: the session could not be ended: %s", self._bmc, exc)

    def leaving(self) -> Steps[None]:
        """Forgets the session at once, and asks for its DELETE where there is one."""
        session, self._session = self._session, None
        headers, self._headers = self._headers, None
        if session is None or headers is None:
            return
        try:
            answer = yield Request("DELETE", session, None, headers)
            self._ledger.sessions.ended(self._bmc, session)
            if answer.status_code >= 400 and answer.status_code not in (401, 404):  # it has ended already
                LOG.info("%s: the session %s could not be ended: HTTP %s", self._bmc, session, answer.status_code)
        finally:
            log.forget(headers.get("X-Auth-Token", ""))

    def _drive(self, steps: Steps[None]) -> None:
        if self._send is None:
            raise TypeError("this log-in is driven by its owner")
        with contextlib.suppress(StopIteration):
            request = next(steps)
            while True:
                request = steps.send(self._send(*request))

    def entering(self) -> Steps[None]:
        """Raises what `headers` does."""
        credentials = self._credentials
        if credentials is None:
            return
        when = self._ledger.refused(self._bmc, credentials.version)
        if when is not None:
            raise BmcLoginNotTried(
                f"{self._bmc} refused user {credentials.username!r} with this password before ({when}); "
                "it is not tried again until they change"
            )
        where = yield from self._where()
        made = (yield from self._make_session(where, credentials)) if where else None
        self._headers = made or _basic(credentials)
        if made and self._session:
            self._ledger.sessions.made(self._bmc, self._session)
            for uri in self._ledger.sessions.left(self._bmc):
                yield from self._end_left_over(uri, credentials.username, made)

    def _end_left_over(self, uri: str, username: str, headers: dict[str, str]) -> Steps[None]:
        """A session of ours whose process was killed. Numbers come again after a BMC's restart: not another user's."""
        self._ledger.sessions.ended(self._bmc, uri)  # once: a BMC that does not allow it is not asked again
        try:
            readonly.check("DELETE", uris.local(uri))
            answer = yield Request("GET", uri, None, headers)
            if answer.status_code == 200 and answer.document().get("UserName") == username:
                LOG.info("%s: session %s was left behind by a process that was killed; it is ended", self._bmc, uri)
                yield Request("DELETE", uri, None, headers)
        except BmcError as exc:
            LOG.info("%s: session %s was left behind, and is left to time out: %s", self._bmc, uri, exc)

    def _where(self) -> Steps[str | None]:
        """Where sessions are made. The root must be readable without a login (DSP0266), and is not everywhere."""
        answer = yield Request("GET", ROOT, None, {})
        if answer.status_code in (401, 403):
            return SESSIONS
        if answer.status_code >= 400:
            raise answers.error(answer, "GET", ROOT)
        root = answer.document()
        links = root.get("Links")
        sessions = links.get("Sessions") if isinstance(links, dict) else None
        uri = sessions.get("@odata.id") if isinstance(sessions, dict) else None
        if isinstance(uri, str) and uri:
            return uri
        return SESSIONS if "SessionService" in root else None

    def _make_session(self, where: str, credentials: Credentials) -> Steps[dict[str, str] | None]:
        """None: this BMC has no sessions (left), use Basic."""
        body = {"UserName": credentials.username, "Password": credentials.password}
        answer = yield Request("POST", where, body, {})
        if answer.status_code in answers.ABSENT:
            return None
        if answers.says(answer, "SessionLimitExceeded"):
            LOG.warning("%s has no session left; it is asked with user and password each time", self._bmc)
            return None
        # iLO 5 answers 400 with UnauthorizedLoginAttempt. Whatever the words, no second try: accounts get locked.
        if answer.status_code in (400, 401, 403):
            raise self.refused(answers.explained(answer))
        if answer.status_code >= 300:
            raise answers.error(answer, "POST", where)
        token = answer.header("X-Auth-Token")
        if not token:
            return None
        self._session = answer.header("Location") or _own_uri(answer)  # absolute on some makes: the host is dropped
        if not self._session:
            LOG.warning("%s gave a token without the session's address: it cannot be ended", self._bmc)
        return {"X-Auth-Token": log.secret(token)}


def _own_uri(answer: Answer) -> str | None:
    try:
        uri = answer.document().get("@odata.id")
    except BmcError:
        return None
    return uris.path(uri) if isinstance(uri, str) and uri else None


def _basic(credentials: Credentials) -> dict[str, str]:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return {"Authorization": f"Basic {log.secret(base64.b64encode(pair).decode())}"}
