"""A worker in a process of its own, for tests that kill it: ENGINE.sqlite LOG MODE."""

import os
import sys
import threading
import time
from pathlib import Path

from metalimmu.engine.durable import Checkpoint, Engine, Interrupted

database, log, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
reached = threading.Event()


def note(text: str) -> None:
    with log.open("a") as file:
        file.write(text + "\n")


def body(run: str, checkpoint: Checkpoint) -> None:
    total = 0
    for i in range(4):

        def step(i: int = i) -> dict[str, int]:
            note(f"step {i}")
            if i == 2 and mode == "die":
                os.kill(os.getpid(), 9)
            if i == 2 and mode == "interrupt":
                reached.set()
                raise Interrupted
            return {"value": i}

        total += checkpoint(f"s{i}", step)["value"]
    note(f"{run} total {total}")


engine = Engine(database, body)
engine.launch()
if mode == "resume":
    note(f"left {list(engine.pending())}")
    for run in engine.pending():
        engine.start(run)
else:
    engine.start("run-1")
deadline = time.monotonic() + 60
while not engine.ended("run-1") and not reached.is_set():
    if time.monotonic() > deadline:
        sys.exit("the run did not end")
    time.sleep(0.05)
engine.stop()
