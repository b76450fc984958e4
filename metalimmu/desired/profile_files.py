"""Profiles read from files, outside of a site too: one that is named, and all that it extends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from metalimmu import paths
from metalimmu.desired import documents
from metalimmu.desired.checks_profiles import document_problems
from metalimmu.desired.collected import Placed, place
from metalimmu.desired.explain import got as words
from metalimmu.desired.problems import Problem, nearest, quoted
from metalimmu.desired.profile import Profile, ResolvedProfile
from metalimmu.desired.profiles import parents, resolve
from metalimmu.errors import SiteError, UsageError

LARGEST = 4 << 20


class Read(NamedTuple):
    """`profile` and what it extends, by name; `files` says where each stands."""

    resolved: ResolvedProfile
    profiles: Mapping[str, Profile]
    files: dict[str, str]

    @property
    def profile(self) -> Profile:
        return self.profiles[self.resolved.name]


def read(file: Path, site: Path | None = None) -> Read:
    """What `file` extends stands beside it, in the site's profiles/, or ships with metalimmu. Raises SiteError with all problems; UsageError when
    the file itself cannot be read.
    """
    if not file.is_file():
        raise UsageError(f"there is no profile {file}", hint="name a file, or see `metalimmu profile list`")
    problems: list[Problem] = []
    placed: dict[str, Placed[Profile]] = {}
    folders = [file.parent, *([site / "profiles"] if site else []), paths.data("profiles")]
    _read(file, folders, placed, problems)
    if problems:
        raise _refused(file, problems)
    profiles = {name: p.value for name, p in placed.items()}
    lines = {name: p.source.key_line for name, p in placed.items()}
    resolved = resolve(profiles, file.stem, lines=lines)
    return Read(resolved, profiles, {name: p.source.file for name, p in placed.items()})


def _read(file: Path, folders: Sequence[Path], placed: dict[str, Placed[Profile]], problems: list[Problem]) -> None:
    found = document(file, problems)
    if found is None:
        return
    placed[file.stem] = found
    problems += document_problems(found)
    for parent in parents(found.value):
        if parent in placed:
            continue
        above = _find(parent, folders)
        if above is None:
            known = [p.stem for folder in folders for p in folder.glob("*.yaml")]
            write = nearest(parent, known, none="remove this line")
            problems.append(found.problem(("extends",), "the name of a profile", quoted(parent), write))
        else:
            _read(above, folders, placed, problems)


def find(name: str, site: Path | None = None) -> Path | None:
    """The site's profiles/NAME.yaml, or one that ships."""
    return _find(name, [*([site / "profiles"] if site else []), paths.data("profiles")])


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    return next((p for f in folders if (p := f / f"{name}.yaml").is_file()), None)


def document(file: Path, problems: list[Problem]) -> Placed[Profile] | None:
    """One file as a struct with its places; what is wrong is in `problems`."""
    shown = str(file)
    try:
        data = file.read_bytes()
    except OSError as exc:
        problems.append(Problem(shown, 1, "", "a file that can be read", exc.strerror or "an error", "mend its mode"))
        return None
    if len(data) > LARGEST:
        problems.append(Problem(shown, 1, "", "a profile of a sane size", f"{len(data)} bytes", "split it"))
        return None
    source, value = documents.parse(shown, data, problems)
    if value is None and any(p.file == shown for p in problems):
        return None
    if not isinstance(value or {}, dict):
        problems.append(source.problem((), "fields and values", words(source.node(())), "write bios: {...}"))
        return None
    return place(source, value or {}, Profile, (), problems)


def _refused(file: Path, problems: list[Problem]) -> SiteError:
    each = sorted(dict.fromkeys(problems), key=lambda p: (p.file != str(file), p.file, p.line))
    count = "1 problem" if len(each) == 1 else f"{len(each)} problems"
    return SiteError(f"{count} in the profile {file}", problems=tuple(str(p) for p in each), hint="mend the profile")
