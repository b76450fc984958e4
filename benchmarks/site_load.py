"""How much longer than PyYAML's C loader does it take to load 10,000 hosts, typed and checked?

Both read the same text, one after the other, in one process, several times; the best of each counts. The answers are
compared. CSV is compared with the YAML of the same hosts. Claimed: at most 2.0.

    python benchmarks/site_load.py [--hosts 10000] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from metalimmu.desired.load import load

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


def best(rounds: int, *functions: Callable[[], Any]) -> list[tuple[float, Any]]:
    """CPU seconds and the answer of each, run by turns so that a busy machine disturbs all alike."""
    times = [float("inf")] * len(functions)
    answers: list[Any] = [None] * len(functions)
    for _ in range(rounds):
        for i, function in enumerate(functions):
            start = time.process_time()
            answers[i] = function()
            times[i] = min(times[i], time.process_time() - start)
    return list(zip(times, answers, strict=True))


def measure(count: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        as_yaml, as_csv = sites(Path(name), count)
        text = (as_yaml / "hosts/all.yaml").read_bytes()
        bare, from_yaml, from_csv = best(
            rounds,
            lambda: yaml.load(text, yaml.CSafeLoader),
            lambda: load(as_yaml).hosts,
            lambda: load(as_csv).hosts,
        )
    plain = {row["name"]: row for row in bare[1]}
    same = from_yaml[1] == from_csv[1] and all(
        msgspec.to_builtins(host) == {k: v for k, v in plain[name].items() if (k, v) != ("kind", "server")}
        for name, host in from_yaml[1].items()
    )
    return {
        "benchmark": "site_load",
        "hosts": len(from_yaml[1]),
        "bytes": len(text),
        "bare_yaml_s": round(bare[0], 3),
        "load_yaml_s": round(from_yaml[0], 3),
        "load_csv_s": round(from_csv[0], 3),
        "ratio_yaml": round(from_yaml[0] / bare[0], 2),
        "ratio_csv": round(from_csv[0] / bare[0], 2),
        "claim": "ratio <= 2.0",
        "answers_equal": same and len(plain) == len(from_yaml[1]),
        "holds": same and max(from_yaml[0], from_csv[0]) <= 2.0 * bare[0],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the result here")
    options = parser.parse_args()
    result = measure(options.hosts, options.rounds)
    for key, value in result.items():
        print(f"{key:<14} {value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
