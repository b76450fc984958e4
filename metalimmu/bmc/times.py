"""Times as BMCs write them."""

from __future__ import annotations

import datetime as dt
import email.utils

DAY = 86400.0
_FORMATS = ("%b %d %H:%M:%S %Y GMT", "%b %d %H:%M:%S %Y", "%Y-%m-%dT%H:%M%z", "%m/%d/%Y %H:%M:%S")


def seconds(text: str) -> float | None:
    """Since 1970; None for what is no time. A time that names no zone counts as UTC."""
    try:
        return _utc(dt.datetime.fromisoformat(text))
    except ValueError:
        pass
    for form in _FORMATS:  # certificates of Dell, clocks without seconds
        try:
            return _utc(dt.datetime.strptime(" ".join(text.split()), form))  # noqa: DTZ007  _utc gives it a zone
        except ValueError:
            continue
    return http(text)


def http(text: str) -> float | None:
    """An HTTP Date."""
    try:
        return _utc(email.utils.parsedate_to_datetime(text))
    except (ValueError, TypeError):
        return None


def iso(at: float) -> str:
    """``2032-11-23T01:28:00Z``."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _utc(when: dt.datetime) -> float | None:
    try:
        return (when if when.tzinfo else when.replace(tzinfo=dt.UTC)).timestamp()
    except (OverflowError, OSError, ValueError):
        return None
