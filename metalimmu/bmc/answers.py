"""What a BMC answered, and what it means when it says no. All of it is untrusted: sizes and types are checked here."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from requests.structures import CaseInsensitiveDict

from metalimmu.errors import (
    BmcBroken,
    BmcBusy,
    BmcError,
    BmcLoginRefused,
    BmcNotPermitted,
    BmcRefused,
    BmcUnsupported,
)

LONGEST_TEXT = 600
BUSY = frozenset({429, 500, 502, 503, 504})
ABSENT = frozenset({404, 405, 410, 501})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


class Answer:
    """One HTTP answer, read to its end. Has what sushy expects of a response: status_code, headers, content, json()."""

    def __init__(self, status: int, headers: Mapping[str, str], content: bytes, *, url: str = "") -> None:
        self.status_code = status
        self.headers = CaseInsensitiveDict(headers)
        self.content = content
        self.url = url

    def header(self, name: str) -> str:
        return self.headers.get(name, "")

    def json(self) -> Any:
        """Raises ValueError, as sushy expects; `document` is for our own use."""
        return _parse(self.content)

    def document(self) -> dict[str, Any]:
        """The JSON object. Raises BmcBroken."""
        return document(self.content, self.url)


def document(content: bytes, url: str) -> dict[str, Any]:
    """The JSON object in a body. Raises BmcBroken."""
    try:
        found = _parse(content)
    except (ValueError, RecursionError) as exc:
        raise BmcBroken(f"{url}: {_why(content, exc)}") from exc
    if not isinstance(found, dict):
        raise BmcBroken(f"{url}: expected a JSON object, got {type(found).__name__}")
    return found


def _parse(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Lenient the second time: a byte-order mark, a stray Latin-1 byte in an asset tag, a raw tab in a text.
        return json.loads(content.decode("utf-8-sig", errors="replace"), strict=False)


def _why(content: bytes, exc: Exception) -> str:
    if not content:
        return "the answer is empty"
    start = clean(content[:40].decode("ascii", errors="replace"), 40)
    return f"the answer ({len(content)} bytes, begins {start!r}) is no JSON: {clean(str(exc), 120)}"


def clean(text: str, longest: int = LONGEST_TEXT) -> str:
    """Text of a BMC made fit for a terminal and a log: no control characters, bounded."""
    if len(text) <= longest and text.isprintable():  # nearly all are, and that is cheap
        return text.strip()
    short = _CONTROL.sub(" ", text).strip()
    return short if len(short) <= longest else f"{short[: longest - 1]}…"


def messages(answer: Answer) -> list[tuple[str, str]]:
    """(message id, text) of @Message.ExtendedInfo and of the error itself (DSP0266, error responses)."""
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        return []
    error = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return []
    info = error.get("@Message.ExtendedInfo")
    entries = info if isinstance(info, list) else [info]
    found = [_message(e) for e in entries[:10] if isinstance(e, dict)]
    general = (_text(error.get("code")), _text(error.get("message")))
    return [m for m in (*found, general) if any(m)]


def _message(entry: dict[str, Any]) -> tuple[str, str]:
    # iLO sends only MessageID and MessageArgs; the arguments are better than nothing.
    args = entry.get("MessageArgs")
    words = ", ".join(_text(a) for a in args[:5]) if isinstance(args, list) else ""
    return _text(entry.get("MessageId") or entry.get("MessageID")), _text(entry.get("Message")) or words


def _text(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""


def says(answer: Answer, *message_ids: str) -> bool:
    """Does it carry one of these message ids? Registry name and version are ignored: they differ by firmware."""
    endings = {i.rpartition(".")[2] for i, _ in messages(answer)}
    return bool(endings & set(message_ids))


def explained(answer: Answer) -> str:
    found = messages(answer)
    specific = [m for m in found if not m[0].endswith(("GeneralError", "ExtendedInfo"))] or found
    words = "; ".join(dict.fromkeys(f"{text} [{ident}]" if ident else text for ident, text in specific[:3]))
    return clean(words) or "it gave no reason"


def retry_after(answer: Answer) -> float | None:
    """Seconds, from a number or an HTTP date; None when it says nothing sensible. At most an hour."""
    text = answer.header("Retry-After").strip()
    if not text:
        return None
    try:
        seconds = float(text) if text.replace(".", "", 1).isdigit() else _until(text)
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), 3600.0)


def _until(text: str) -> float:
    return email.utils.parsedate_to_datetime(text).timestamp() - time.time()


def error(answer: Answer, method: str, path: str) -> BmcError:
    """The error of our tree that an answer of 400 or above means."""
    status = answer.status_code
    head = f"{method} {path}: HTTP {status}"
    if status == 401:
        return BmcLoginRefused(f"{head}: {explained(answer)}")
    if status == 403:
        return BmcNotPermitted(f"{head}: {explained(answer)}")
    if status in BUSY:
        return BmcBusy(f"{head}: {explained(answer)}")
    if status in ABSENT:
        return BmcUnsupported(f"{head}: {explained(answer)}")
    if 300 <= status < 400:
        return BmcRefused(f"{head}: redirected to {clean(answer.header('Location'), 200) or 'nowhere'}")
    return BmcRefused(f"{head}: {explained(answer)}")
