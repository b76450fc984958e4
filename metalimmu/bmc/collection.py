"""Members of a collection, of which one that is bad must not lose the others; with `$expand` where that is right.

`$expand` (DSP0266) brings a whole collection in one answer. Some BMCs leave fields out of it, send links all the same, or
stop after a page; so the first expanded answer of each kind of collection is compared with plain reads of every member,
by what we make of them, and the verdict holds for all machines of that make and firmware.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from metalimmu.bmc import uris
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.tree import Tree
from metalimmu.bmc.unknown import unknown
from metalimmu.errors import BmcBroken, BmcError, BmcRefused, BmcUnsupported
from metalimmu.observed.types import Unknown

T = TypeVar("T")
Parse = Callable[[Doc], T | None]


class Expansion:
    """`right` says for a kind of collection whether an expanded answer was equal to plain reads."""

    def __init__(self, right: dict[str, bool] | None = None, *, offered: bool = False) -> None:
        self.right = dict(right or {})
        self.offered = offered


class Collections:
    """`gaps` gets what could not be read of single members."""

    def __init__(self, tree: Tree, gaps: list[Unknown], expansion: Expansion | None = None) -> None:
        self.tree = tree
        self.gaps = gaps
        self.expansion = expansion or Expansion()

    def parsed(self, uri: str, parse: Parse[T], *, kind: str = "") -> Asking[tuple[T, ...]]:
        """All members through `parse`, which returns None for one to leave out. `kind` names what may be expanded.

        Raises the first trouble when there are members and none can be read; BmcError when the collection cannot.
        """
        right = self.expansion.right.get(kind)
        if not kind or not self.expansion.offered or right is False:
            return (yield from self.members((yield from self.tree.members(uri)), parse))
        if right is None:
            members = yield from self.tree.members(uri)
            if members:  # an empty one teaches nothing
                self.expansion.right[kind] = yield from self._compared(uri, members, parse)
            return (yield from self.members(members, parse))
        try:
            members, inline = yield from self.tree.expanded(uri)
        except (BmcUnsupported, BmcRefused, BmcBroken):  # it was right once, and now it is not
            self.expansion.right[kind] = False
            return (yield from self.members((yield from self.tree.members(uri)), parse))
        return (yield from self.members(members, parse, inline))

    def _compared(self, uri: str, members: tuple[str, ...], parse: Parse[T]) -> Asking[bool]:
        """Has the expanded answer the same members, and are they equal to plain reads? Some lose members on the way."""
        try:
            found, inline = yield from self.tree.expanded(uri)
        except (BmcUnsupported, BmcRefused, BmcBroken):
            return False
        same = {uris.key(m) for m in found} == {uris.key(m) for m in members}
        return same and (yield from self._right(members, inline, parse))

    def _right(self, members: Iterable[str], inline: dict[str, Doc], parse: Parse[T]) -> Asking[bool]:
        """Equal to plain reads, member by member? One that cannot be read plainly says nothing."""
        compared = 0
        for uri in members:
            doc = inline.get(uris.key(uri))
            try:
                plain = yield from self.tree.read(uri)
            except BmcError:
                continue
            if doc is None or not _equal(plain, doc, parse):
                return False
            compared += 1
        return compared > 0

    def members(
        self, members: Iterable[str], parse: Parse[T], inline: dict[str, Doc] | None = None
    ) -> Asking[tuple[T, ...]]:
        """Raises the first trouble when there are members and none can be read."""
        found: list[T] = []
        trouble: Exception | None = None
        read = 0
        for uri in members:
            try:
                doc = inline.get(uris.key(uri)) if inline else None
                if doc is None:
                    doc = yield from self.tree.read(uri)
                read += 1
                part = parse(doc)
            except Exception as exc:  # noqa: BLE001  an odd member must cost itself
                trouble = trouble or exc
                self.gaps.append(unknown(exc, uri))
            else:
                if part is not None:
                    found.append(part)
        if trouble is not None and not read:
            raise trouble
        return tuple(found)

    def docs(self, members: Iterable[str]) -> Asking[list[Doc]]:
        """Those that can be read; the others go to `gaps`."""
        found = []
        for uri in members:
            try:
                found.append((yield from self.tree.read(uri)))
            except Exception as exc:  # noqa: BLE001  as above
                self.gaps.append(unknown(exc, uri))
        return found


def _equal(one: Doc, other: Doc, parse: Parse[T]) -> bool:
    try:
        return parse(one) == parse(other)
    except Exception:  # noqa: BLE001  a document that cannot be parsed proves nothing for the other
        return False
