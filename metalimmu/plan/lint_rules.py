"""What a registry's dependencies forbid, hide, overwrite and order, for one wish of a profile. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from metalimmu.desired.problems import visible
from metalimmu.observed.registry import Attribute, Dependency
from metalimmu.plan.attribute import same, shown
from metalimmu.plan.dependencies import because
from metalimmu.plan.lint_state import Gravity, Remark, State, Wanted, remark


def read_only(state: State, one: Wanted, attribute: Attribute) -> Remark | None:
    if attribute.immutable:
        return remark("error", one, "a setting", "what the hardware is (immutable)", "leave it out")
    flag, by = state.rules.flag(one.attribute, "ReadOnly", state.planned)
    if by is not None and flag:
        return _read_only_while(state, one, attribute, by)
    if not attribute.read_only or by is not None or state.explained(one.attribute, "ReadOnly"):
        return None
    about = state.rules.about(one.attribute, "ReadOnly")
    if about and not state.known:
        names = ", ".join(dict.fromkeys(c.attribute for d in about for c in d.conditions))
        text = f"one that was read-only when the registry was read; {visible(names, 120)} decide"
        return remark("warning", one, "a writable attribute", text, "check with --against HOST")
    return remark("error", one, "a writable attribute", "a read-only one", "leave it out")


def _read_only_while(state: State, one: Wanted, attribute: Attribute, by: Dependency) -> Remark:
    why = because(by, state.planned)
    if state.follows(one, attribute):
        return remark("info", one, "a value to be set", f"one that follows: {why}", "nothing, or leave it out")
    if state.known and state.rules.holds(by, state.current) is False and not state.already(one):
        text = f"one that is read-only as soon as {why}"
        return remark("warning", one, "a writable attribute", text, "it is written first, in a step of its own")
    gravity: Gravity = "warning" if state.already(one) else "error"
    return remark(gravity, one, "a writable attribute", f"one that is read-only while {why}", _leave(by))


def unseen(state: State, one: Wanted, attribute: Attribute) -> Iterator[Remark]:
    here = one.attribute in state.current
    # Lenovo and HPE list and take what their menus hide; Dell and Supermicro neither.
    lost: Gravity = "error" if state.known and not here else "warning"
    hidden, by = state.rules.flag(one.attribute, "Hidden", state.planned)
    if by is not None and hidden:
        why = f"one that is hidden while {because(by, state.planned)}"
        yield remark(lost, one, "an attribute that is shown", why, _leave(by))
    elif attribute.hidden and by is None and not here and not state.explained(one.attribute, "Hidden"):
        yield remark(lost, one, "an attribute that is shown", "a hidden one", "leave it out for this machine")
    gray, by = state.rules.flag(one.attribute, "GrayOut", state.planned)
    if by is not None and gray and not state.already(one):
        why = f"one without effect while {because(by, state.planned)}"
        yield remark("warning", one, "an active attribute", why, _leave(by))


def forced(state: State, one: Wanted, attribute: Attribute) -> Iterator[Remark]:
    by = state.rules.forced(one.attribute, state.planned)
    if by is None or state.follows(one, attribute):
        return
    if state.rules.holds(by, state.current) and not same(attribute, state.current.get(one.attribute), by.value):
        return  # the machine shows that both go together
    own = all(c.attribute in state.chosen for c in by.conditions)
    yield remark(
        "error" if own else "warning",
        one,
        f"{shown(by.value)}, which comes with it that {because(by, state.planned)}",
        " or ".join(shown(v) for v in one.values),
        f"write {shown(by.value)}, or another value for {by.conditions[0].attribute}",
    )


def before(state: State) -> dict[str, set[str]]:
    """Attribute -> those that must be written before it. Only what a change of the plan decides: a condition that stays
    as it is orders nothing. What becomes read-only is written before, unless it follows anyhow.
    """
    found: dict[str, set[str]] = {}
    for name, one in state.chosen.items():
        attribute = state.registry.attributes.get(name)
        follows = attribute is not None and state.follows(one, attribute)
        for by in state.rules.by_target.get(name, ()) if attribute is not None else ():
            now, then = state.rules.holds(by, state.current), state.rules.holds(by, state.planned)
            if state.known and now is not None and now == then:
                continue
            deciders = {c.attribute for c in by.conditions if c.attribute in state.chosen} - {name}
            closes = state.known and now is False and then is True and by.property in ("ReadOnly", "Hidden")
            if closes and by.value is True and not follows:
                for other in deciders:
                    found.setdefault(other, set()).add(name)
            else:
                found.setdefault(name, set()).update(deciders)
    return found


def _leave(by: Dependency) -> str:
    return f"leave it out, or change {by.conditions[0].attribute}"
