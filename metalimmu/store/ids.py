"""Names of runs and scans: short, and sorted by time."""

from __future__ import annotations

import hashlib
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u, so they can be read out


def run_id(now: float | None = None) -> str:
    """`r-20261120-` and nine characters: the millisecond of the day, then chance."""
    return _name("r", now)


def scan_id(now: float | None = None) -> str:
    """`s-20261120-` and nine characters, like a run's."""
    return _name("s", now)


def rollout_id(now: float | None = None) -> str:
    """`o-20261120-` and nine characters, like a run's."""
    return _name("o", now)


def freeze_id(now: float | None = None) -> str:
    return _name("f", now)


def attempt_id(rollout: str, host: str, attempt: int) -> str:
    """The run of a rollout's host, always the same one: whoever starts it again after a crash starts nothing twice."""
    digest = hashlib.sha256(f"{rollout}\0{host}\0{attempt}".encode()).digest()
    day = rollout.split("-")[1]
    return f"r-{day}-{_base32(int.from_bytes(digest[:8]), 12)}"


def plan_id(kind: str, digest: str, created: float) -> str:
    """The one run (`r`) or rollout (`o`) of a saved plan: whoever applies it again starts nothing twice."""
    number = int(digest.removeprefix("sha256:")[:16], 16)
    return f"{kind}-{time.strftime('%Y%m%d', time.gmtime(created))}-{_base32(number, 12)}"


def _name(kind: str, now: float | None) -> str:
    moment = time.time() if now is None else now
    return f"{kind}-{time.strftime('%Y%m%d', time.gmtime(moment))}-{_base32(int(moment % 86400 * 1000), 6)}{_chance(3)}"


def _base32(number: int, width: int) -> str:
    text = ""
    for _ in range(width):
        number, digit = divmod(number, 32)
        text = _ALPHABET[digit] + text
    return text


def _chance(width: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(width))
