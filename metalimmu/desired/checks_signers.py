"""Pools that want approvals, and the people who could give them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from metalimmu.desired.collected import Collected
from metalimmu.desired.problems import Problem
from metalimmu.desired.signers import FILE, MAX_BYTES, parse, people


def signer_problems(docs: Collected, root: Path) -> Iterator[Problem]:
    """A pool whose hosts nobody could ever reimage is a mistake, and so is a line that never counts."""
    signers, problems = parse(_text(root / FILE))
    yield from problems
    known = set(people(signers).values())
    for placed in docs.pools.values():
        wanted = placed.value.approvals
        if wanted and len(known) <= wanted:
            expected = f"at most one less than the people in {FILE}: the author signs too"
            got = f"{wanted} where {len(known) or 'nobody'} can sign"
            write = f"write a line for each person into {FILE}: NAME ssh-ed25519 AAAA…"
            yield placed.problem(("approvals",), expected, got, write)


def _text(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(MAX_BYTES).decode(errors="replace")
