"""Redfish over HTTP to one BMC, with the rules that hold for every request whoever sends it.

- one request in flight, over one kept-alive connection;
- `mode: read-only` is enforced here: anything but GET, HEAD and the session's own POST and DELETE is not sent;
- reads are repeated while the BMC is busy or away, within `patience` seconds; a write is repeated only when not a byte
  of it was sent, because a second POST may be a second action;
- the budget of this BMC, its rack and its site is kept, which all processes of the site share (see `budget`);
- credentials go to the BMC's own address and nowhere else, whatever a link or a redirect says;
- what went wrong is translated into our errors once, here.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from urllib.parse import urljoin

import msgspec

from metalimmu import log
from metalimmu.bmc import answers, uris
from metalimmu.bmc.answers import Answer
from metalimmu.bmc.budget import Account, NoTurn
from metalimmu.bmc.credentials import Credentials
from metalimmu.bmc.ledger import PROCESS, LoginLedger
from metalimmu.bmc.login import Login
from metalimmu.bmc.retries import READS, Retries
from metalimmu.bmc.transport import Transport
from metalimmu.bmc.unknown import BmcTimeout, NotSent
from metalimmu.desired.types import Mode
from metalimmu.errors import BmcBusy, BmcError, BmcReadOnly, BmcRefused, BmcUnreachable
from metalimmu.observed.types import WriteRequest

LOG = log.get("bmc")

HOPS = 3
LAST_WORDS = 5.0
"""Seconds that a log-out may take: a silent BMC must not hold up the end of a program."""

HEADERS = {
    "Accept": "application/json",
    "OData-Version": "4.0",
    # Compressed answers get other (weak) ETags on some makes, and If-Match then fails.
    "Accept-Encoding": "identity",
}


class Timing(msgspec.Struct, frozen=True):
    """The clock, so that tests of patience take no time."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random


