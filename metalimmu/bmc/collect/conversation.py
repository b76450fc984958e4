"""One BMC from the first connection to the log-out: drives a reader, keeps the rules of `connector` without blocking.

Whatever this BMC does costs its own time only: every wait has an end, and one that keeps silent for a while gives its
place to another.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from metalimmu import log
from metalimmu.bmc import answers, uris
from metalimmu.bmc.answers import Answer
from metalimmu.bmc.ask import Ask, Asking, Reply
from metalimmu.bmc.budget import Account, NoTurn
from metalimmu.bmc.collect.exchange import WHOLE, Exchange, answer
from metalimmu.bmc.collect.gate import Gate, Pass
from metalimmu.bmc.collect.line import Response, Times
from metalimmu.bmc.collect.types import CollectSettings, ScanTarget
from metalimmu.bmc.collect.window import Place, Window
from metalimmu.bmc.credentials import Credentials
from metalimmu.bmc.ledger import LoginLedger
from metalimmu.bmc.login import ROOT, Login, Request, Steps
from metalimmu.bmc.ports import rack
from metalimmu.bmc.retries import Retries
from metalimmu.bmc.unknown import BmcTimeout, NotSent
from metalimmu.errors import BmcBusy, BmcCertificateError, BmcError, BmcLoginRefused, BmcUnreachable

LOG = log.get("bmc")
T = TypeVar("T")
LAST_WORDS = 5.0
"""Seconds that a log-out may take."""
LONG = 0.25
"""A wait of so many seconds is worth giving the place away for."""
WHOLE_ROOT = {b"Systems", b"Managers"}
"""A root that shows less to those who have not logged in is read again."""
IDLE = 1.0
"""Seconds after which a kept-alive connection is not trusted with a login."""
SILENT = 2
"""So many timeouts in a row and the BMC is away; one alone may be one slow resource."""


class Shared(NamedTuple):
    """What all conversations of one scan have together."""

    settings: CollectSettings
    ledger: LoginLedger
    gate: Gate
    window: Window


class Conversation:
    def __init__(
        self, target: ScanTarget, credentials: Credentials | None, shared: Shared, account: Account | None, place: Place
    ) -> None:
        """Raises UsageError."""
        self.away: BmcError | None = None
        self._target = target
        self._credentials = credentials
        self._settings, self._ledger, self._gate, self._window = shared
        self._account = account
        self.place = place
        self._exchange = Exchange(target, largest=self._settings.largest, on_silence=self._fell_silent)
        self._login = Login(self._exchange.base, credentials, self._ledger)
        self._pass: Pass | None = None
        self._proven = credentials is None
        self._renewed = False
        self._root: Response | None = None
        self._timeouts = 0
        whole = WHOLE * target.read_timeout
        self._usual = Times(target.connect_timeout, target.read_timeout, whole, self._settings.silence)
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + self._settings.total

    @property
    def requests(self) -> int:
        return self._exchange.count

    async def run(self, reader: Asking[T]) -> T:
        """What the reader returns. Raises BmcError where it could not begin: no connection, no login."""
        try:
            await self._enter()
            ask = next(reader)
            while True:
                ask = reader.send(await self._reply(ask))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            reader.close()

    async def close(self) -> None:
        """Log out. Certain also when the scan is stopped; never raises but for a second cancellation."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await self._log_out()
        finally:
            self._exchange.close()

    # reading

    async def _reply(self, ask: Ask) -> Reply:
        """Never raises BmcError: the reader has it in the Reply."""
        path = ask.path
        try:
            if self.away is not None:
                raise self.away
            response, came_from = self._known_root(path) or await self._patiently(self._attempt, path)
        except BmcError as exc:
            error = self._overdue() if isinstance(exc, BmcTimeout) and self._loop.time() >= self._end else exc
            self._note(error)
            return Reply(0, error=error, uri=ask.uri, at=time.time())
        self._timeouts = 0
        elsewhere = "" if came_from == path else came_from
        certificate = self._exchange.line.certificate
        return Reply(response.status, response.headers, response.body, None, elsewhere, time.time(), certificate)

    def _known_root(self, path: str) -> tuple[Response, str] | None:
        """The service root, which we have read to find where to log in: once."""
        root, self._root = self._root, None
        if root is None or uris.key(path) != uris.key(ROOT) or not set(root.body.split(b'"')) >= WHOLE_ROOT:
            return None
        return root, path

    def _note(self, exc: BmcError) -> None:
        """Is it away for good? Then nothing more is asked."""
        if isinstance(exc, BmcTimeout):
            self._timeouts += 1
            gone = self._timeouts >= SILENT or self._loop.time() >= self._end
        elif isinstance(exc, BmcLoginRefused):
            gone = not self._proven  # otherwise it is 401 for one resource alone
        else:
            gone = isinstance(exc, (BmcUnreachable, BmcCertificateError))
        if gone:
            self.away = exc

    async def _patiently(
        self, attempt: Callable[[str], Awaitable[tuple[Response, str]]], path: str
    ) -> tuple[Response, str]:
        """Repeat while the BMC is busy or away, within the patience and the time that this BMC has in all."""
        retries: Retries | None = None
        deadline = min(self._loop.time() + self._settings.patience, self._end)
        while True:
            found: tuple[Response, str] | None = None
            trouble: BmcError | None = None
            try:
                found = await attempt(path)
            except (BmcBusy, BmcUnreachable) as exc:
                trouble = exc
                retries = retries or Retries("GET")
                # `away` already: a login that got no answer is not tried twice.
                wait = None if self.away else retries.after_error(exc, random.random())  # noqa: S311  not a secret
            else:
                if found[0].status < 429:
                    return found
                retries = retries or Retries("GET")
                asked = answers.retry_after(answer(*found))
                wait = retries.after_answer(found[0].status, asked, random.random())  # noqa: S311
            if self._account and wait is not None and not isinstance(trouble, (NoTurn, NotSent, BmcTimeout)):
                self._account.back_off(wait)  # whoever else talks to this BMC leaves it alone too
            if wait is None or self._loop.time() + wait > deadline:
                break
            LOG.debug(
                "%s: GET %s again in %.1f s: %s",
                self._exchange.base,
                path,
                wait,
                trouble or (found and found[0].status),
            )
            await self._pause(wait)
        if found is None:
            raise trouble or BmcUnreachable(f"{self._exchange.base}: no answer")
        return found

    async def _attempt(self, path: str) -> tuple[Response, str]:
        """Once, but for a session that the BMC has forgotten: then once more with a fresh one, once in a scan."""
        found = await self._send(Request("GET", path, None, self._login.known or await self._log_in()))
        status = found[0].status
        if status == 401 and self._login.has_session and not self._renewed:
            self._renewed = True
            LOG.info("%s has forgotten our session; logging in again", self._exchange.base)
            await self._log_out()  # on a BMC that answers 401 for something else the session is still there
            found = await self._send(Request("GET", path, None, await self._log_in()))
            status = found[0].status
        if status == 401:
            raise self._login.refused(answers.explained(answer(*found)))
        if status == 406:
            compressed = {"Accept-Encoding": "gzip"} | (self._login.known or {})
            found = await self._send(Request("GET", path, None, compressed))
        return found

    # login

    async def _enter(self) -> None:
        """Log in, with the patience that other requests have. Without credentials: is there a BMC at all?"""
        await self._patiently(self._begin, ROOT)

    async def _begin(self, path: str) -> tuple[Response, str]:
        await self._log_in()
        if self._root is not None:
            return self._root, path
        found = await self._attempt(path)
        if found[0].status == 200:
            self._root = found[0]
        return found

    async def _log_in(self) -> dict[str, str]:
        if self._login.known is None:
            await self._drive(self._login.entering())
        return self._login.known or {}

    async def _log_out(self) -> None:
        try:
            await self._drive(self._login.leaving())
        except BmcError as exc:
            LOG.warning("%s: the session could not be ended: %s", self._exchange.base, exc)

    async def _drive(self, steps: Steps[None]) -> None:
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._step(request))
        except StopIteration:
            return
        finally:
            steps.close()

    async def _step(self, request: Request) -> Answer:
        response, path = await self._send(request)
        if request.path == ROOT and response.status == 200:
            self._root = response
        return answer(response, path)

    # sending

    async def _send(self, request: Request) -> tuple[Response, str]:
        """Every request goes this way: in its turn, and a login that nobody has tried through the gate."""
        if request.method == "DELETE":  # a session is ended whatever has happened, and whoever waits for a turn
            return await self._exchange(request, Times(LAST_WORDS, LAST_WORDS, LAST_WORDS))
        wait = self._account.reserve(0.0) if self._account is not None else 0.0
        if wait or not self.place.held:
            await self._wait_for_turn(wait)
        attempt = not self._proven and (request.method == "POST" or "Authorization" in request.headers)
        if not attempt or self._credentials is None:
            return await self._exchange(request, self._times())
        return await self._try_login(request, self._credentials.version)

    async def _try_login(self, request: Request, version: str) -> tuple[Response, str]:
        asked = self._loop.time()
        self._pass = await self._gate.enter(version)
        try:
            if self._loop.time() - asked > IDLE:
                self._exchange.close()  # it may have ended meanwhile, and this is nothing to send twice
            found = await self._exchange(request, self._times())
            self._judge(request, answer(*found))
        except BmcUnreachable as exc:
            if request.method == "POST" and not isinstance(exc, NotSent):
                self.away = exc
            raise
        else:
            return found
        finally:
            self._pass.unknown()
            self._pass = None

    def _judge(self, request: Request, found: Answer) -> None:
        assert self._pass is not None  # noqa: S101  for the type checker
        status = found.status_code
        if request.method == "POST":
            if status in (400, 401, 403) and not answers.says(found, "SessionLimitExceeded"):
                self._pass.refused(self._target.name)
            elif status < 300:
                self._proven = True
                self._pass.good()
        elif status == 401:
            self._pass.refused(self._target.name)
        elif status < 400:
            self._proven = True
            self._pass.good()

    def _times(self) -> Times:
        left = self._end - self._loop.time()
        if left >= self._usual.whole:
            return self._usual
        if left <= 0:
            raise self._overdue()
        return self._usual._replace(whole=left)

    def _overdue(self) -> BmcTimeout:
        return BmcTimeout(f"{self._exchange.base}: not read within {self._settings.total:g} s in all")

    def _fell_silent(self) -> None:
        self.place.leave()
        if self._pass:
            self._pass.unknown()

    async def _wait_for_turn(self, wait: float) -> None:
        if wait and self._account is not None:
            patience = min(self._settings.patience, self._end - self._loop.time())
            wait = self._account.reserve(patience)
            if wait > patience:
                raise self._account.too_long(wait)
            if wait > 0:
                await self._pause(wait)
        if not self.place.held:
            began = self._loop.time()
            self.place = await self._window.enter(self._account, rack(self._target), self._settings.total)
            self._end += self._loop.time() - began  # waiting for others is not this BMC's time

    async def _pause(self, seconds: float) -> None:
        if seconds >= LONG:
            self.place.leave()
        await asyncio.sleep(seconds)
