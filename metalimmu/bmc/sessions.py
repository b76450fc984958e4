"""Sessions that we have made at BMCs and not ended yet.

A process that is killed leaves its sessions behind, and BMCs have few (4 to 16): after some kills nobody can log in until
they time out. So the address of each session is written down, never its token, and whoever logs in to that BMC next ends
what a dead process has left there.

A file per process in one folder, locked while its process lives: the kernel frees the lock on any death.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from metalimmu import log, structs

LOG = log.get("bmc")
KEPT = 86_400.0
"""Seconds; no session lives longer (SessionTimeout of a SessionService is a day at most), and its number may be another's by then."""
LARGEST = 16 << 20
LONGEST = 1024

Entry = tuple[str, float, str, str]  # + or -, when, base URL of the BMC, URI of the session
_ENTRY = structs.decoder(Entry)


class Sessions:
    """`folder` None: nothing is written down. Never raises: it may help the next login, and must not cost this one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._open: set[tuple[str, str]] = set()
        self._left: dict[str, dict[str, float]] = {}  # base URL: URI of a session that nobody has: when it was made
        self._fd = -1
        self._finish: Callable[[], object] = lambda: None

    def made(self, bmc: str, uri: str) -> None:
        if self._folder is None or len(uri) > LONGEST:
            return
        with self._lock:
            self._begin(self._folder)
            self._open.add((bmc, uri))
            self._write(("+", time.time(), bmc, uri))

    def ended(self, bmc: str, uri: str) -> None:
        """By us, or it was not there any more."""
        if self._folder is None:
            return
        with self._lock:
            self._open.discard((bmc, uri))
            if (known := self._left.get(bmc)) is not None:
                known.pop(uri, None)
                if not known:
                    del self._left[bmc]
            if self._open or self._left:
                self._write(("-", time.time(), bmc, uri))
            elif self._fd >= 0:
                with suppress(OSError):
                    os.ftruncate(self._fd, 0)

    def left(self, bmc: str) -> list[str]:
        """Those that dead processes have left at this BMC."""
        with self._lock:
            known = self._left.get(bmc, {})
            return [uri for uri, at in known.items() if time.time() - at < KEPT and (bmc, uri) not in self._open]

    def close(self) -> None:
        """The file goes, unless there are sessions left. Also done when nobody says so, at the end of the process."""
        with self._lock:
            self._finish()
            self._fd = -1

    # the file

    def _begin(self, folder: Path) -> None:
        """Ours is made, and those of dead processes are taken over, once."""
        if self._fd >= 0 or self._folder is None:
            return
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        path, new = folder / f"{name}.log", folder / f"{name}.new"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(new, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(path)  # locked before anybody sees it
        except OSError as exc:
            LOG.warning("%s cannot be used (%s): sessions of a killed process are left to time out", folder, exc)
            self._folder, self._fd = None, -1
            return
        self._finish = weakref.finalize(self, _finish, self._fd, path)
        for other in folder.glob("*.log"):
            if other != path:
                self._take_over(other)

    def _take_over(self, path: Path) -> None:
        """What is left in the file of a dead process; then the file goes."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return  # another process was faster
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for entry in _read(os.read(fd, LARGEST)):
                _, at, bmc, uri = entry
                self._left.setdefault(bmc, {})[uri] = at
                self._write(entry)
            path.unlink(missing_ok=True)
        except OSError:
            pass  # its process lives
        finally:
            os.close(fd)

    def _write(self, entry: Entry) -> None:
        if self._fd < 0:
            return
        try:
            os.write(self._fd, msgspec.json.encode(entry) + b"\n")
        except OSError as exc:
            LOG.debug("a session was not written down: %s", exc)


def _finish(fd: int, path: Path) -> None:
    try:
        if os.fstat(fd).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(fd)
    except OSError:
        LOG.debug("%s was not tidied up", path, exc_info=True)


def _read(data: bytes) -> Iterator[Entry]:
    now, found = time.time(), dict[tuple[str, str], Entry]()
    for line in data.splitlines():
        try:
            entry = _ENTRY.decode(line)
        except msgspec.MsgspecError:  # torn by the kill
            continue
        word, at, bmc, uri = entry
        if word == "+" and now - at < KEPT:
            found[bmc, uri] = entry
        else:
            found.pop((bmc, uri), None)
    yield from found.values()
