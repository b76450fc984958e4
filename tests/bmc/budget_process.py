"""Another process of the site, for the tests of the budget: does one thing with the budget's file and says so."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from metalimmu.bmc.budget import Budget, Full, Limits


def main(act: str, file: str, limits: str) -> None:
    rate, per_rack, per_site = (float(x) if x != "-" else None for x in limits.split(","))
    budget = Budget(
        Limits(rate=rate, per_rack=int(per_rack) if per_rack else None, per_site=int(per_site) if per_site else None),
        Path(file),
    )
    account = budget.account("https://10.0.0.1", "r1")
    if act == "hold":  # as many turns as there are
        turns = []
        while not isinstance(turn := account.enter(), Full):
            turns.append(turn)
        print(len(turns), flush=True)
        sys.stdin.read()
    elif act == "ask":  # ten requests, in their turn
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(10):
            with account.turn(60):
                print(time.monotonic(), flush=True)
    elif act == "leave alone":
        account.back_off(5.0)
        print("done", flush=True)
    elif act == "in the table":  # dies with the table's lock held
        budget._file.lock(0)
        print("locked", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
