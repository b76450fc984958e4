"""Speaks to one BMC over IPMI: a process that gets jobs as lines of JSON and answers each with lines of JSON.

The first line says who: address, port, username, password, write (may anything be changed?), idle (seconds). A job: rights (2 User,
3 Operator), seconds, parts (names of reads) and perhaps act (a write: name and arguments). Answers: ``{"part": NAME,
"data": ...}`` or ``{"part": NAME, "error": TEXT, "reason": REASON, "code": COMPLETION}``; ``login`` comes first when there
was a login, ``end`` last.

One session serves all jobs, as long as they come often enough: a BMC has room for few. It ends with the standard input,
so also with a controller that was killed.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable
from typing import Any

from pyghmi.exceptions import IpmiException
from pyghmi.ipmi.private import constants

from metalimmu.bmc.ipmi_guard import (
    IPMI_15,
    OPERATOR,
    READING,
    WRITING,
    NotAllowed,
    OutOfTime,
    Session,
    Unanswered,
    single_threaded,
)
from metalimmu.bmc.ipmi_reader import Reader, Writer

NO_ACCESS = frozenset({0xD4})
BUSY = frozenset({0xC0, 0xC3, 0xD2})
_REFUSED = ("Incorrect password", "Invalid RAKP4")
_REFUSALS = (0x0C, 0x0D, 0x0F)  # RMCP+ status codes (13.24): name, integrity check value
_RIGHTS = (0x09, 0x0A)  # invalid role; unauthorized role or privilege level
_NO_RIGHTS = "privelege level"  # as pyghmi writes it


class Line:
    """At most one session, with the rights that were needed last."""

    def __init__(self, who: dict[str, Any]) -> None:
        self._who = who
        self._gate = WRITING if who.get("write") else READING
        self._session: Session | None = None
        self._rights = 0

    def session(self, rights: int, deadline: float) -> Session | None:
        """None: no login; it was said why."""
        found = self._session
        if found is not None:
            type(found).deadline = deadline
            if rights > self._rights:
                self.hang_up()
            elif found.broken or not found.alive():
                self._session = None
                found.abandon()
        return self._session or self._login(rights, deadline)

    def _login(self, rights: int, deadline: float) -> Session | None:
        who = self._who
        try:
            found = Session.open(
                who["address"],
                who["port"],
                who["username"],
                who["password"],
                gate=self._gate,
                rights=rights,
                deadline=deadline,
            )
        except Exception as exc:  # noqa: BLE001  whatever breaks in a login, the driver must hear of it
            say("login", error=str(exc), reason=login_failure(exc, rights))
            return None
        self._session, self._rights = found, rights
        say("login", data={"sha256": found.attemptedhash == 256})
        return found

    def hang_up(self) -> None:
        found, self._session = self._session, None
        if found is not None:
            try:
                found.close()
            except (IpmiException, OSError, Unanswered) as exc:
                print(f"log-out: {exc}", file=sys.stderr)  # noqa: T201  for the log of who reads us


def main() -> None:
    jobs = Jobs()
    who = jobs.next(None) or {}
    line = Line(who)
    single_threaded()
    try:
        while (job := jobs.next(who.get("idle"))) is not None:
            if job:
                serve(line, job)
            else:
                line.hang_up()
    finally:
        line.hang_up()


class Jobs:
    """Lines of JSON from standard input."""

    def __init__(self) -> None:
        self._data = b""

    def next(self, idle: float | None) -> dict[str, Any] | None:
        """None at the end; empty after `idle` seconds without a line."""
        while b"\n" not in self._data:
            if idle is not None and not select.select([0], (), (), idle)[0]:
                return {}
            more = os.read(0, 65536)
            if not more:
                return None
            self._data += more
        text, _, self._data = self._data.partition(b"\n")
        found: dict[str, Any] = json.loads(text)
        return found


def serve(line: Line, job: dict[str, Any]) -> None:
    session = line.session(job["rights"], time.monotonic() + job["seconds"])
    if session is not None:
        reader = Reader(session)
        for part in job.get("parts", ()):
            answer(part, getattr(reader, part))
        if act := job.get("act"):
            name, arguments = act
            answer(name, lambda: getattr(Writer(session), name)(**arguments))
    say("end")


def answer(part: str, do: Callable[[], Any]) -> None:
    try:
        say(part, data=do())
    except OutOfTime:
        say(part, error="not done in time", reason="timeout")
    except Unanswered:
        say(part, error="no answer", reason="timeout")
    except NotAllowed as exc:
        say(part, error=str(exc), reason="not allowed")
    except IpmiException as exc:
        say(part, error=str(exc), reason=why(exc), code=exc.ipmicode)
    except Exception as exc:  # noqa: BLE001  one odd answer costs one part
        say(part, error=f"{type(exc).__name__}: {exc}", reason="broken")


def why(exc: IpmiException) -> str:
    if "timeout" in str(exc) or "no longer connected" in str(exc):
        return "timeout"
    if exc.ipmicode in NO_ACCESS:
        return "not permitted"
    return "busy" if exc.ipmicode in BUSY else "not modelled"


def login_failure(exc: Exception, rights: int) -> str:
    """Refused | no rights | unsupported | busy | unreachable | broken"""
    text = str(exc)
    code = next((c for c, words in constants.rmcp_codes.items() if text.startswith(words)), 0)
    if rights >= OPERATOR and (code in _RIGHTS or _NO_RIGHTS in text):
        return "no rights"
    if code in (*_REFUSALS, *_RIGHTS) or any(words in text for words in (*_REFUSED, _NO_RIGHTS)):
        return "refused"
    if code in (0x01, 0x0B):
        return "busy"
    if text == IPMI_15 or code:
        return "unsupported"
    silent = isinstance(exc, IpmiException) and (text in ("None", "", "timeout") or "no longer connected" in text)
    return "unreachable" if silent or isinstance(exc, (OSError, OutOfTime, Unanswered)) else "broken"


def say(part: str, *, data: Any = None, error: str = "", reason: str = "", code: int = 0) -> None:
    line = {"part": part, "error": error, "reason": reason, "code": code} if reason else {"part": part, "data": data}
    print(json.dumps(line), flush=True)  # noqa: T201  the protocol


if __name__ == "__main__":
    main()
