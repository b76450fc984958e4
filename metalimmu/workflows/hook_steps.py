"""Hooks of a run: before anything is written, after all is proven and healthy, and back when the run does not go on.

Each call is an event of the run: one before it begins (the intent) and one when it has ended. So a run that is taken up
again repeats only the call that was under way, with the same key: a hook runs at least once, and the key tells it that
it has run before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from metalimmu.desired.hooks import Hook, Undo
from metalimmu.engine.durable import Interrupted
from metalimmu.errors import HookFailed
from metalimmu.workflows import switch_end
from metalimmu.workflows.calls import Answer, Numbered, Phase, numbered, occasion
from metalimmu.workflows.context import Context
from metalimmu.workflows.step import Evidence, Step

KIND = "hook"  # of the events

_SHOWN = 100  # characters of one hook's words in the step's summary


@dataclass
class Past:
    """What the run's events say of one key."""

    attempts: int = 0
    ended: int = 0
    last: dict[str, Any] | None = None  # of the newest call that ended

    @property
    def done(self) -> bool:
        return self.last is not None and bool(self.last["good"])


def past(c: Context) -> dict[str, Past]:
    found: dict[str, Past] = {}
    for event in c.tools.store.history(c.host, run=c.run, kind=KIND):
        one = found.setdefault(str(event.data.get("key")), Past())
        if "good" in event.data:
            one.ended += 1
            one.last = event.data
        else:
            one.attempts += 1
    return found


class _Hooks(Step):
    phase: ClassVar[Literal["before", "after"]]
    advice: ClassVar[str]

    def observe(self, c: Context) -> Evidence | None:
        known = past(c)
        hooks = numbered(c, self.phase)
        if not all(known.get(h.key, Past()).done for h in hooks):
            return None
        said = [known[h.key].last or {} for h in hooks]
        summary = "; ".join(f"{s['hook']} {s['words']}"[:_SHOWN] for s in said)
        return {"summary": summary, "hooks": said}

    def act(self, c: Context) -> None:
        c.drop_bmc()  # a drain takes minutes: the session would only end by itself
        for hook in numbered(c, self.phase):
            if not past(c).get(hook.key, Past()).done:
                answer = _call(c, hook, hook.hook, hook.key, self.phase)
                c.notes.setdefault("hooks", []).append({"hook": hook.name, **answer.evidence})
                if not answer.good:
                    raise HookFailed(f"hook {hook.name} ({self.phase}): {answer.words}", hint=self.advice)
        c.notes.clear()  # the evidence has it all

    def undo(self, c: Context) -> None:
        """Of each hook that began, also of one that failed half-way, the newest first. Raises HookFailed."""
        known = past(c)
        problems = []
        for hook in reversed(numbered(c, self.phase)):
            undo = hook.undo
            if undo is None or hook.key not in known or known.get(_undo_key(hook), Past()).done:
                continue
            if undo.when == "untouched" and machine(c) != "untouched":
                c.event(KIND, f"undo of {hook.name} is left out: the machine is {machine(c)}")
                continue
            answer = _call(c, hook, undo, _undo_key(hook), "undo")
            if not answer.good:
                problems.append(f"undo of hook {hook.name}: {answer.words}")
        if problems:
            raise HookFailed("; ".join(problems))


class Drain(_Hooks):
    name = "drain"
    phase = "before"
    advice = "nothing was written; its output is in `metalimmu run show -o json`: mend the hook, and start again"


class Undrain(_Hooks):
    name = "undrain"
    phase = "after"
    advice = (
        "the new system is proven, and kept in quarantine since not all of the hooks behind it have run: do by hand what "
        "they do, then `metalimmu prove HOST`"
    )


def _undo_key(hook: Numbered) -> str:
    return f"{hook.key}/undo"


def _call(c: Context, hook: Numbered, call: Hook | Undo, key: str, phase: Phase) -> Answer:
    undo = phase == "undo"
    attempt = past(c).get(key, Past()).attempts + 1
    more = {"undoes": hook.phase, "machine": machine(c), "outcome": _outcome(c)} if undo else {}
    told = occasion(c, phase, hook.name, key=key, attempt=attempt, **more)
    what = f"undo of {hook.name}" if undo else f"{hook.name} ({phase})"
    c.check_fence()
    data = {"key": key, "hook": hook.name, "phase": phase, "attempt": attempt}
    c.tools.store.add_event(c.host, KIND, f"{what} begins", run=c.run, data=data, key=f"{key}#{attempt}")
    answer = c.tools.calls.hook(call, told, check=lambda: _stopped(c) if undo else c.check())
    data |= {"good": answer.good, "words": answer.words, "seconds": round(answer.seconds, 1), **answer.evidence}
    c.event(KIND, f"{what}: {answer.words}", **data)
    return answer


def _stopped(c: Context) -> None:
    """An undo is not cancelled: it is what cancelling does."""
    if c.tools.stop.is_set():
        raise Interrupted


def _outcome(c: Context) -> str:
    return "cancelled" if c.tools.store.run(c.run).cancel_requested else "failed"


def machine(c: Context) -> str:
    """How far the run has come: untouched, started, written or proven."""
    if c.spec.kind == "switch":
        return switch_end.machine(c)
    d = c.deployment()
    if d is None or not d.intent:
        return "untouched"
    if c.tools.store.host(c.host).proof_evidence.get("run") == c.run:
        return "proven"
    return "written" if d.check_in is not None else "started"
