"""The ledger of who has no site: refused logins in a file of the user's state folder.

It has hashes of the BMC and of the login, and the time; a line that begins with `-` forgets a BMC. Lines are only
added, each by one write, so any number of processes may use it at once, and a torn one harms no other.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from functools import cache
from pathlib import Path

from metalimmu import log, paths
from metalimmu.bmc.ledger import LoginLedger, MemoryLedger, stamp
from metalimmu.bmc.sessions import Sessions

LOG = log.get("bmc")
LARGEST = 16 << 20


class FileLedger:
    """Never raises: where the file cannot be used, it says so once and remembers for this process."""

    def __init__(self, path: Path, sessions: Sessions | None = None) -> None:
        self.sessions = sessions or Sessions(None)
        self._path = path
        self._refused: dict[str, dict[str, float]] = {}  # hash of the BMC: hash of the login: when
        self._seen = (0, 0)  # inode and size of what was read
        self._lock = threading.Lock()
        self._said = False

    def refused(self, bmc: str, version: str) -> str | None:
        with self._lock:
            self._look()
            when = self._refused.get(_hash(bmc), {}).get(_hash(bmc, version))
        return None if when is None else stamp(when)

    def record_refusal(self, bmc: str, version: str, when: float) -> None:
        self._add(f"{_hash(bmc)} {_hash(bmc, version)} {when:.0f}")

    def clear(self, bmc: str) -> None:
        with self._lock:
            self._look()
            known = _hash(bmc) in self._refused
        if known:
            self._add(f"- {_hash(bmc)} {time.time():.0f}")

    def _add(self, line: str) -> None:
        with self._lock:
            self._take(line)
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                fd = os.open(self._path, flags, 0o600)
                try:
                    os.write(fd, f"{line}\n".encode())
                finally:
                    os.close(fd)
            except OSError as exc:
                self._say(exc)

    def _look(self) -> None:
        """Read what other processes have added."""
        try:
            found = self._path.stat()
            if (found.st_ino, found.st_size) == self._seen:
                return
            with self._path.open("rb") as file:
                text = file.read(LARGEST).decode("ascii", "replace")
        except FileNotFoundError:
            return
        except OSError as exc:
            self._say(exc)
            return
        self._seen = found.st_ino, found.st_size
        for line in text.splitlines():
            self._take(line)

    def _take(self, line: str) -> None:
        parts = line.split(" ")
        if len(parts) != 3 or not parts[2].isdecimal():
            return
        if parts[0] == "-":
            self._refused.pop(parts[1], None)
        else:
            self._refused.setdefault(parts[0], {})[parts[1]] = float(parts[2])

    def _say(self, exc: OSError) -> None:
        if not self._said:
            self._said = True
            LOG.warning(
                "%s cannot be used (%s): refused logins are remembered by this process only, and the next command tries "
                "them again; set XDG_STATE_HOME to a folder that you may write",
                self._path,
                exc.strerror,
            )


@cache
def of_user() -> LoginLedger:
    """The one of this user, for commands without a site."""
    try:
        folder = paths.state()
    except RuntimeError:  # no home folder: a container with a user id that nobody knows
        LOG.warning("there is no home folder: refused logins are forgotten with this process; set XDG_STATE_HOME")
        return MemoryLedger()
    return FileLedger(folder / "refused-logins", Sessions(folder / "bmc-sessions"))


def _hash(*what: str) -> str:
    """Says neither which BMC nor which login; `version` is a slow hash of the password already."""
    return hashlib.sha256("\n".join(("metalimmu login", *what)).encode()).hexdigest()[:32]
