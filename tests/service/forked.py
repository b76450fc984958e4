"""Controllers that a test can kill, forked from a process that has imported what they need: a second of work less for each."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["dbos", "metalimmu.service.worker", "metalimmu.workflows.reimage", "metalimmu.bmc.fake"])


def run(function: Callable[..., None], *args: Any, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """In a process of its own, with what it printed; by default none of its descendants is waited for."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _FORKS.Process(target=_inside, args=(dict(os.environ), out, err, function, *args))
        process.start()
        try:
            process.join(timeout)
            assert process.exitcode is not None, f"{function} {args} took longer than {timeout} s: {_text(err)}"
            return subprocess.CompletedProcess([str(a) for a in args], process.exitcode, _text(out), _text(err))
        finally:
            process.kill()
            process.join()
            process.close()


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


def _inside(environment: Mapping[str, str], out: Path, err: Path, function: Callable[..., None], *args: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, file in ((1, out), (2, err)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    try:
        function(*args)
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
