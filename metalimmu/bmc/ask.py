"""Reading a BMC without doing it: a reader is a generator that yields what it wants to know and is sent the answer.

So one reader runs over asyncio, over a blocking connector, and over a recording. Whoever drives it sends one request at a
time, repeats what is busy, logs in, and never raises into the generator: what went wrong is in the Reply.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TypeVar

import msgspec

from metalimmu.errors import BmcError

T = TypeVar("T")

EXPAND = "$expand=.($levels=1)"


class Ask(msgspec.Struct, frozen=True):
    """`uri` as the BMC wrote it (or with a query of ours): give it to `uris.local` before it is sent."""

    uri: str
    expand: bool = False  # the members of this collection inline

    @property
    def path(self) -> str:
        """What to send."""
        if not self.expand:
            return self.uri
        return f"{self.uri}{'&' if '?' in self.uri else '?'}{EXPAND}"


class Reply(msgspec.Struct, frozen=True):
    """An answer of any HTTP status, or `error` when there was none (status 0) or when it is already translated."""

    status: int
    headers: Mapping[str, str] = {}  # names in any letter case: the mapping must not care
    body: bytes = b""
    error: BmcError | None = None
    uri: str = ""  # after redirects, where they led elsewhere
    at: float = 0.0  # when it came, seconds since 1970; 0: not told
    peer: bytes = b""  # the TLS certificate in DER, where the driver has it; once is enough


Asking = Generator[Ask, Reply, T]
"""A reader: `Asking[Snapshot]` asks, and returns a Snapshot."""


def drive(reader: Asking[T], fetch: Callable[[Ask], Reply]) -> T:
    """Run `reader` with a blocking `fetch`, which returns errors inside the Reply. Returns what the reader returns."""
    try:
        ask = next(reader)
        while True:
            ask = reader.send(fetch(ask))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
