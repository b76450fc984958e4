"""How much CPU does the command line cost?

`metalimmu --help` is held against a limit (80 ms of user and system CPU), and beside it against `python -c pass` of the
same interpreter: what nobody who writes in Python can go below.

`metalimmu host list` with 10,000 hosts is held against the bare parse of the very same documents: a Python process that
hands each file to PyYAML's C loader and does nothing with it. That is the least that any program in Python that reads
these documents must do; ours also checks every field, resolves roles and pools, asks the store and prints the table.
Whole processes on both sides, start of the interpreter included. Once with an empty store, and once with a record for
every host in it, as after the first reimage of all of them. The answers are compared: same hosts, same fields.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.options import options
from benchmarks.processes import alternate, metalimmu
from benchmarks.processes import run as start
from benchmarks.result import Result, at_most, limited
from benchmarks.site_load import sites

HELP_LIMIT = 80.0  # ms of CPU
LIST_LIMIT = 3.0
BARE = """
import json, sys
from pathlib import Path
import yaml
documents = [yaml.load(p.read_bytes(), yaml.CSafeLoader) for p in sorted(Path(sys.argv[1]).rglob("*.yaml"))]
if len(sys.argv) > 2:
    print(json.dumps(documents))
"""


def run() -> list[Result]:
    hosts = 200 if options().quick else 10_000
    with tempfile.TemporaryDirectory() as folder:
        site, _ = sites(Path(folder), hosts)
        return [_help(), _list(site, hosts, "empty store"), _list(_remembered(site), hosts, "every host in the store")]


def _help() -> Result:
    ours, bare = alternate(
        options().repeat(15, 3),
        lambda: start([metalimmu(), "--help"]).cpu * 1e3,
        lambda: start([sys.executable, "-c", "pass"]).cpu * 1e3,
    )
    said = start([metalimmu(), "--help"]).output.decode()
    return limited(
        "metalimmu --help, CPU", ours, HELP_LIMIT, unit="ms", equal="reimage" in said, python_pass_ms=bare,
        times_python_pass=round(sorted(ours)[len(ours) // 2] / sorted(bare)[len(bare) // 2], 2),
    )  # fmt: skip


def _list(site: Path, hosts: int, store: str) -> Result:
    command = [metalimmu(), "--site", str(site), "host", "list"]
    bare = [sys.executable, "-c", BARE, str(site)]
    ours, theirs = alternate(options().repeat(5), lambda: start(command).cpu, lambda: start(bare).cpu)
    listed = json.loads(start([*command, "-o", "json"]).output)
    parsed = json.loads(start([*bare, "print"]).output)
    return at_most(
        f"host list, {hosts:,} hosts, {store}, CPU", ours, theirs, LIST_LIMIT, unit="s", rival="CSafeLoader",
        equal=_same(listed, parsed, hosts),
    )  # fmt: skip


def _same(listed: list[dict[str, Any]], documents: list[Any], hosts: int) -> bool:
    wanted = {h["name"]: h for d in documents if isinstance(d, list) for h in d}
    fields = ("serial", "bmc", "role", "pool")
    return len(listed) == len(wanted) == hosts and all(
        row["wanted"] == "web@1"
        and all(row[f] == wanted[row["name"]][f] for f in fields)
        and row["labels"].items() >= wanted[row["name"]]["labels"].items()  # with those that metalimmu adds
        for row in listed
    )


def _remembered(site: Path) -> Path:
    """Every host was reimaged once."""
    from metalimmu.lifecycle import Proof, State
    from metalimmu.service.site import OpenSite
    from metalimmu.store.records import HostRecord
    from metalimmu.store.sqlite import HOSTS

    opened = OpenSite(site)
    store: Any = opened.store
    with store._db.write() as conn:  # noqa: SLF001 - ten thousand transactions would be a benchmark of their own
        for name in opened.docs.hosts:
            HOSTS.insert(
                conn, HostRecord(name=name, state=State.active, proof=Proof.proven, image="web@1", digest="sha256:0")
            )
    opened.close()
    return site