class Exchange:
    """One request and its answer on the BMC's own address, redirects that stay there followed. Not logged in."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.count = 0

    def __call__(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        base = self.transport.base
        url = base + uris.local(path)
        for _ in range(HOPS):
            self.count += 1
            answer = self.transport.send(method, url, body, HEADERS | headers)
            onward = answer.header("Location")
            follow = (301, 302, 303, 307, 308) if method in READS else (307, 308)  # the others turn a POST into a GET
            if answer.status_code not in follow or not onward:
                return answer
            url = urljoin(url, onward)
            if uris.origin(url) != uris.origin(base):
                raise BmcRefused(
                    f"{method} {path}: redirected to another address, {answers.clean(url, 200)}; it was not followed",
                    hint="give the BMC's final address in the host document",
                )
        raise BmcRefused(f"{method} {path}: more than {HOPS} redirects")


class Connector:
    def __init__(
        self,
        transport: Transport,
        credentials: Credentials | None = None,
        *,
        ledger: LoginLedger | None = None,
        mode: Mode = "read-only",
        before_write: Callable[[], None] | None = None,
        patience: float = 20.0,
        timing: Timing | None = None,
        account: Account | None = None,
    ) -> None:
        self.base = transport.base
        self.patience = patience
        self.timing = timing or Timing()
        self._account = account
        self._mode = mode
        self._before_write = before_write
        self._sent: list[WriteRequest] = []
        self._rehearsal: list[WriteRequest] | None = None
        self._lock = threading.RLock()
        self._exchange = Exchange(transport)
        self._login = Login(transport.base, credentials, ledger or PROCESS, self._exchange)
        # The log-out is certain: also when nobody closes us (garbage collection) and at interpreter exit.
        self._finish = weakref.finalize(self, _finish, self._login, transport)

    @property
    def requests(self) -> int:
        """HTTP requests so far, log-in and redirects included."""
        return self._exchange.count

    def get(self, path: str, *, patience: float | None = None) -> Answer:
        """Raises BmcError for any answer of 300 or above."""
        return self.request("GET", path, patience=patience)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
        patience: float | None = None,
    ) -> Answer:
        """One request, logged in. Statuses in `accept` are returned instead of raised."""
        method = method.upper()
        with self._lock:
            if method not in READS:
                if self._rehearsal is not None:
                    self._rehearsal.append(_record(method, path, body))
                    return Answer(204, {}, b"", url=path)
                self._allow(method, path)
            answer = self._persist(method, path, body, headers or {}, self.patience if patience is None else patience)
        if answer.status_code >= 300 and answer.status_code not in accept:
            raise answers.error(answer, method, uris.path(path))
        return answer

    def rehearse(self, act: Callable[[], None]) -> list[WriteRequest]:
        """Run `act` with its writes recorded and not sent, each answered with 204. Allowed in read-only mode."""
        with self._lock:
            self._rehearsal = []
            try:
                act()
                return self._rehearsal
            finally:
                self._rehearsal = None

    @property
    def rehearsing(self) -> bool:
        return self._rehearsal is not None

    def sent(self) -> list[WriteRequest]:
        with self._lock:
            return list(self._sent)

    def close(self) -> None:
        """End the session and the connection. Never raises; the next request would begin anew."""
        with self._lock:
            _finish(self._login, self._exchange.transport)

    def _allow(self, method: str, path: str) -> None:
        if self._mode == "read-only":
            raise BmcReadOnly(f"{method} {uris.path(path)} was not sent: the mode is read-only")
        if self._before_write:
            self._before_write()

    def _persist(self, method: str, path: str, body: Any, headers: dict[str, str], patience: float) -> Answer:
        """Repeat while that is safe and there is time."""
        deadline = self.timing.now() + patience
        retries = Retries(method)
        while True:
            answer: Answer | None = None
            trouble: BmcError | None = None
            try:
                with self._turn(deadline):
                    answer = self._attempt(method, path, body, headers)
            except (BmcBusy, BmcUnreachable) as exc:
                trouble = exc
                wait = retries.after_error(exc, self.timing.jitter())
            else:
                wait = retries.after_answer(answer.status_code, answers.retry_after(answer), self.timing.jitter())
            if wait is not None and self._account and not isinstance(trouble, (NoTurn, NotSent, BmcTimeout)):
                self._account.back_off(wait)  # whoever else talks to this BMC leaves it alone too
            if wait is None or self.timing.now() + wait > deadline:
                break
            words = trouble or (answer and answer.status_code)
            LOG.info("%s: %s %s again in %.1f s: %s", self.base, method, path, wait, words)
            self.timing.sleep(wait)
        if answer is None:
            raise trouble or BmcUnreachable(f"{self.base}: no answer")
        return answer

    def _turn(self, deadline: float) -> AbstractContextManager[None]:
        if self._account is None:
            return nullcontext()
        return self._account.turn(max(0.0, deadline - self.timing.now()), sleep=self.timing.sleep)

    def _attempt(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        """Once, but for a session that the BMC has forgotten (it restarted): then once more with a fresh one."""
        answer = self._send(method, path, body, headers)
        if answer.status_code == 401 and self._login.has_session:
            LOG.info("%s has forgotten our session; logging in again", self.base)
            self._login.close()  # on a BMC that answers 401 for something else the session is still there
            answer = self._send(method, path, body, headers)
        if answer.status_code == 401:
            raise self._login.refused(answers.explained(answer))
        if answer.status_code == 406 and method == "GET":
            # HPE Gen10 Plus serves its registries compressed only.
            answer = self._send(method, path, body, headers | {"Accept-Encoding": "gzip"})
        return answer

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        login = self._login.headers()
        try:
            answer = self._exchange(method, path, body, headers | login)
        except NotSent:
            raise
        except BmcError:
            self._remember(method, path, body)  # it may have arrived
            raise
        if not 400 <= answer.status_code < 500:
            self._remember(method, path, body)
        return answer

    def _remember(self, method: str, path: str, body: Any) -> None:
        """A write that was refused with 4xx changed nothing, and is often sent again in other words (ETag, login)."""
        if method not in READS:
            self._sent.append(_record(method, path, body))
            LOG.info("%s: %s %s", self.base, method, uris.path(path))  # not the body: a media URL is a key


def _finish(login: Login, transport: Transport) -> None:
    with transport.hurried(LAST_WORDS):
        login.close()
    transport.close()


def _record(method: str, path: str, body: Any) -> WriteRequest:
    return WriteRequest(method, uris.path(path), body if isinstance(body, dict) else {})
