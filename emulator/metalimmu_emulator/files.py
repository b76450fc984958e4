"""Small files of a lab: messages as JSON, replaced in one step so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from metalimmu.errors import LabError
from metalimmu.wire import codec

T = TypeVar("T")


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    Path(temporary).replace(path)


def write_message(path: Path, message: Any, *, mode: int = 0o644) -> None:
    """A dataclass of the shapes that wire.codec allows."""
    write_text(path, codec.encode(message).decode(), mode=mode)


def read_message(cls: type[T], path: Path) -> T | None:
    """None when there is no such file. Raises LabError when it cannot be understood."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return codec.decode(cls, data)
    except codec.WireError as exc:
        raise LabError(f"{path} is damaged: {exc}", hint="end the lab's processes and remove its folder") from exc
