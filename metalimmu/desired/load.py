"""A folder of documents as one value, or everything that is wrong with it at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, TypeVar, get_args

import msgspec

from metalimmu import structs
from metalimmu.desired import checks, documents, table
from metalimmu.desired.collected import Collected, Placed, place
from metalimmu.desired.explain import explain
from metalimmu.desired.explain import got as words
from metalimmu.desired.problems import Problem, merged, quoted, visible
from metalimmu.desired.profile import Profile
from metalimmu.desired.profiles import by_name_only, shipped
from metalimmu.desired.types import Digest, Hold, Host, ImageName, Name, Pool, Role, Site, SiteDocs
from metalimmu.desired.waiver import Waiver
from metalimmu.errors import SiteError

_NAME = re.compile(get_args(Name)[1].pattern)
_MAX_TEMPLATE = 1 << 20

D = TypeVar("D", bound=msgspec.Struct)


class Examined(NamedTuple):
    docs: SiteDocs | None  # of what could be read; None without a site.yaml. Only without problems is it the site
    problems: list[Problem]
    found: Collected  # for the places of values


def load(folder: Path) -> SiteDocs:
    """The site's documents. Raises SiteError with all problems, one line each; nothing else, whatever the files hold."""
    docs, problems, _ = examine(folder)
    if docs is None or problems:
        raise site_error(folder, problems)
    return docs


def site_error(folder: Path, problems: list[Problem]) -> SiteError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return SiteError(f"{count} in the site {folder}", problems=tuple(str(p) for p in problems))


def examine(folder: Path) -> Examined:
    """Like `load`, with the problems as values, in the order of files and lines."""
    found = Collected()
    found.site = _document(found, folder, "site.yaml", Site, required=True)
    found.roles, found.role_names = _folder(found, folder, "roles", Role)
    found.pools, found.pool_names = _folder(found, folder, "pools", Pool)
    found.profiles, found.profile_names = _folder(found, folder, "profiles", Profile)
    found.profile_names |= shipped().keys()
    _templates(found, folder)
    _hosts(found, folder)
    _lock(found, folder)
    _holds(found, folder)
    _waivers(found, folder)
    found.problems += checks.run(found, folder)
    order = {p: (p.file != "site.yaml", p.file, p.line) for p in found.problems}
    problems = merged(sorted(order, key=order.__getitem__))  # and each one once
    return Examined(_docs(found), problems, found)


def _docs(found: Collected) -> SiteDocs | None:
    if found.site is None:
        return None
    return SiteDocs(
        site=found.site.value,
        hosts={h.value.name: h.value for h in found.hosts},
        roles={n: r.value for n, r in found.roles.items()},
        pools={n: p.value for n, p in found.pools.items()},
        profiles={
            **{n: by_name_only(p) for n, p in shipped().items()},
            **{n: p.value for n, p in found.profiles.items()},
        },
        lock=found.lock.value if found.lock else {},
        holds={h.value.host: h.value for h in found.holds},
        waivers=tuple(w.value for w in found.waivers),
        templates=found.templates,
        files={
            **{("host", h.value.name): h.source.file for h in found.hosts},
            **{("role", n): r.source.file for n, r in found.roles.items()},
            **{("pool", n): p.source.file for n, p in found.pools.items()},
            **{("profile", n): p.source.file for n, p in found.profiles.items()},
        },
    )


def _read(found: Collected, folder: Path, file: str, limit: int = documents.MAX_BYTES) -> bytes | None:
    path = folder / file
    try:
        if not path.is_file():  # a pipe would block, a folder cannot be read
            raise IsADirectoryError(0, "not a regular file")
        size = path.stat().st_size
        if size > limit:
            got = f"{size >> 20} MiB"
            found.problems.append(
                Problem(file, 1, "", f"at most {limit >> 20} MiB", got, "split it into several files")
            )
            return None
        return path.read_bytes()
    except OSError as exc:
        found.problems.append(
            Problem(file, 1, "", "a file that can be read", str(exc.strerror), "check its permissions")
        )
        return None


def _document(found: Collected, folder: Path, file: str, kind: type[D], *, required: bool = False) -> Placed[D] | None:
    if required and not (folder / file).exists():
        found.problems.append(
            Problem(file, 1, "", "the file", "no such file", f"`metalimmu init {folder}` makes a site")
        )
        return None
    data = _read(found, folder, file)
    if data is None:
        return None
    before = len(found.problems)
    source, value = documents.parse(file, data, found.problems)
    if value is None and len(found.problems) > before:
        return None
    return place(source, {} if value is None else value, kind, (), found.problems)


