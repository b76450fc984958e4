"""`-l key=value[,key=value]`: one selector everywhere. Terms are joined by and.

``key=value``   the label is that, or fits it where it has * or ?; `image=web` is any version of web, `image=web@2` that one
``key!=value``  it is not that, or not there
``key``         it is there
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from metalimmu.desired.types import HostSpec
from metalimmu.errors import UsageError

_TERM = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._/-]*)\s*(?:(!=|==?)\s*(.*?))?\s*\Z")


class Term(NamedTuple):
    key: str
    value: str | None  # None: any
    equal: bool = True

    def fits(self, labels: Mapping[str, str]) -> bool:
        actual = labels.get(self.key)
        if self.value is None:
            return actual is not None
        if self.key == "image" and actual is not None and "@" not in self.value:
            actual = actual.partition("@")[0]
        if actual is not None and {"*", "?"} & set(self.value):
            return fnmatchcase(actual.casefold(), self.value.casefold()) is self.equal
        return (actual == self.value) is self.equal


def parse(expression: str) -> tuple[Term, ...]:
    """Raises UsageError. An empty expression selects nothing by mistake or everything by mistake: it is an error."""
    terms = []
    for part in expression.split(","):
        match = _TERM.match(part)
        if not match or (match[2] and not match[3]):
            raise UsageError(
                f"selector {expression!r}: {part!r} is no key=value, key!=value or key",
                hint="for example -l role=web,rack=r12",
            )
        terms.append(Term(match[1], match[3], match[2] != "!="))
    return tuple(terms)


def matches(labels: Mapping[str, str], expression: str) -> bool:
    return all(t.fits(labels) for t in parse(expression))


def select(
    specs: Iterable[HostSpec], expression: str, *, more: Mapping[str, Mapping[str, str]] | None = None
) -> list[HostSpec]:
    """Those that fit. `more` adds, by host name, what only the store knows (image, state, proof); it wins over the spec's.

    Without it `image` is the image that the host should have.
    """
    terms = parse(expression)
    known = more or {}
    return [s for s in specs if all(t.fits({**labels(s), **known.get(s.name, {})}) for t in terms)]


def labels(spec: HostSpec) -> dict[str, str]:
    """The host's labels and its wanted image."""
    return {**spec.labels, "image": spec.image} if spec.image else spec.labels
