"""What `metalimmu drift accept` writes: new waivers at the end of waivers.yaml. All that is there stays, comments too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import yaml

from metalimmu import structs
from metalimmu.desired import documents
from metalimmu.desired.edit import locked, read, replace
from metalimmu.desired.problems import Problem
from metalimmu.desired.waiver import Waiver

FILE = "waivers.yaml"
_HEAD = """\
# Drift that is accepted until a date. Written by `metalimmu drift accept`; commit it.
# A waiver ends with its day (UTC), or at the first change of the value after `since`, and does not come back.
# Of several, any that holds counts.
"""


def add_waivers(folder: Path, waivers: Sequence[Waiver]) -> None:
    """All of them or none. Raises SiteError when waivers.yaml is broken."""
    with locked(folder):
        before = read(folder, FILE, list[Waiver], [])
        path = folder / FILE
        old = path.read_text(encoding="utf-8") if path.exists() else _HEAD
        text = old + ("" if not old or old.endswith("\n") else "\n") + _body(waivers)
        if _parsed(text) != [*before, *waivers]:  # a list in brackets, or one that is indented: it is written anew
            text = _comments(old) + _body([*before, *waivers])
        replace(path, text)


def _body(waivers: Sequence[Waiver]) -> str:
    data = [msgspec.to_builtins(w) for w in waivers]
    text: str = yaml.dump(data, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def _parsed(text: str) -> list[Waiver] | None:
    problems: list[Problem] = []
    _source, value = documents.parse(FILE, text.encode(), problems)
    try:
        return None if problems else structs.convert(value, list[Waiver])
    except msgspec.ValidationError:
        return None


def _comments(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
