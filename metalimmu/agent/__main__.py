"""`python3 -m metalimmu.agent --boot FILE`: started by the ramdisk's init, ends with a restart of the machine."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path

from metalimmu.agent.link import Log
from metalimmu.agent.machine import Machine
from metalimmu.agent.run import Agent
from metalimmu.wire import codec
from metalimmu.wire.messages import Boot

USAGE = """usage: python3 -m metalimmu.agent --boot FILE [--state DIR] [--root DIR]
  --boot FILE   boot.json from the boot media
  --state DIR   keeps the newest fence and what was begun over a restart of this process (default: FILE's folder)
  --root DIR    for tests: /sys, /proc and /dev below DIR; sets no clock, ends instead of restarting the machine
"""


def main(arguments: list[str]) -> int:
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if "--boot" not in options or len(arguments) % 2 or options.keys() - {"--boot", "--state", "--root"}:
        sys.stderr.write(USAGE)
        return 2
    file = Path(options["--boot"])
    log = Log()
    try:
        boot = codec.decode(Boot, file.read_bytes())
    except (OSError, codec.WireError) as exc:
        log(f"{file}: {exc}: this boot media was not made for a machine")
        return 1
    machine = Machine(Path(options.get("--root", "/")))
    agent = Agent(boot, machine, log=log, state=Path(options.get("--state", file.parent)))
    while True:
        try:
            agent.run()
        except Exception:  # noqa: BLE001 - the last resort: a fault before the check-in must not end the agent
            for line in traceback.format_exc().splitlines():
                log(line)
            time.sleep(10)
        else:
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
