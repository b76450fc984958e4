"""One resource as a BMC sent it, read with suspicion: a field of the wrong type is noted in `odd` and counts as absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metalimmu.bmc.answers import clean

LONGEST_LIST = 5000


class Doc:
    """`path` arguments go down nested objects: `doc.text("Boot", "BootSourceOverrideTarget")`."""

    __slots__ = ("data", "headers", "odd", "uri")

    def __init__(
        self,
        data: dict[str, Any],
        uri: str,
        odd: list[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data
        self.uri = uri
        self.headers = headers or {}
        self.odd: list[str] = [] if odd is None else odd

    def text(self, *path: str) -> str:
        """Empty when absent or null; cleaned of control characters, at most 600 characters."""
        value = self.data.get(path[0]) if len(path) == 1 else self.raw(*path)
        if isinstance(value, str):
            return clean(value)
        if value is not None:
            self._odd(path, "text", value)
        return ""

    def number(self, *path: str) -> int | None:
        value = self.raw(*path)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            self._odd(path, "a number", value)
            return None
        return value

    def flag(self, *path: str) -> bool | None:
        value = self.raw(*path)
        if value is not None and not isinstance(value, bool):
            self._odd(path, "true or false", value)
            return None
        return value

    def texts(self, *path: str) -> tuple[str, ...]:
        return tuple(clean(v) for v in self.items(*path) if isinstance(v, str))

    def items(self, *path: str) -> list[Any]:
        value = self.raw(*path)
        if value is None:
            return []
        if not isinstance(value, list):
            self._odd(path, "a list", value)
            return []
        return value[:LONGEST_LIST]

    def part(self, *path: str) -> Doc:
        """The nested object, or an empty one."""
        value = self.raw(*path)
        if value is not None and not isinstance(value, dict):
            self._odd(path, "an object", value)
        return Doc(value if isinstance(value, dict) else {}, self.uri, self.odd)

    def link(self, *path: str) -> str:
        """The `@odata.id` of a nested object, or empty."""
        return self.part(*path).text("@odata.id")

    def links(self, *path: str) -> tuple[str, ...]:
        found = (v.get("@odata.id") for v in self.items(*path) if isinstance(v, dict))
        return tuple(v for v in found if isinstance(v, str) and v)

    def has(self, *path: str) -> bool:
        """Present and not null."""
        return self.raw(*path) is not None

    def raw(self, *path: str) -> Any:
        value: Any = self.data
        for step in path:
            if not isinstance(value, dict):
                return None
            value = value.get(step)
        return value

    def _odd(self, path: tuple[str, ...], expected: str, value: object) -> None:
        self.odd.append(f"{'.'.join(path)}: expected {expected}, got {type(value).__name__}")
