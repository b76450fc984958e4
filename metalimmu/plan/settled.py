"""Is a reimaged switch what it must be, and is around it what was around it before? Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from metalimmu.observed.switch import Neighbour, SwitchFacts
from metalimmu.plan.types import ImageFacts

_SHOWN = 5


def wrong(
    facts: SwitchFacts,
    image: ImageFacts,
    before: SwitchFacts | None,
    *,
    config: str | None,
    kept: str = "",
    slot: str = "",
) -> list[str]:
    """A line for each thing that is not as it must be. `before`: None where the old NOS could not be asked. `config`: what
    it was served; None: nothing. `kept`: what it had before and must have still; empty: nothing. `slot`: the one that must run.
    """
    said = [*_nos(facts, image), *_onie(facts)]
    if slot and (facts.slots is None or facts.slots.current != slot):
        said.append(f"it runs {facts.slots.current if facts.slots else 'no slot that it names'}, not {slot}")
    if config is not None:
        said += differing(config, facts.config)
    if kept.strip():
        said += lost(kept, facts.config)
    if before is not None:
        said += _around(facts, before)
    return said


def _nos(facts: SwitchFacts, image: ImageFacts) -> list[str]:
    nos = image.nos
    if nos is None:
        return [f"{image.ref} is no image of a switch"]
    said = []
    if (facts.nos, facts.version) != (nos.nos, nos.version):
        said.append(f"it runs {facts.nos} {facts.version}, not {nos.nos} {nos.version}")
    if image.build_id and facts.build_id != image.build_id:
        said.append(f"its build is {facts.build_id or 'not said'}, not {image.build_id}")
    return said


def _onie(facts: SwitchFacts) -> list[str]:
    """ONIE must know that a NOS is there, and must not install again at a stray boot into it."""
    said = []
    if facts.nos_mode != "yes":
        said.append(f"ONIE's NOS mode is {facts.nos_mode or facts.unknown.get('nos_mode', 'not said')}, not yes")
    if facts.onie_mode == "install":
        said.append("ONIE would install again")
    return said


def _around(facts: SwitchFacts, before: SwitchFacts) -> list[str]:
    said = []
    same = facts.nos == before.nos  # another NOS names its ports otherwise
    gone = sorted(_neighbours(before.neighbours, same) - _neighbours(facts.neighbours, same))
    if gone:
        said.append(f"neighbours that are missing: {_few(gone)}")
    down = [p for p, state in before.links.items() if same and state == "up" and facts.links.get(p) != "up"]
    if down:
        said.append(f"ports that were up and are not: {_few(sorted(down))}")
    if before.pair is not None and before.pair.alive:
        if facts.pair is None:
            said.append(f"its pair: {facts.unknown.get('pair', 'it has none')}")
        elif not facts.pair.alive:
            said.append("the session with its peer is down")
        else:
            was = {b.name for b in before.pair.bonds if b.up and b.dual} if same else set()
            now = {b.name for b in facts.pair.bonds if b.up and b.dual}
            if lost := sorted(was - now):
                said.append(f"bonds that both carried and do not: {_few(lost)}")
    return said


def _neighbours(found: tuple[Neighbour, ...], ports: bool) -> set[str]:
    return {str(n) if ports else f"{n.system} {n.remote_port}".strip() for n in found}


def differing(wanted: str, seen: str) -> list[str]:
    """What is served must be there; a NOS adds tables of its own."""
    try:
        want, have = json.loads(wanted), json.loads(seen) if seen.strip() else None
    except ValueError as exc:
        return [f"its config is no JSON: {exc}"]
    if have is None:
        return ["its config cannot be read"]
    lost = _lost(want, have, "")
    return [f"its config differs in: {_few(lost)}"] if lost else []


_SCHEMA = "VERSIONS"  # the table in which SONiC's db_migrator says to which schema it has brought the config


def lost(before: str, now: str) -> list[str]:
    """What an upgrade has taken from a config that stays where it is. One that brings it to another schema says so and may
    write values anew; whole tables it must not lose.
    """
    if config_hash(before) == config_hash(now):
        return []
    if not now.strip():
        return ["its config is gone, or cannot be read"]
    try:
        was, have = json.loads(before), json.loads(now)
    except ValueError:
        return ["its config is not the one from before"]
    if not isinstance(was, dict) or not isinstance(have, dict):
        return ["its config is not the one from before"]
    if was.get(_SCHEMA) == have.get(_SCHEMA):
        gone = _lost(was, have, "")
    else:
        gone = [str(t) for t, rows in was.items() if rows and t not in have]
    return [f"its config is not the one from before in: {_few(gone)}"] if gone else []


def config_hash(config: str) -> str:
    """SHA-256 (hex) over the config in one form, whatever order its keys are printed in; empty: there is none."""
    if not config.strip():
        return ""
    try:
        text = json.dumps(json.loads(config), sort_keys=True, separators=(",", ":"))
    except ValueError:
        text = config.strip()
    return hashlib.sha256(text.encode()).hexdigest()


def _lost(want: Any, have: Any, where: str) -> list[str]:
    """Places, never values: a config has secrets."""
    if isinstance(want, dict) and isinstance(have, dict):
        return [p for k, v in want.items() for p in _lost(v, have.get(k), f"{where}|{k}" if where else str(k))]
    return [] if want == have else [where or "all of it"]


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
