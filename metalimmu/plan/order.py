"""In which order settings must be written, because one decides whether or as what the other can be written. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

Edges = Mapping[str, set[str]]  # setting -> those that must be written before it


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`steps`: what may be written at once; each after all before it. `cycles`: settings that wait for each other."""

    steps: tuple[tuple[str, ...], ...] = ()
    cycles: tuple[tuple[str, ...], ...] = ()

    @property
    def matters(self) -> bool:
        return len(self.steps) > 1


def order(names: Iterable[str], before: Edges) -> Order:
    """A cycle is written at once, in one step: the BMC decides, and the operator is told."""
    every = list(dict.fromkeys(names))
    known = set(every)
    edges = {n: {b for b in before.get(n, ()) if b in known and b != n} for n in every}
    groups = _cycles(every, edges)
    home = {name: i for i, group in enumerate(groups) for name in group}
    level: dict[int, int] = {}
    for i, group in enumerate(groups):  # Tarjan gives a group after all that it waits for
        waits = {home[b] for name in group for b in edges[name]} - {i}
        level[i] = 1 + max((level[w] for w in waits), default=-1)
    steps: dict[int, list[str]] = {}
    for name in every:
        steps.setdefault(level[home[name]], []).append(name)
    position = {name: i for i, name in enumerate(every)}
    cycles = [tuple(sorted(g, key=position.__getitem__)) for g in groups if len(g) > 1]
    return Order(steps=tuple(tuple(steps[i]) for i in sorted(steps)), cycles=tuple(cycles))


def _cycles(names: list[str], edges: Edges) -> list[list[str]]:
    """Strongly connected components, each after all that it reaches (Tarjan 1972, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in names:
        if root in index:
            continue
        work = [(root, iter(sorted(edges[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            name, rest = work[-1]
            below = next(rest, None)
            if below is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    found.append(_popped(stack, on_stack, name))
            elif below not in index:
                index[below] = low[below] = len(index)
                stack.append(below)
                on_stack.add(below)
                work.append((below, iter(sorted(edges[below]))))
            elif below in on_stack:
                low[name] = min(low[name], index[below])
    return found


def _popped(stack: list[str], on_stack: set[str], name: str) -> list[str]:
    group: list[str] = []
    while True:
        top = stack.pop()
        on_stack.discard(top)
        group.append(top)
        if top == name:
            return group
