"""A person's terminal joined to a machine's console: raw while it lasts, and what it was before whatever ends it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import BinaryIO, Protocol

HELP = b"\r\n~.  end    ~B  break    ~~  a tilde    ~?  this list    (each after Enter)\r\n"
_ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT"))


class Console(Protocol):
    ended: str

    def fileno(self) -> int: ...
    def read(self) -> bytes:
        """Empty at its end; `ended` says why."""
        ...

    def write(self, data: bytes) -> None: ...
    def send_break(self) -> None: ...


class Escape:
    """``~`` after Enter, as ssh and ipmitool have it. `feed` gives what is for the machine, and the orders in between."""

    def __init__(self) -> None:
        self._begins = True  # a line
        self._tilde = False

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """("send", bytes), ("end", b""), ("break", b""), ("help", b"")."""
        out = bytearray()
        for number in data:
            key = bytes((number,))
            if self._tilde:
                self._tilde = False
                order = {b".": "end", b"B": "break", b"?": "help"}.get(key)
                if order:
                    if out:
                        yield "send", bytes(out)
                        out.clear()
                    yield order, b""
                    self._begins = True
                    continue
                out += b"~" if key == b"~" else b"~" + key
            elif self._begins and key == b"~":
                self._tilde = True
                continue
            else:
                out += key
            self._begins = key in b"\r\n"
        if out:
            yield "send", bytes(out)


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """Keys as they are pressed, Ctrl-C too. Nothing to do where there is no terminal. Signals that would end us at once end us
    in order instead, so that the terminal is mended.
    """
    if not os.isatty(fd):
        with orderly():
            yield
        return
    import termios
    import tty

    before = termios.tcgetattr(fd)
    with orderly():
        try:
            tty.setraw(fd, termios.TCSANOW)
            yield
        finally:
            with contextlib.suppress(termios.error):  # it has hung up
                termios.tcsetattr(fd, termios.TCSANOW, before)


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in _ENDS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def join(
    console: Console, *, keyboard: int | None, screen: Callable[[bytes], None], log: BinaryIO | None = None
) -> str:
    """Until either side ends; says why. `keyboard`: a descriptor, None to look only; one that ends is no end of looking."""
    escape = Escape()
    poll = select.poll()
    poll.register(console.fileno(), select.POLLIN)
    if keyboard is not None:
        poll.register(keyboard, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == console.fileno():
                data = console.read()
                if not data:
                    return console.ended
                if log:
                    log.write(data)
                    log.flush()
                screen(data)
            elif fd == keyboard:
                typed = os.read(fd, 4096)
                if not typed:
                    poll.unregister(fd)
                for order, keys in escape.feed(typed):
                    if order == "end":
                        return "ended by you"
                    _obey(console, screen, order, keys)


def _obey(console: Console, screen: Callable[[bytes], None], order: str, keys: bytes) -> None:
    if order == "send":
        console.write(keys)
    elif order == "break":
        console.send_break()
    else:
        screen(HELP)


def show(data: bytes) -> None:
    """To standard output, at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