def _files(found: Collected, folder: Path, name: str, *suffixes: str) -> list[str]:
    """Files of a folder by suffix, sorted. A .yml is named: it would be left out in silence."""
    try:
        entries = sorted(p.name for p in (folder / name).iterdir()) if (folder / name).exists() else []
    except OSError as exc:
        found.problems.append(
            Problem(name, 1, "", "a folder that can be read", str(exc.strerror), "check its permissions")
        )
        return []
    for entry in entries:
        if entry.endswith((".yml", ".json")) and not entry.startswith("."):
            write = f"rename it to {visible(entry.rpartition('.')[0])}.yaml"
            found.problems.append(
                Problem(f"{name}/{visible(entry)}", 1, "", " or ".join(suffixes), "a file left out", write)
            )
    return [f"{name}/{e}" for e in entries if e.endswith(suffixes) and not e.startswith(".")]


def _folder(found: Collected, folder: Path, name: str, kind: type[D]) -> tuple[dict[str, Placed[D]], set[str]]:
    """Documents of one kind; the file's name is the document's."""
    documents_: dict[str, Placed[D]] = {}
    names: set[str] = set()
    for file in _files(found, folder, name, ".yaml"):
        stem = file.rpartition("/")[2].removesuffix(".yaml")
        names.add(stem)
        if not _NAME.search(stem):
            expected = "a file name of lower case, digits, . _ -"
            found.problems.append(Problem(visible(file), 1, "", expected, quoted(stem), "rename the file"))
        document = _document(found, folder, file, kind)
        if document is not None:
            documents_[stem] = document
    return documents_, names


def _templates(found: Collected, folder: Path) -> None:
    """Templates by path under templates/; folders within it are allowed."""
    top = folder / "templates"
    for path in sorted(p for p in top.rglob("*") if p.is_file() and not p.name.startswith(".")):
        name = path.relative_to(top).as_posix()
        found.template_names.add(name)
        data = _read(found, folder, f"templates/{name}", _MAX_TEMPLATE)
        if data is None:
            continue
        try:
            found.templates[name] = data.decode()
        except UnicodeDecodeError as exc:
            line = data.count(b"\n", 0, exc.start) + 1
            bad = f"the byte 0x{data[exc.start]:02x}"
            found.problems.append(
                Problem(f"templates/{visible(name)}", line, "", "UTF-8 text", bad, "save it as UTF-8")
            )


def _hosts(found: Collected, folder: Path) -> None:
    for file in _files(found, folder, "hosts", ".yaml", ".csv"):
        data = _read(found, folder, file)
        if data is None:
            found.unread_hosts = True
            continue
        before = len(found.problems)
        value: object
        if file.endswith(".csv"):
            source, value = table.parse(file, data, found.problems)
        else:
            source, value = documents.parse(file, data, found.problems, hosts=True)
        found.unread_hosts |= len(found.problems) > before
        if isinstance(value, list):
            _host_list(found, source, value)
        elif isinstance(value, dict):
            _add_host(found, place(source, value, Host, (), found.problems))
        elif value is not None:
            got = words(source.node(()))
            found.problems.append(
                source.problem((), "a list of hosts, or one host", got, "write - {name: ..., bmc: ...}")
            )
            found.unread_hosts = True


def _host_list(found: Collected, source: documents.Source, value: list[object]) -> None:
    try:
        found.hosts += [Placed(h, source, (i,)) for i, h in enumerate(structs.convert(value, list[Host]))]
    except (msgspec.ValidationError, RecursionError):
        for i, item in enumerate(value):
            _add_host(found, place(source, item, Host, (i,), found.problems))


def _add_host(found: Collected, host: Placed[Host] | None) -> None:
    if host is None:
        found.unread_hosts = True
    else:
        found.hosts.append(host)


def _lock(found: Collected, folder: Path) -> None:
    if not (folder / "images.lock").exists() or (data := _read(found, folder, "images.lock")) is None:
        return
    source, value = documents.parse("images.lock", data, found.problems)
    try:
        found.lock = Placed(structs.convert(value or {}, dict[ImageName, Digest]), source)
    except (msgspec.ValidationError, RecursionError) as exc:
        found.problems += explain(source, dict[ImageName, Digest], error=str(exc))


def _holds(found: Collected, folder: Path) -> None:
    found.holds += _list(found, folder, "holds.yaml", Hold, "write - {host: ..., image: ...}")


def _waivers(found: Collected, folder: Path) -> None:
    found.waivers += _list(found, folder, "waivers.yaml", Waiver, "write - {hosts: [...], setting: ...}")


def _list(found: Collected, folder: Path, file: str, kind: type[D], write: str) -> list[Placed[D]]:
    """A document that is a list; it need not be there."""
    if not (folder / file).exists() or (data := _read(found, folder, file)) is None:
        return []
    source, value = documents.parse(file, data, found.problems)
    if not isinstance(value or [], list):
        expected = f"a list of {file.removesuffix('.yaml')}"
        found.problems.append(source.problem((), expected, words(source.node(())), write))
        return []
    placed = [place(source, item, kind, (i,), found.problems) for i, item in enumerate(value or [])]
    return [p for p in placed if p is not None]
