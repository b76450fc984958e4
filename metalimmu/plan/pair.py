"""May this switch of an MLAG pair be taken away? Pure, and asked three times: for the plan, before a run's first act, and
right before the switch is restarted.

The hosts behind a pair live on through the other switch, so that one must really carry them: reachable is not enough,
its session with this one must be up, and so must every bond that both carry. What nobody says counts as not so.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from metalimmu.observed.switch import Bond, Pair, SwitchFacts
from metalimmu.plan.identity import same_serial
from metalimmu.plan.types import Finding, Word


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """What is known around one switch."""

    name: str
    peer: str | None  # the other switch of the pair, as the documents say; None: it has none
    facts: SwitchFacts | None  # None: its NOS does not answer
    peer_facts: SwitchFacts | None = None
    peer_serial: str | None = None  # of the peer's document, as the next
    peer_base_mac: str = ""
    peer_why: str = ""  # why the peer's facts are missing
    peer_busy: str = ""  # the run that works on the peer
    peer_quarantine: str = ""
    single_homed: tuple[str, ...] = ()  # hosts of the site that hang on this switch alone
    controller_leaves: tuple[str, ...] = ()  # switches that the controller hangs on, where the site says so
    idle: bool = False  # it carries nothing: no NOS answers, and none that we have installed is known to be there


def findings(around: Around) -> tuple[Finding, ...]:
    """One for each thing that must hold. All but `match` forbid the run.

    Of an idle switch nothing can be lost, whatever its peer is; else the first of a pair could never be installed. Two at
    once may still not go: a run on the peer forbids it.
    """
    found = [_controller(around)]
    own = around.facts.pair if around.facts else None
    if around.peer is None:
        if own is not None:
            said = "a session with a peer" if own.alive else "a pair without its session"
            found.append(_finding("pair", Word.differs, "no pair, as its document says", said, "set switch.peer"))
        return tuple(found)
    if around.idle:
        return (*found, *_busy(around, around.peer), _finding("pair", Word.match, "nothing hangs on it", "it is idle"))
    found += _peer(around, around.peer)
    if around.facts is not None:
        why = around.facts.unknown.get("pair", "")
        found += _own(own, why)
    return tuple(found)


FORBIDS = ("pair", "path", "identity", "memory", "config")  # how the names of those findings begin that forbid a run


def wrong(found: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(f for f in found if f.word is not Word.match)


def text(found: Sequence[Finding]) -> str:
    """One line for an error."""
    return "; ".join(f"{f.setting}: {f.actual or f.word}{f' ({f.reason})' if f.reason else ''}" for f in found)


def warnings(around: Around) -> list[str]:
    said = []
    if around.peer is None:
        said.append("it is no part of a pair: all that hangs on it is cut off while it is reimaged")
    elif around.idle:
        said.append(f"it carries nothing: {around.peer} was not asked about the pair")
    elif around.facts is None:
        said.append("its NOS does not answer: only its peer could be asked about the pair")
    if around.single_homed:
        said.append(f"cut off while it is reimaged, since they hang on it alone: {', '.join(around.single_homed)}")
    own = around.facts.pair.bonds if around.facts and around.facts.pair else ()
    if alone := [b.name for b in own if not b.dual and b.up]:
        said.append(f"cut off while it is reimaged, bonds that it alone carries: {', '.join(alone)}")
    bonds = around.peer_facts.pair.bonds if around.peer_facts and around.peer_facts.pair else ()
    if single := [b.name for b in bonds if not b.dual and b.up]:
        said.append(f"bonds that only {around.peer} carries already: {', '.join(single)}")
    return said


def _controller(around: Around) -> Finding:
    """Our own way must not lead through the ports that go away."""
    leaves = around.controller_leaves
    if around.name in leaves and around.peer not in leaves:
        actual = f"the controller hangs on {around.name} alone"
        return _finding("path", Word.differs, "another way for the controller", actual, "site.yaml, controller_leaves")
    if around.facts is None:
        return _finding("path", Word.match, "by its management port", "not through it: its NOS does not answer")
    port, mgmt = around.facts.controller_port, around.facts.mgmt_port
    if not port:
        return _finding("path", Word.unknown, mgmt, "", around.facts.unknown.get("route", "it does not say"))
    if port != mgmt:
        return _finding("path", Word.differs, mgmt, port, "the controller's own path goes through this switch")
    return _finding("path", Word.match, mgmt, port)


def _peer(around: Around, peer: str) -> list[Finding]:
    found = _busy(around, peer)
    if around.peer_quarantine:
        found.append(
            _finding("pair.state", Word.differs, f"{peer} in service", f"quarantine: {around.peer_quarantine}")
        )
    facts = around.peer_facts
    if facts is None:
        why = around.peer_why or "it does not answer"
        found.append(_finding("pair.peer", Word.unknown, f"{peer} answers by SSH", "no answer", why))
        return found
    found.append(_finding("pair.peer", Word.match, f"{peer} answers by SSH", f"{facts.nos} {facts.version}"))
    found += _identity(around, peer, facts)
    if facts.traffic not in ("", "normal"):
        found.append(_finding("pair.traffic", Word.differs, f"{peer} carries traffic", facts.traffic))
    pair = facts.pair
    if pair is None:
        why = facts.unknown.get("pair", "it has none")
        found.append(_finding("pair.session", Word.unknown, f"{peer} has a session", "", why))
        return found
    if around.facts is not None:  # a switch that is gone has no session with anybody
        found += _session(f"{peer}'s", pair)
    own = around.facts.pair if around.facts else None
    found.append(_bonds(peer, pair.bonds, own.bonds if own else None))
    return found


def _identity(around: Around, peer: str, facts: SwitchFacts) -> list[Finding]:
    """What answers at the peer's address must be the peer: with our own address there, we would ask ourselves."""
    found = []
    if around.peer_serial and not same_serial(facts.serial, around.peer_serial):
        found.append(("serial", around.peer_serial, facts.serial, facts.unknown.get("serial", "")))
    if around.peer_base_mac and facts.base_mac != around.peer_base_mac:
        found.append(("base MAC", around.peer_base_mac, facts.base_mac, facts.unknown.get("base_mac", "")))
    return [
        _finding(
            "pair.identity",
            Word.differs if seen else Word.unknown,
            f"{peer}'s {what} is {wanted}",
            f"the {what} of what answers as {peer} is {seen or 'not said'}, not {wanted}",
            why,
        )
        for what, wanted, seen, why in found
    ]


