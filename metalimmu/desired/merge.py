"""What was found into what people wrote: host documents for review. Pure: texts in, texts out.

A field that is there stays as it is, a host that is not there is appended, comments stay where they stand. What differs is
listed for a person to decide. Every change is an insertion into the text, and the result is read again before it
counts: an edit whose result is not exactly what was meant is not made but listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from metalimmu import structs
from metalimmu.desired.documents import Source
from metalimmu.desired.known_hosts import Fields, Key, Known, bmc_key, hosts
from metalimmu.desired.merge_text import Missing, appended, filled
from metalimmu.desired.problems import Path, dotted, visible
from metalimmu.desired.types import Host

Kind = Literal["new", "filled", "same", "differs", "duplicate", "by hand", "left out"]


class Candidate(msgspec.Struct, frozen=True):
    """A host as some source knows it: fields of a host document, `name` and `bmc` among them."""

    fields: Fields
    origin: str = ""  # for the comment above a new host


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done (`new`, `filled`) or not (`same`), or that a person must decide (the others)."""

    kind: Kind
    host: str
    file: str = ""
    field: str = ""
    found: str = ""
    there: str = ""
    why: str = ""


class Merged(msgspec.Struct, frozen=True):
    files: dict[str, str]  # those that change, with their new text
    changes: tuple[Change, ...]


def merge(files: Mapping[str, bytes], target: str, candidates: Iterable[Candidate]) -> Merged:
    """`files` are all documents of hosts (YAML and CSV) by name, `target` the one that new hosts are appended to.

    Raises SiteError when one of them cannot be read (who is there already would not be known), UsageError for a
    target that new hosts cannot be appended to.
    """
    desk = _Desk(hosts(files))
    for candidate in candidates:
        desk.take(candidate)
    texts: dict[str, str] = {}
    for file in dict.fromkeys(file for file, _ in desk.missing):
        text, done, left = filled(file, files[file], [m for key, m in desk.missing.items() if key[0] == file])
        desk.changes += [_change("filled", m.known, p, v) for m in done for p, v in _leaves(m.fields)]
        desk.changes += [_change("by hand", m.known, p, v, why=why) for m, why in left for p, v in _leaves(m.fields)]
        if text:
            texts[file] = text
    if desk.new:
        before = texts[target].encode() if target in texts else files.get(target, b"")
        texts[target] = appended(target, before, [(c.fields, c.origin) for c in desk.new])
    return Merged(texts, tuple(desk.changes))


class _Desk:
    """Who is there, who is new, and what is decided so far."""

    def __init__(self, known: Sequence[Known]) -> None:
        self.changes: list[Change] = []
        self.new: list[Candidate] = []
        self.missing: dict[Key, Missing] = {}
        self._names = {h.name for h in known}
        self._by_serial = {s: h for h in known if (s := _serial(h.value))}
        self._by_bmc = {k: h for h in known if (k := bmc_key(str(h.value.get("bmc", ""))))[0]}
        self._seen: dict[str, str] = {}  # serial -> the BMC that has it, in this run

    def take(self, candidate: Candidate) -> None:
        fields, serial = candidate.fields, _serial(candidate.fields)
        name, bmc = str(fields["name"]), str(fields["bmc"])
        by_serial, by_bmc = self._by_serial.get(serial), self._by_bmc.get(bmc_key(bmc))
        first = self._seen.setdefault(serial, bmc) if serial else bmc
        if bmc_key(first) != bmc_key(bmc):
            self._say("duplicate", name, found=bmc, there=first, why=f"two addresses, one serial number {_of(fields)}")
        elif by_serial is not None and by_bmc is not None and by_serial.key != by_bmc.key:
            why = f"the serial number is that of {by_serial.name}, the address that of {by_bmc.name}"
            self._say("differs", by_bmc.name, file=by_bmc.file, field="serial", found=_of(fields), why=why)
        elif (host := by_serial or by_bmc) is not None and not host.file:
            self._say("duplicate", name, found=bmc, there=host.name, why="the same BMC twice")
        elif host is not None:
            self._compare(host, {k: v for k, v in fields.items() if k != "name"})
        else:
            self._append(candidate)

    def _compare(self, host: Known, fields: Fields) -> None:
        missing, differing = _difference(host.value, fields)
        for path, found, there in differing:
            said = {"found": _shown(found), "there": _shown(there)}
            self._say("differs", host.name, file=host.file, field=dotted(path), **said)
        if any(path == ("serial",) for path, _, _ in differing):
            return  # another machine answers there: nothing of it belongs into this document
        if missing:
            self.missing[host.key] = Missing(host, missing)
        elif not differing:
            self._say("same", host.name, file=host.file)

    def _append(self, candidate: Candidate) -> None:
        fields = {**candidate.fields, "name": self._free(str(candidate.fields["name"]))}
        name, bmc = fields["name"], str(fields["bmc"])
        try:
            structs.convert(fields, Host)
        except msgspec.ValidationError as exc:
            self._say("left out", name, found=bmc, why=visible(str(exc), 200))
            return
        candidate = Candidate(fields, candidate.origin)
        self.new.append(candidate)
        self._names.add(name)
        known = Known("", Source("", lambda: None), (len(self.new),), fields)
        self._by_bmc[bmc_key(bmc)] = known
        self._say("new", name, found=bmc)

    def _free(self, name: str) -> str:
        if name not in self._names:
            return name
        return next(n for i in range(2, 1_000_000) if (n := f"{name[:56]}-{i}") not in self._names)

    def _say(self, kind: Kind, host: str, **more: str) -> None:
        self.changes.append(Change(kind=kind, host=host, **more))


def _difference(there: Fields, found: Fields, path: Path = ()) -> tuple[Fields, list[tuple[Path, Any, Any]]]:
    """What `found` has and `there` has not, and where both say something and not the same."""
    missing: Fields = {}
    differing: list[tuple[Path, Any, Any]] = []
    for name, value in found.items():
        here = (*path, name)
        if name not in there or there[name] is None:
            # A field that is there with nothing in it was written by somebody: it is theirs.
            if name not in there:
                missing[name] = value
        elif isinstance(value, dict) and isinstance(there[name], dict):
            below, differ = _difference(there[name], value, here)
            differing += differ
            if below:
                missing[name] = below
        elif not _same(here, there[name], value):
            differing.append((here, value, there[name]))
    return missing, differing


def _same(path: Path, one: Any, other: Any) -> bool:
    if path == ("bmc",):
        return bmc_key(str(one)) == bmc_key(str(other))
    if path == ("tls", "fingerprint"):
        return str(one).replace(":", "").lower() == str(other).replace(":", "").lower()
    return bool(one == other) or str(one).strip().casefold() == str(other).strip().casefold()


def _leaves(fields: Fields, path: Path = ()) -> Iterable[tuple[Path, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _change(kind: Kind, known: Known, path: Path, value: Any, *, why: str = "") -> Change:
    return Change(kind=kind, host=known.name, file=known.file, field=dotted(path), found=_shown(value), why=why)


def _shown(value: Any) -> str:
    return visible(value if isinstance(value, str) else str(value), 120)


def _of(fields: Fields) -> str:
    return visible(str(fields.get("serial") or ""))


def _serial(fields: Fields) -> str:
    return str(fields.get("serial") or "").strip().casefold()
