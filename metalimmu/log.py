"""Logging for every part: standard library loggers, secrets taken out before anything is written."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from typing import Any

_SECRETS: set[str] = set()
_LOCK = threading.Lock()
# Addresses that are as good as a password while their deployment runs: /m/ media, /c/ chunks, /p/ phone home,
# /i/ installers, and of switches /onie/, /nos/, /ztp/.
_PATHS = re.compile(r"(?i)(/(?:[mcpi]|onie|nos|ztp)/)[a-z2-7]{32}(?![a-z2-7])")
_HEADERS = re.compile(
    r"""(?ix)( (?:authorization|x-auth-token|password|token)['"]?\s*[:=]\s*['"]?(?:(?:basic|bearer)\ )?
           | \b(?:bearer|basic)\  )
        (?!NAME|\.\.\.|\*\*\*)[^\s'",}]{6,}"""
)


def get(name: str) -> logging.Logger:
    return logging.getLogger(name if name.startswith("metalimmu") else f"metalimmu.{name}")


def secret(value: str) -> str:
    """Remember a value that must never be written, and return it."""
    if len(value) >= 4:
        with _LOCK:
            _SECRETS.add(value)
    return value


def forget(value: str) -> None:
    """It is no secret any more (a session that has ended): a scan of a fleet must not grow the list for ever."""
    with _LOCK:
        _SECRETS.discard(value)


def redact(text: str) -> str:
    return _without(text, _known())


def redacted(data: Any) -> Any:
    """The same for what becomes JSON: each text for itself, so that a secret made of digits, or a quote behind one, leaves
    JSON behind.
    """
    return _each("", json.loads(json.dumps(data, default=str)), _known())


def _known() -> list[str]:
    with _LOCK:
        return sorted(_SECRETS, key=len, reverse=True)


def _without(text: str, secrets: list[str]) -> str:
    for value in secrets:
        text = text.replace(value, "***")
    return _HEADERS.sub(r"\1***", _PATHS.sub(r"\1***", text))


def _each(name: str, value: Any, secrets: list[str]) -> Any:
    """`name` is the field that has the value: `password`, `X-Auth-Token`."""
    if isinstance(value, dict):
        return {_without(k, secrets): _each(k, v, secrets) for k, v in value.items()}
    if isinstance(value, list):
        return [_each(name, v, secrets) for v in value]
    if not isinstance(value, str):
        return value
    head = f"{name}="
    return _without(head + value, secrets).removeprefix(_without(head, secrets)) if name else _without(value, secrets)


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def setup(*, verbose: int = 0) -> None:
    """Warnings to stderr; -v info, -vv debug of our own loggers, -vvv of the libraries too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose >= 3 else logging.WARNING)
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.getLogger("metalimmu").setLevel(level)
