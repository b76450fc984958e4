"""Names of runs: short, and sorted by time."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u, so they can be read out


def run_id(now: float | None = None) -> str:
    """`r-20261120-` and nine characters: the millisecond of the day, then chance."""
    return _name("r", now)


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
