"""A server's console as text: what its serial port said, without the codes that move a terminal's cursor."""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Iterator
from pathlib import Path

# ECMA-48: CSI and two-character escape sequences; and the control characters other than newline and tab
_CODES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\^_c-~()][A-Z0-9]?)|[\x00-\x08\x0b-\x1f\x7f]")
_PARTIAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*)?\Z")  # a sequence that goes on in the next piece


def clean(text: str) -> str:
    return _CODES.sub("", text)


def read(path: Path, *, follow: bool, poll: float = 0.2) -> Iterator[str]:
    """What is there; with `follow` also what comes, until the file is removed."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    if not path.exists():
        return
    with path.open("rb") as file:
        while True:
            if data := file.read(1 << 16):
                text = rest + decoder.decode(data)
                cut = found.start() if (found := _PARTIAL.search(text)) else len(text)
                rest = text[cut:]
                yield clean(text[:cut])
            elif not follow or not path.exists():
                return
            else:
                time.sleep(poll)
