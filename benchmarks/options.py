"""How much is measured: set once by the command line, asked by every benchmark."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    quick: bool = False
    rounds: int | None = None

    def repeat(self, full: int, quick: int = 1) -> int:
        """How often a pair is measured: as asked, else `full`, or `quick` where speed does not matter."""
        return self.rounds or (quick if self.quick else full)


_CURRENT = Options()


def set_options(chosen: Options) -> None:
    global _CURRENT  # noqa: PLW0603 - one command line, one choice
    _CURRENT = chosen


def options() -> Options:
    return _CURRENT
