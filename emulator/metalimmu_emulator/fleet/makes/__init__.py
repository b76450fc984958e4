"""The makes that a fleet can play. Each is built once per process, and shared by all machines that play it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from metalimmu_emulator.fleet import recording
from metalimmu_emulator.fleet.faults import Fault
from metalimmu_emulator.fleet.spec import MAKES
from metalimmu_emulator.fleet.template import Template


class Templates:
    def __init__(self) -> None:
        self._built: dict[str, Template] = {}

    def of(self, make: str) -> Template:
        """Of a make, or of a recording by its path. Raises UsageError."""
        if make not in self._built:
            self._built[make] = build(make)
        return self._built[make]


def build(make: str) -> Template:
    """Raises UsageError."""
    return _persona(make) if make in MAKES else recording.template(Path(make))


@cache
def _persona(make: str) -> Template:
    """Never changed once it is built, so the fleets of one process share it."""
    built: Callable[[], Template] = import_module(f"{__name__}.{make}").build
    return built()


def fault(name: str, parameters: dict[str, Any]) -> Fault:
    return Fault.of(name, parameters)
