"""What a program or a server said, as evidence: its first and last part, readable, without secrets."""

from __future__ import annotations

import re

from metalimmu.log import redact

KEPT = 8 * 1024  # bytes of each end
_MARGIN = 4 * 1024  # more than any secret is long: one that lies across a cut must not be left in halves

# ECMA-48: control sequences (colours, cursor), operating system commands (window titles), other escapes.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


class Said:
    """Takes in bytes without end, keeps little of them."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._most = kept + _MARGIN
        self._head = bytearray()
        self._tail = bytearray()
        self.size = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        room = self._most - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 4 * self._most:
            del self._tail[: -self._most]

    def text(self, secrets: tuple[str, ...] = ()) -> str:
        """All of it, or its two ends. `secrets` are taken out beside those that the log knows."""
        del self._tail[: -self._most]
        if self.size <= len(self._head) + len(self._tail):
            whole = readable(bytes(self._head + self._tail), secrets)
            if len(whole) <= 2 * self._kept:
                return whole
            return _joined(whole[: self._kept], whole[-self._kept :], self.size)
        head = readable(bytes(self._head), secrets)[:-_MARGIN][: self._kept]
        tail = readable(bytes(self._tail), secrets)[_MARGIN:][-self._kept :]
        return _joined(head, tail, self.size)


def _joined(head: str, tail: str, size: int) -> str:
    return f"{head}\n... {size} bytes in all, the middle is left out ...\n{tail}"


def readable(data: bytes, secrets: tuple[str, ...] = ()) -> str:
    """Text of lines: what is no UTF-8 replaced, control sequences taken out."""
    text = data.decode(errors="replace")
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 8:
            text = text.replace(secret, "***")
    return _CONTROL.sub("", _ESCAPES.sub("", redact(text).replace("\r\n", "\n").replace("\r", "\n")))


def last_line(text: str, limit: int = 200) -> str:
    """The last words of a program: mostly they say why."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    return line[:limit] + ("…" if len(line) > limit else "")