def _busy(around: Around, peer: str) -> list[Finding]:
    return [_finding("pair.run", Word.differs, f"no run on {peer}", around.peer_busy)] if around.peer_busy else []


def _own(pair: Pair | None, why: str) -> list[Finding]:
    if pair is None:
        return [_finding("pair.own", Word.unknown, "a session with its peer", "", why or "it has none")]
    return _session("its own", pair)


def _session(whose: str, pair: Pair) -> list[Finding]:
    found = [_is("pair.session", f"{whose} session", pair.alive)]
    if pair.backup is not None:
        found.append(_is("pair.backup", f"{whose} backup link", pair.backup))
    elif pair.has_backup:
        expected = f"{whose} backup link is up"
        found.append(_finding("pair.backup", Word.unknown, expected, f"{whose} backup link is not said"))
    if pair.link is not None:
        found.append(_is("pair.link", f"{whose} peer link", pair.link))
    return found


def _bonds(peer: str, bonds: Sequence[Bond], own: Sequence[Bond] | None) -> Finding:
    """Every bond that this switch carries must be up on the one that stays. `own` None: nobody can say what it carries.

    One that we have alone and the peer does not know is of a host that hangs on us alone: that is for `warnings`.
    """
    carried = None if own is None else {b.name for b in own if b.up}
    listed = {b.name for b in bonds}
    down = [b.name for b in bonds if not b.up and (carried is None or b.name in carried)]
    lost = [b.name for b in own or () if b.up and b.dual and b.name not in listed]
    if down or lost:
        said = [f"{what}: {', '.join(names)}" for what, names in (("down", down), ("unknown to it", lost)) if names]
        return _finding("pair.bonds", Word.differs, f"all bonds up on {peer}", "; ".join(said))
    return _finding("pair.bonds", Word.match, f"all bonds up on {peer}", f"{sum(b.up for b in bonds)} up")


def _is(setting: str, what: str, up: bool) -> Finding:
    word = Word.match if up else Word.differs
    return _finding(setting, word, f"{what} is up", f"{what} is {'up' if up else 'down'}")


def _finding(setting: str, word: Word, expected: str, actual: str, reason: str = "") -> Finding:
    return Finding(setting=setting, word=word, expected=expected, actual=actual, reason=reason)
