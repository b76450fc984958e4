"""A pool in use: a load balancer that hooks speak to, and users who notice when a server that it has does not answer."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from e2e_rig import Rig
from rack import free_port

from metalimmu_emulator.qmp import QmpError

PAUSE = 0.3  # seconds between two requests of one user
TIMEOUT = 60.0  # a guest on a busy host is slow, not down

# What a site has where a load balancer is: one program for all hooks. Its log lies outside of the controller's state.
BALANCER = """#!/bin/sh
set -e
cat >/dev/null
printf '%s %s %s %s\\n' "$(date +%s.%N)" "$1" "$METALIMMU_HOST" "$METALIMMU_HOOK_KEY" >>balancer.log
echo "$METALIMMU_HOST: $1"
"""


@dataclass(frozen=True)
class Said:
    """One call of a hook."""

    at: float
    word: str  # in | out
    host: str
    key: str


@dataclass(frozen=True)
class Visit:
    host: str
    began: float
    ended: float
    words: str  # what the server answered, or why it did not


class Balancer:
    def __init__(self, site: Path) -> None:
        self._log = site / "balancer.log"
        program = site / "balancer"
        program.write_text(BALANCER)
        program.chmod(0o755)

    def said(self) -> list[Said]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [Said(float(at), word, host, key) for at, word, host, key in map(str.split, lines)]

    def spans(self, host: str, end: float) -> list[tuple[float, float]]:
        """When it had the host."""
        found: list[tuple[float, float]] = []
        begun: float | None = None
        for one in (s for s in self.said() if s.host == host):
            if one.word == "in":
                begun = begun or one.at
            elif begun is not None:
                found.append((begun, one.at))
                begun = None
        return found + ([(begun, end)] if begun is not None else [])

    def fewest(self, hosts: list[str], since: float) -> int:
        """How few it had at any moment."""
        there = {h for h in hosts if any(b <= since < e for b, e in self.spans(h, float("inf")))}
        fewest = len(there)
        for one in (s for s in self.said() if s.at > since):
            there = there | {one.host} if one.word == "in" else there - {one.host}
            fewest = min(fewest, len(there))
        return fewest


@dataclass
class Users:
    """Ask every server again and again. Nobody reaches into a lab's network, so port 80 of each machine is forwarded,
    anew whenever its QEMU was started anew.
    """

    rig: Rig
    ports: dict[str, int] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ports = {s.name: free_port() for s in self.rig.lab.spec.servers}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(h,), daemon=True) for h in self.ports]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT + 5)

    def _ask(self, host: str) -> None:
        forwarded = None
        while not self._stop.wait(PAUSE):
            process = self.rig.lab._state(host).process
            if process is None:
                continue
            if process != forwarded and self._forward(host):
                forwarded = process
            began = time.time()
            words = ask(self.ports[host])
            self.visits.append(Visit(host, began, time.time(), words))

    def _forward(self, host: str) -> bool:
        try:
            with self.rig.qmp(host) as client:
                line = f"hostfwd_add net0 tcp:127.0.0.1:{self.ports[host]}-:80"
                said = client.execute("human-monitor-command", **{"command-line": line})
        except (QmpError, OSError):
            return False  # just switched off, or not yet on
        assert not said, said
        return True

    def turned_away(self, balancer: Balancer) -> list[Visit]:
        """Visits of servers that the balancer had from their beginning to their end, and that were not answered well."""
        end = time.time()
        spans = {h: balancer.spans(h, end) for h in self.ports}
        return [
            v
            for v in list(self.visits)
            if not v.words.startswith("ok") and any(b < v.began and v.ended < e for b, e in spans[v.host])
        ]

    def served(self, balancer: Balancer) -> int:
        """Visits answered well, of servers that the balancer had: that somebody has looked at all."""
        spans = {h: balancer.spans(h, time.time()) for h in self.ports}
        return sum(v.words.startswith("ok") and any(b < v.began < e for b, e in spans[v.host]) for v in self.visits)


def ask(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.read().decode().strip() if answer.status == 200 else f"status {answer.status}"
    except (OSError, http.client.HTTPException) as exc:
        return f"{type(exc).__name__}: {exc}"
    finally:
        connection.close()
