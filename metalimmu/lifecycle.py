"""The life of a host: one table, one function that moves.

Power, error, proof, maintenance and quarantine stand beside the state and are never states themselves.
"""

from __future__ import annotations

from enum import StrEnum

from metalimmu.errors import MetalimmuError


class State(StrEnum):
    discovered = "discovered"  # seen, not in the site's documents
    enrolled = "enrolled"  # in the documents; nothing deployed by us yet
    deploying = "deploying"  # a run is, or was when it broke off, writing
    active = "active"  # carries an image and works
    retired = "retired"


class Proof(StrEnum):
    proven = "proven"
    unproven = "unproven"


MOVES: dict[State, frozenset[State]] = {
    State.discovered: frozenset({State.enrolled, State.retired}),
    State.enrolled: frozenset({State.deploying, State.retired}),
    State.deploying: frozenset({State.active, State.enrolled}),  # enrolled: given up before anything was written
    State.active: frozenset({State.deploying, State.retired}),
    State.retired: frozenset({State.enrolled}),
}


class IllegalMove(MetalimmuError):
    default_hint = "this is a fault in metalimmu, not in the machine: please report it with `metalimmu history HOST`"


def move(now: State, to: State) -> State:
    """`to`, or IllegalMove. Staying where one is is always allowed: recovery repeats."""
    if to is now or to in MOVES[now]:
        return to
    raise IllegalMove(f"a host that is {now} cannot become {to}")
