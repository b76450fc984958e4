"""A small commented site to begin with: the example that ships, under a name of its own, with schemas for editors."""

from __future__ import annotations

import json
import re
from pathlib import Path

from metalimmu import paths
from metalimmu.desired.schema import KINDS, schema
from metalimmu.errors import UsageError

# Git must not take the example's own .gitignore for one of this repository.
_RENAMED = {"gitignore": ".gitignore"}


def write_site(folder: Path) -> tuple[list[str], list[str]]:
    """Files written, and files that were there and stay as they are. Raises UsageError where a site is already."""
    if (folder / "site.yaml").exists():
        raise UsageError(f"{folder} has a site.yaml already", hint=f"`metalimmu check --site {folder}` looks at it")
    written, kept = [], []
    for name, text in contents(site_name(folder)).items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as out:  # x: never over a file that is there
                out.write(text)
        except FileExistsError:
            kept.append(name)
        except OSError as exc:
            raise UsageError(f"{path} cannot be written: {exc.strerror}", hint="choose another folder") from exc
        else:
            written.append(name)
    return written, kept


def contents(name: str) -> dict[str, str]:
    """File name -> text of a new site called `name`."""
    example = paths.data("profiles") / "example-site"
    files = {}
    for path in sorted(p for p in example.rglob("*") if p.is_file()):
        file = path.relative_to(example).as_posix()
        files[_RENAMED.get(file, file)] = path.read_text(encoding="utf-8")
    files["site.yaml"] = re.sub(r"(?m)^name: .*$", f"name: {name}", files["site.yaml"], count=1)
    files |= {f".schema/{kind}.json": json.dumps(schema(kind), indent=1) + "\n" for kind in KINDS}
    return files


def site_name(folder: Path) -> str:
    """The folder's name as a site's name may be."""
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.absolute().name.lower()).strip("._-")[:63].strip("._-")
    # Quoted where YAML would see something else than text: 2024, on, 1e3.
    return (f'"{name}"' if not re.match(r"[a-z]", name) or name in _WORDS else name) if name else "my-site"


_WORDS = {"on", "off", "yes", "no", "true", "false", "null", "y", "n"}
