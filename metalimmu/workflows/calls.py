"""What a site wants asked of the world outside: hooks and health checks, as the steps of a run see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from metalimmu.desired.hook_words import title
from metalimmu.desired.hooks import Hook, Undo, as_undo
from metalimmu.desired.render import address

if TYPE_CHECKING:
    from metalimmu.desired.types import Health, HostSpec
    from metalimmu.workflows.context import Context

Phase = Literal["before", "after", "undo", "health"]
Check = Callable[[], None]
"""Called a few times each second while something outside is waited for; it raises to end the wait."""


@dataclass(frozen=True)
class Occasion:
    """One call of a hook or check: what it is told beside the document."""

    spec: HostSpec
    phase: Phase
    name: str
    key: str  # the same when a call is repeated after a crash; empty for checks
    attempt: int
    facts: dict[str, str]  # run, verb, image, previous_image, ...: variables METALIMMU_...
    change: dict[str, Any]  # JSON for standard input, or for the body of a request


@dataclass(frozen=True)
class Answer:
    """`words` is one line for people; `evidence` is kept: bounded, cleaned, without secrets."""

    good: bool
    words: str
    seconds: float = 0.0
    evidence: dict[str, Any] = field(default_factory=dict)


class Calls(Protocol):
    def ready(self, spec: HostSpec) -> None:
        """Can all hooks and checks of this host be asked? Raises SecretError, TemplateError, HookFailed."""
        ...

    def hook(self, hook: Hook | Undo, occasion: Occasion, *, check: Check) -> Answer:
        """Do it, within its time limit. Raises SecretError, TemplateError, and what `check` raises."""
        ...

    def look(self, health: Health, occasion: Occasion, *, check: Check) -> Answer:
        """Look once, within its timeout. Raises SecretError, TemplateError, and what `check` raises."""
        ...


@dataclass(frozen=True)
class Numbered:
    """A hook of a run. Its key is the same whenever the run is taken up again."""

    hook: Hook
    phase: Literal["before", "after"]
    key: str
    name: str

    @property
    def undo(self) -> Undo | None:
        return None if self.hook.undo is None else as_undo(self.hook.undo)


def numbered(c: Context, phase: Literal["before", "after"]) -> list[Numbered]:
    hooks = c.spec.before if phase == "before" else c.spec.after
    names = [title(h) for h in hooks]
    return [Numbered(h, phase, f"{c.run}/{phase}/{i}-{n}", n) for i, (h, n) in enumerate(zip(hooks, names), 1)]  # noqa: B905


def occasion(c: Context, phase: Phase, name: str, *, key: str = "", attempt: int = 1, **more: str) -> Occasion:
    """`more`: facts of this occasion alone."""
    plan = c.plan
    facts = {"run": c.run, "verb": plan.verb, "serial": c.spec.serial or plan.identity.serial, **more}
    before = (plan.previous, plan.previous_digest)
    return told(c.spec, phase, name, (plan.image.ref, plan.image.digest), before, key=key, attempt=attempt, **facts)


def told(
    spec: HostSpec,
    phase: Phase,
    name: str,
    image: tuple[str | None, str | None],
    before: tuple[str | None, str | None] = (None, None),
    *,
    key: str = "",
    attempt: int = 1,
    **more: str,
) -> Occasion:
    """`image` and `before`: name@version and digest."""
    facts = {
        "run": "",
        "verb": "",
        "host": spec.name,
        "serial": spec.serial or "",
        "address": address(spec),
        "pool": spec.pool or "",
        "role": spec.role or "",
        "image": image[0] or "",
        "previous_image": before[0] or "",
        "phase": phase,
        "hook": name,
        "hook_key": key,
        "attempt": str(attempt),
        **more,
    }
    change = {
        **facts,
        "format": 1,
        "attempt": attempt,
        "image": {"name": image[0], "digest": image[1]} if image[0] else None,
        "previous_image": {"name": before[0], "digest": before[1]} if before[0] else None,
        "labels": spec.labels,
        "vars": spec.vars,
    }
    return Occasion(spec=spec, phase=phase, name=name, key=key, attempt=attempt, facts=facts, change=change)
