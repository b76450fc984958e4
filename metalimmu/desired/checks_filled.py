"""Whether the templates of hooks and health checks render for each host. Apart from checks_hooks: only `check` needs Jinja2."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from metalimmu.desired.checks_hooks import SECRET, Document, calls
from metalimmu.desired.collected import Collected
from metalimmu.desired.hook_words import texts
from metalimmu.desired.problems import Path, Problem, listed
from metalimmu.desired.render import Filler
from metalimmu.desired.types import HostSpec


def unrendered(docs: Collected, specs: list[HostSpec]) -> list[Problem]:
    """Templates of hooks and checks that do not render, each fault once with the hosts that it hits."""
    wanted = {("pool", n): list(_templates(p)) for n, p in docs.pools.items()}
    wanted |= {("role", n): list(_templates(r)) for n, r in docs.roles.items()}
    hosts: dict[Problem, list[str]] = {}
    for spec in specs:
        for key in (("pool", spec.pool or ""), ("role", spec.role or "")):
            for placed, path, text in wanted.get(key, ()):
                secrets = dict.fromkeys(SECRET.findall(text), "***")
                _, wrong = Filler(spec, previous_image="", secrets=secrets).attempt(text)
                if wrong is not None:
                    said = placed.problem(path, wrong.expected, wrong.got, wrong.write)
                    hosts.setdefault(said, []).append(spec.name)
    return [msgspec.structs.replace(p, got=f"{p.got} (of {listed(names, 3)})") for p, names in hosts.items()]


def _templates(placed: Document) -> Iterator[tuple[Document, Path, str]]:
    for path, call in calls(placed.value):
        try:
            yield from ((placed, (*path, *field), text) for field, text, _ in texts(call) if "{" in text)
        except ValueError:  # said already
            continue
