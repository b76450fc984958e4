"""How much longer than PyYAML's C loader does it take to load 10,000 hosts, typed and checked?

Both read the same text, by turns, each time in a process of its own that counts the CPU of the call alone, without the
interpreter's start and the imports. The answers are compared. CSV is held against the bare parse of the YAML of the same
hosts. Claimed: at most 2.0.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import yaml

from benchmarks.options import options
from benchmarks.processes import alternate
from benchmarks.processes import run as start
from benchmarks.result import Result, at_most
from metalimmu.desired.load import load

LIMIT = 2.0

SITE = """\
name: bench
urls: {bmc: "http://10.0.0.5:8080", machines: "https://10.1.0.5:8443"}
credentials: [{ref: "env:BMC"}]
"""


def hosts(count: int) -> list[dict[str, Any]]:
    """Hosts as a rack has them; every value that must be unique is."""
    out = []
    for i in range(count):
        rack, u = divmod(i, 40)
        a, b, c = i >> 16, (i >> 8) & 255, i & 255
        out.append(
            {
                "name": f"r{rack}-u{u:02}",
                "kind": "server",
                "serial": f"SN{i:07}",
                "bmc": f"redfish+https://10.{100 + a}.{b}.{c}",
                "role": "web",
                "pool": "web-ams",
                "nics": [f"b8:ca:3a:{a:02x}:{b:02x}:{c:02x}", f"b8:ca:3b:{a:02x}:{b:02x}:{c:02x}"],
                "location": {"rack": f"r{rack}", "u": u, "leaves": [f"leaf-{rack}a", f"leaf-{rack}b"]},
                "root_disk": {"wwn": f"0x500a0981{i:08x}"},
                "network": {"bond": "802.3ad", "vlan": 210, "address": f"10.{a}.{b}.{c}/8", "gateway": "10.255.0.1"},
                "labels": {"tier": "front"},
            }
        )
    return out[1:] if out else out  # 10.0.0.0 is the network's own address


def sites(folder: Path, count: int) -> tuple[Path, Path]:
    """One site with its hosts in YAML, one with the same in CSV."""
    rows = hosts(count + 1)
    both = (folder / "yaml", folder / "csv")
    for site in both:
        for name in ("hosts", "roles", "pools"):
            (site / name).mkdir(parents=True)
        (site / "site.yaml").write_text(SITE)
        (site / "roles/web.yaml").write_text("image: web@1\n")
        (site / "pools/web-ams.yaml").write_text("min_active: 1\n")
    text = yaml.dump(rows, Dumper=yaml.CSafeDumper, sort_keys=False)
    (both[0] / "hosts/all.yaml").write_text(text)
    flat = [dict(_flat(r)) for r in rows]
    with (both[1] / "hosts/all.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
    return both


def _flat(row: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for key, value in row.items():
        if isinstance(value, dict):
            out += _flat(value, f"{prefix}{key}.")
        else:
            out.append((prefix + key, " ".join(value) if isinstance(value, list) else str(value)))
    return out


def run() -> list[Result]:
    count = 300 if options().quick else 10_000
    with tempfile.TemporaryDirectory() as name:
        folders = sites(Path(name), count)
        bare, from_yaml, from_csv = alternate(
            options().repeat(5),
            lambda: alone("bare", folders[0]),
            lambda: alone("load", folders[0]),
            lambda: alone("load", folders[1]),
        )
        equal = same(_bare(folders[0]), load(folders[0]).hosts, load(folders[1]).hosts, count)
    return [
        at_most(
            f"load a site, {count:,} hosts in {form}, CPU",
            ours,
            bare,
            LIMIT,
            unit="s",
            rival="CSafeLoader",
            equal=equal,
        )
        for form, ours in (("YAML", from_yaml), ("CSV", from_csv))
    ]


def alone(what: str, folder: Path) -> float:
    """CPU seconds of one call in a process of its own: a second load in one process finds caches that a user never has."""
    return float(start([sys.executable, "-m", "benchmarks.site_load", what, str(folder)]).output)


def _bare(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = yaml.load((folder / "hosts/all.yaml").read_bytes(), yaml.CSafeLoader)
    return rows


def same(bare: list[dict[str, Any]], as_yaml: dict[str, Any], as_csv: dict[str, Any], count: int) -> bool:
    """CSV and YAML give equal hosts, and each host is what the bare parse gave, but for what is a default."""
    plain = {row["name"]: row for row in bare}
    return (
        len(as_yaml) == len(plain) == count
        and as_yaml == as_csv
        and all(
            msgspec.to_builtins(host) == {k: v for k, v in plain[name].items() if (k, v) != ("kind", "server")}
            for name, host in as_yaml.items()
        )
    )


if __name__ == "__main__":
    act = {"bare": _bare, "load": load}[sys.argv[1]]
    begun = time.process_time()
    act(Path(sys.argv[2]))
    print(time.process_time() - begun)
