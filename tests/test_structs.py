"""Threads that are the first to use a struct type, all at once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import metalimmu

MANY_AT_ONCE = """
import sys, threading
import msgspec
from metalimmu import structs

def made(i):
    inner = msgspec.defstruct(f"Inner{i}", [("a", str, "a"), ("b", dict[str, int], {})])
    return msgspec.defstruct(f"Outer{i}", [("x", inner), ("y", tuple[inner, ...], ()), ("z", dict[str, inner], {})])

DATA = {"x": {"a": "1", "b": {"q": 1}}, "y": [{"a": "2"}] * 3, "z": {"k": {"a": "3"}}}
TEXT = msgspec.json.encode(DATA)
sys.setswitchinterval(1e-6)
for i in range(200):
    kind, barrier = made(i), threading.Barrier(8)
    def use(n):
        barrier.wait()
        for _ in range(10):
            structs.convert(DATA, kind) if n % 2 else structs.decode(TEXT, kind)
    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
"""


def test_types_are_built_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MANY_AT_ONCE], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nobody_goes_past_it() -> None:
    past = re.compile(
        r"msgspec\.convert\(|msgspec\.json\.Decoder\(|msgspec\.json\.decode\([^()]*(\([^()]*\)[^()]*)*type="
    )
    root = Path(metalimmu.__file__).parent
    found = [
        f"{p.relative_to(root)}" for p in root.rglob("*.py") if p.name != "structs.py" and past.search(p.read_text())
    ]
    assert found == []
