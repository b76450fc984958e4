"""Reads the host documents of a folder, merges what was found, writes the result back: for a person to review and commit."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

from metalimmu.desired.edit import locked, replace
from metalimmu.desired.merge import Candidate, Merged, merge
from metalimmu.errors import UsageError


def review(folder: Path, target: str, candidates: Iterable[Candidate], *, write: bool = True) -> Merged:
    """`target` is relative to `folder`. In a site (a folder with site.yaml) all of hosts/ is looked at, elsewhere `target`
    alone. With `write` false nothing is written, and the texts say what would be.

    Raises SiteError for documents that cannot be read, UsageError for a target that cannot be one.
    """
    path = folder / target
    if path.suffix != ".yaml":
        raise UsageError(f"{path}: new hosts are written as YAML", hint="name a file that ends with .yaml")
    try:
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder) if folder.is_dir() else nullcontext():
            found = merge(_documents(folder, target), target, candidates)
            if write:
                for file, text in found.files.items():
                    replace(folder / file, text)
    except OSError as exc:
        raise UsageError(
            f"{exc.filename or path} cannot be read or written: {exc.strerror}", hint="choose another --write FILE"
        ) from exc
    return found


def _documents(folder: Path, target: str) -> dict[str, bytes]:
    names = {target}
    if (folder / "site.yaml").is_file() and (folder / "hosts").is_dir():
        files = (
            p for p in (folder / "hosts").iterdir() if p.suffix in (".yaml", ".csv") and not p.name.startswith(".")
        )
        names |= {f"hosts/{p.name}" for p in files}
    return {name: (folder / name).read_bytes() for name in sorted(names) if (folder / name).is_file()}
