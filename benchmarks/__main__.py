"""`python -m benchmarks [NAME …] [--quick] [--rounds N]`: run the benchmarks, print one table, write JSON.

Exit status: 0 when every claim holds and all answers are equal, 1 otherwise, 2 for a benchmark that does not exist. A
quick run says nothing about speed, so there only the answers count.
Results go to benchmarks/results/, which git ignores: they belong to the machine that they were measured on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks import options
from benchmarks.result import Result, table

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results"

# In this order: the cheap ones first. vm_reimage and vm_agent share their virtual machines' runs.
MODULES = (
    "cli_start",
    "site_load",
    "plan_many",
    "image_store",
    "fakes_100",
    "scan_store",
    "scan_cpu",
    "scan_fleet",
    "boot_scripts",
    "boot_fanout",
    "agent_write",
    "vm_reimage",
    "vm_agent",
    "vm_netboot",
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODULES))
    parser.add_argument("--quick", action="store_true", help="small and few: does it work? Says nothing about speed.")
    parser.add_argument("--rounds", type=int, help="measure each pair so often")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    asked = parser.parse_args(arguments)
    unknown = [n for n in asked.names if n not in MODULES]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(MODULES)}")
    options.set_options(options.Options(quick=asked.quick, rounds=asked.rounds))
    results: list[Result] = []
    broken: dict[str, str] = {}
    began = time.time()
    for name in asked.names or MODULES:
        _say(f"{name} …")
        try:
            made = importlib.import_module(f"benchmarks.{name}").run()
        except Exception as exc:  # noqa: BLE001 - the others are still worth having; the exit status tells
            broken[name] = f"{type(exc).__name__}: {exc}"
            traceback.print_exc()
            continue
        results += made
        for result in made:
            _say(f"  {result.name}: {result.verdict}")
    print(table(results))
    if asked.quick:
        print("quick: these numbers say nothing about speed")
    for name, why in broken.items():
        print(f"{name} did not run: {why}")
    written = _write(results, broken, asked, began)
    _say(f"written: {written}")
    good = all(r.equal is not False if asked.quick else r.good for r in results)
    return 0 if good and not broken else 1


def _write(results: list[Result], broken: dict[str, str], asked: argparse.Namespace, began: float) -> Path:
    asked.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began, 1),
        "quick": asked.quick,
        "machine": {
            "cpus": os.cpu_count(),
            "model": _cpu_model(),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "load": os.getloadavg(),
        },
        "results": [r.as_json() for r in results],
        "broken": broken,
    }
    path: Path = asked.out / time.strftime("%Y%m%d-%H%M%S.json", time.gmtime(began))
    path.write_text(json.dumps(report, indent=1, default=str) + "\n")
    return path


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
