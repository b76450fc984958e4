"""Names and values of an HTTP answer as they came; looked up by name in any letter case (RFC 9110, 5.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


class Headers(Mapping[str, str]):
    """Nothing is decoded before somebody asks: most answers are read for their body alone."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs

    def __getitem__(self, name: str) -> str:
        wanted = name.lower().encode("latin-1", "replace")
        for key, value in self._pairs:
            if key.lower() == wanted:
                return value.decode("latin-1")
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter({key.lower().decode("latin-1"): None for key, _ in self._pairs})

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def __len__(self) -> int:
        return len({key.lower() for key, _ in self._pairs})
