"""Steps in which the agent tests, saves and erases: it does them by itself, and is watched as while it writes."""

from __future__ import annotations

from typing import Any

from metalimmu.wire.messages import PHASES
from metalimmu.workflows.boot_steps import LOST, raise_failure
from metalimmu.workflows.context import Context
from metalimmu.workflows.disk_steps import OnDisk
from metalimmu.workflows.step import Evidence


class _Phase(OnDisk):
    """Done when the agent is beyond it."""

    wakes = True

    def observe(self, c: Context) -> Evidence | None:
        raise_failure(c)
        d = c.deployed()
        if d.report is None and c.outlived(d):
            return {"summary": LOST}
        phase = d.progress.phase if d.progress else ""
        beyond = phase in PHASES and PHASES.index(phase) > PHASES.index(self.name)
        if d.report is None and not beyond:
            return None
        return self.found(c)

    def found(self, c: Context) -> Evidence:
        raise AssertionError(c)

    def hint(self) -> str:
        return "look at the machine's console and its disks"


class BurnIn(_Phase):
    name = "burn-in"

    def found(self, c: Context) -> Evidence:
        """What was measured is in the agent's log, and in its report."""
        return {"summary": _said(c, "burn-in: ", "passed")}


class Salvage(_Phase):
    name = "salvage"

    def found(self, c: Context) -> Evidence:
        saved = c.tools.store.salvages(run=c.run)
        size = sum(r.bytes for r in saved)
        found: dict[str, Any] = {"volumes": [r.name for r in saved], "archives": {r.name: r.sha256 for r in saved}}
        if not saved:
            return {"summary": _said(c, "salvage: ", "nothing to save"), **found}
        return {"summary": f"{size / 1e6:.1f} MB of {', '.join(r.name for r in saved)}", "bytes": size, **found}


class Erase(_Phase):
    name = "erase"

    def found(self, c: Context) -> Evidence:
        return {"summary": _said(c, "erased ", "erased")}


class EraseAfter(_Phase):
    name = "erase-after"

    def found(self, c: Context) -> Evidence:
        d = c.deployed()
        lines = list(d.report.erased) if d.report else []
        return {"summary": lines[-1] if lines else "erased", "erased": lines}


def _said(c: Context, begin: str, otherwise: str) -> str:
    """The agent's last line that begins so."""
    lines = [e.text for e in c.tools.store.history(c.host, run=c.run, kind="agent") if e.text.startswith(begin)]
    return lines[-1].removeprefix(begin) if lines else otherwise
