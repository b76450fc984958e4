"""Who may speak to a BMC: Basic authentication, and Redfish sessions (DSP0266 13.3), which sushy-tools lacks."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from dataclasses import dataclass

LIMIT = 8  # sessions at a time; real BMCs have 4 to 16
IDLE_SECONDS = 1800.0


@dataclass
class Session:
    id: str
    user: str
    token: str
    used: float


class Sessions:
    def __init__(self, user: str, password: str, *, limit: int = LIMIT) -> None:
        self._user = user
        self._password = password
        self._limit = limit
        self._lock = threading.Lock()
        self._by_id: dict[str, Session] = {}

    def right(self, user: str, password: str) -> bool:
        same_user = hmac.compare_digest(user.encode(), self._user.encode())
        return hmac.compare_digest(password.encode(), self._password.encode()) and same_user

    def open(self, user: str) -> Session | None:
        """None when all are taken."""
        with self._lock:
            self._expire()
            if len(self._by_id) >= self._limit:
                return None
            session = Session(secrets.token_hex(4), user, secrets.token_urlsafe(32), time.monotonic())
            self._by_id[session.id] = session
            return session

    def by_token(self, token: str) -> Session | None:
        with self._lock:
            self._expire()
            for session in self._by_id.values():
                if hmac.compare_digest(session.token.encode(), token.encode()):
                    session.used = time.monotonic()
                    return session
            return None

    def get(self, number: str) -> Session | None:
        with self._lock:
            self._expire()
            return self._by_id.get(number)

    def ids(self) -> list[str]:
        with self._lock:
            self._expire()
            return list(self._by_id)

    def delete(self, number: str) -> bool:
        with self._lock:
            return self._by_id.pop(number, None) is not None

    def clear(self) -> None:
        with self._lock:
            self._by_id.clear()

    def _expire(self) -> None:
        oldest = time.monotonic() - IDLE_SECONDS
        self._by_id = {k: s for k, s in self._by_id.items() if s.used > oldest}
