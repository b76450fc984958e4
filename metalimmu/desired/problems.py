"""What is wrong in a document, where, and what to write instead."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence

import msgspec

Path = tuple[str | int, ...]


class Problem(msgspec.Struct, frozen=True):
    """One thing to mend. Its text is one line: `hosts/r12.yaml:14: r12-u07.serial: expected text, got ...: write ...`."""

    file: str  # relative to the site
    line: int  # from 1
    field: str  # dotted; a host's fields start with its name; empty: the whole file
    expected: str
    got: str
    write: str

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{self.file}:{self.line}: {field}expected {self.expected}, got {self.got}: {self.write}"


def dotted(path: Iterable[str | int]) -> str:
    """`("network", "routes", 0, "via")` as `network.routes[0].via`."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += f".{visible(part)}" if out else visible(part)
    return out


def visible(text: str, limit: int = 80) -> str:
    """Text as it can stand in one line of a terminal: control characters escaped, cut when too long."""
    if len(text) <= limit and text.isprintable():
        return text
    shown = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text[:limit])
    return shown + ("..." if len(text) > limit else "")


def quoted(text: str) -> str:
    return f'"{visible(text)}"'


def nearest(word: str, known: Iterable[str], *, none: str = "") -> str:
    """`write X`, X being the known word most like this one; else all of them when they are few."""
    words = sorted(known)
    close = difflib.get_close_matches(word[:80], words, n=1, cutoff=0.6)
    if close:
        return f"write {close[0]}"
    if none and not words:
        return none
    return f"write one of {listed(words)}"


def listed(words: Sequence[str], limit: int = 12) -> str:
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more


FEW = 3


def merged(problems: Sequence[Problem]) -> list[Problem]:
    """The same of more than FEW hosts is one problem, at the first of them, with their number: a wrong word in what
    all of them have, or two profiles that are both for them, is one mistake and not ten thousand lines.
    """
    hosts: dict[object, dict[str, None]] = {}
    for p in problems:
        hosts.setdefault(_same(p), {})[p.field.partition(".")[0]] = None
    found: dict[object, Problem] = {}
    for p in problems:
        names = list(hosts[_same(p)])
        if len(names) <= FEW:
            found[p] = p
        elif _same(p) not in found:
            got = f"{p.got} (of {len(names)} hosts: {listed(names, FEW)})"
            found[_same(p)] = msgspec.structs.replace(p, field=p.field.partition(".")[2], got=got)
    return list(found.values())


def _same(p: Problem) -> object:
    """Equal for what several host documents have in common: all but where it stands."""
    if not (p.file.startswith("hosts/") and p.field):
        return p
    return p.field.partition(".")[2], p.expected, p.got, p.write
