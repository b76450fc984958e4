"""What a run of a switch needs from the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec
    from metalimmu.nos.ports import Nos
    from metalimmu.observed.switch import SwitchFacts
    from metalimmu.plan.pair import Around
    from metalimmu.plan.types import Plan


class SwitchTools(Protocol):
    def connect(self, spec: HostSpec, *, run: str, before_write: Callable[[], None], check: Callable[[], None]) -> Nos:
        """Nothing is sent before the first call. `check` is asked again and again while a command runs, and raises to end it."""
        ...

    def rehearse(self, run: str, plan: Plan) -> None:
        """Raises what `create` would raise: a secret of its config cannot be read, ..."""
        ...

    def create(self, run: str, plan: Plan, fence: int, before: dict[str, Any]) -> None:
        """The record that the boot service answers from. Doing it twice is the same as once."""
        ...

    def image_url(self, run: str) -> str:
        """Where a running NOS fetches the image for its second slot."""
        ...

    def around(self, spec: HostSpec, facts: SwitchFacts | None, *, run: str) -> Around:
        """Asks the peer now."""
        ...

    def backup(self, host: str, run: str, config: str) -> str:
        """Keep the running configuration. Returns where."""
        ...

    def kept(self, host: str, run: str) -> str:
        """What `backup` has kept; empty: there was none."""
        ...

    def config(self, run: str) -> str | None:
        """The config_db.json that this switch is served; None: it gets none."""
        ...

    def slot_of(self, host: str, digest: str) -> str:
        """The name that this image had in a slot of this switch; empty: it never had one."""
        ...

    def remember_slot(self, host: str, digest: str, slot: str) -> None: ...
