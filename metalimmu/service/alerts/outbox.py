"""Notices wait in the store until their receiver has taken them.

A message is marked as sent after the receiver said so: killed in between, it is sent again, under the same id. One that
is refused is tried again, less and less often, for three days.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from metalimmu import log, structs
from metalimmu.desired.alerts import Alert
from metalimmu.errors import AlertError
from metalimmu.service.alerts.notice import Notice
from metalimmu.service.alerts.send import send
from metalimmu.store.trigger_records import OutboxRecord

if TYPE_CHECKING:
    from metalimmu.store.protocol_triggers import TriggerStore

logger = log.get("alerts")

HELD = 180.0  # seconds that one sender has: longer than any delivery may take
FIRST_WAIT = 5.0
LONGEST_WAIT = 3600.0
PATIENCE = 3 * 86400.0
KEPT = 30 * 86400.0  # what was delivered, for who asks

Send = Callable[[Alert, Notice, Path], None]


def record(alert: str, notice: Notice) -> OutboxRecord:
    return OutboxRecord(
        id=0, key=notice.id, alert=alert, kind=notice.kind, body=msgspec.to_builtins(notice), created=notice.at
    )


def wait(key: str, attempts: int) -> float:
    """Seconds until the next try: doubling, and a little different for each message."""
    jitter = int.from_bytes(hashlib.sha256(key.encode()).digest()[:2]) / 2**16
    return float(min(FIRST_WAIT * 2**attempts, LONGEST_WAIT) * (0.75 + jitter / 2))


def deliver(
    store: TriggerStore,
    alerts: Iterable[Alert],
    folder: Path,
    *,
    clock: Callable[[], float] = time.time,
    sender: Send = send,
) -> tuple[int, int]:
    """Send what is due: (sent, failed). Receivers do not wait for each other; after a failure one is left alone."""
    by_alert: dict[str, list[OutboxRecord]] = {}
    for message in store.due_messages():
        by_alert.setdefault(message.alert, []).append(message)
    if not by_alert:
        return 0, 0
    known = {a.name: a for a in alerts}

    def one(name: str) -> tuple[int, int]:
        sent = 0
        for message in by_alert[name]:
            if not store.hold_message(message.id, HELD):
                continue
            if name not in known:
                store.message_failed(message.id, "site.yaml has no such alert any more", again=None)
            elif _deliver(store, known[name], message, folder, clock, sender):
                sent += 1
            else:
                return sent, 1
        return sent, 0

    done = _at_once(one, list(by_alert))
    return sum(s for s, _ in done), sum(f for _, f in done)


def _at_once(call: Callable[[str], tuple[int, int]], names: list[str]) -> list[tuple[int, int]]:
    """One thread each; daemons, so that a receiver which keeps silent does not hold up the end of the program."""
    done: list[tuple[int, int]] = []
    threads = [threading.Thread(target=lambda n=n: done.append(call(n)), name=f"alert {n}", daemon=True) for n in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def _deliver(
    store: TriggerStore,
    alert: Alert,
    message: OutboxRecord,
    folder: Path,
    clock: Callable[[], float],
    sender: Send,
) -> bool:
    try:
        sender(alert, structs.convert(message.body, Notice), folder)
    except AlertError as exc:
        now = clock()
        again = now + wait(message.key, message.attempts)
        given_up = again > message.created + PATIENCE
        store.message_failed(message.id, exc.message, again=None if given_up else again)
        logger.warning("alert %s %s: %s", alert.name, "is given up" if given_up else "is tried again", exc.message)
        return False
    store.message_sent(message.id)
    logger.info("alert %s: notice %s is delivered", alert.name, message.key)
    return True
