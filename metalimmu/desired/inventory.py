"""A bare list of BMCs, for a scan without a site: CSV with or without a header, or one address per line. Pure.

With a header, one column is named `bmc` or `address`; `name`, `system`, `credentials`, `rack` are used, others are not
looked at, so the hosts/*.csv of a site and exports of other tools do. Without one, the first cell of a line is the address.
A .yaml file has host documents, as `discover --write` makes them.
"""

from __future__ import annotations

import csv
import io
from urllib.parse import urlsplit

import msgspec

from metalimmu.desired import documents
from metalimmu.desired.collected import place
from metalimmu.desired.problems import Problem, visible
from metalimmu.desired.types import Host, Tls
from metalimmu.errors import SiteError

_ADDRESS = ("bmc", "address", "bmc_address", "bmc_ip", "oob_ip", "ip")
_NAME = ("name", "hostname", "host")
_RACK = ("rack", "location.rack")
_SCHEMES = ("redfish+https", "redfish+http", "redfish-raw+https", "ipmi")
MOST_PROBLEMS = 20


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    bmc: str  # redfish+https://ADDRESS[:PORT], or ipmi://
    system: str | None = None
    credentials: str | None = None
    rack: str | None = None
    tls: Tls | None = None  # of a host document: the certificate that was pinned


def parse(text: str, file: str = "inventory") -> list[Listed]:
    """Each BMC once. Raises SiteError with all problems, line by line."""
    if file.endswith((".yaml", ".yml")):
        return _unique(list({f"{one.bmc} {one.system or ''}": one for one in _documents(text, file)}.values()))
    lines = [(n, row) for n, row in _rows(text, file) if row and row[0][:1] != "#" and any(row)]
    header = [c.strip().lower() for c in lines[0][1]] if lines else []
    columns = {c: i for i, c in enumerate(header)} if set(header) & set(_ADDRESS) else None
    if len(lines) <= bool(columns):
        raise SiteError(f"{file} lists no BMC", hint="one address per line, or CSV with a column `bmc`")
    found: dict[str, Listed] = {}
    problems: list[str] = []
    for number, row in lines[1:] if columns else lines:
        try:
            one = _listed(row, columns or {"bmc": 0})
        except ValueError as exc:
            problems.append(f"{file}:{number}: {exc}")
            continue
        found.setdefault(f"{one.bmc} {one.system or ''}", one)
    if problems:
        more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        raise SiteError(
            f"{len(problems)} lines of {file} are no BMC",
            problems=(*problems[:MOST_PROBLEMS], *more),
            hint="write 10.0.0.1, 10.0.0.1:8443, redfish+https://ADDRESS or ipmi://ADDRESS",
        )
    return _unique(list(found.values()))


def _documents(text: str, file: str) -> list[Listed]:
    problems: list[Problem] = []
    source, value = documents.parse(file, text.encode(), problems, hosts=True)
    listed = value if isinstance(value, list) else [] if value is None else [value]
    paths: list[tuple[int, ...]] = [(i,) for i in range(len(listed))] if isinstance(value, list) else [()]
    placed = [place(source, item, Host, path, problems) for item, path in zip(listed, paths, strict=False)]
    if problems or not placed:
        raise SiteError(
            f"{file} has no list of hosts that can be read",
            problems=tuple(str(p) for p in problems),
            hint="`metalimmu discover --write FILE.yaml` makes one",
        )
    return [_host(p.value) for p in placed if p is not None]


def _host(host: Host) -> Listed:
    rack = host.location.rack if host.location else None
    return Listed(
        name=host.name, bmc=host.bmc, system=host.system, credentials=host.credentials, rack=rack, tls=host.tls
    )


def _rows(text: str, file: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    try:
        return [(reader.line_num, [c.strip() for c in row]) for row in reader]
    except csv.Error as exc:
        raise SiteError(f"{file}:{reader.line_num}: {exc}", hint="mend the quotes of this line") from exc


def _listed(row: list[str], columns: dict[str, int]) -> Listed:
    def get(*names: str) -> str:
        return next((row[i] for n in names if (i := columns.get(n)) is not None and i < len(row) and row[i]), "")

    bmc = address(get(*_ADDRESS))
    return Listed(
        name=get(*_NAME) or bmc.partition("://")[2].rstrip("/"),
        bmc=bmc,
        system=get("system") or None,
        credentials=get("credentials") or None,
        rack=get(*_RACK) or None,
    )


def address(text: str) -> str:
    """What a host document would say. Raises ValueError."""
    if not text:
        raise ValueError("no address")
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "redfish+https", f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    scheme = {"https": "redfish+https", "http": "redfish+http"}.get(scheme, scheme)
    try:
        parts = urlsplit(f"//{rest}")
        host, _port = parts.hostname, parts.port
    except ValueError as exc:
        raise ValueError(f"{visible(text)}: {exc}") from exc
    if scheme not in _SCHEMES or not host or any(c.isspace() for c in rest) or "@" in rest:
        raise ValueError(f"{visible(text)} is no address of a BMC")
    return f"{scheme}://{rest.partition('/')[0]}"


def _unique(found: list[Listed]) -> list[Listed]:
    """Names are what results are kept under: a second one of a name gets its address."""
    names: set[str] = set()
    out: list[Listed] = []
    for one in found:
        name = one.name if one.name not in names else f"{one.name} ({one.bmc.partition('://')[2]})"
        names.add(name)
        out.append(one if name == one.name else msgspec.structs.replace(one, name=name))
    return out
