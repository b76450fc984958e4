"""Faults of one BMC, in faults.json of the server's folder: written by tests, read again at each request.

=================  ======================================================  ======================================
fault              what the BMC does                                       parameters
=================  ======================================================  ======================================
error              answers with an HTTP error                              status (500), path and method (regular
                                                                           expressions), times
silent             takes the request and never answers                     path, method, times
slow               answers late                                            delay (seconds, 1), path, method
reboot             is away: connections are cut, sessions are forgotten    seconds (5), lose_media (false)
refuse-media       answers InsertMedia with 400                            times
media-not-read     accepts the media and never shows them to the machine
no-power-effect    accepts a reset and does nothing                        action (regular expression), times
override-ignored   accepts a boot override; with visible, reads it back    visible (false)
                   too; the machine boots from its disk all the same
wrong-serial       is the BMC of another machine: says so itself           serial, uuid
other-machine      another machine is behind this BMC, from the next       serial, uuid
                   power-on (what the agent sees in SMBIOS)
clock              the machine's clock is wrong, from the next power-on    base (ISO time, 1999-12-31T23:00:00)
=================  ======================================================  ======================================

Over IPMI hold reboot, no-power-effect, override-ignored and wrong-serial (and those that are the machine's).
Each takes `seconds` too: how long it lasts (default: until cleared). `times`: how often it strikes.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metalimmu.errors import LabError
from metalimmu_emulator.files import write_text

DEFAULTS: dict[str, dict[str, Any]] = {
    "error": {"status": 500, "path": "", "method": "", "times": 0},
    "silent": {"path": "", "method": "", "times": 0},
    "slow": {"delay": 1.0, "path": "", "method": "", "times": 0},
    "reboot": {"seconds": 5.0, "lose_media": False},
    "refuse-media": {"times": 0},
    "media-not-read": {},
    "no-power-effect": {"action": "", "times": 0},
    "override-ignored": {"visible": False},
    "wrong-serial": {"serial": "WRONG0001", "uuid": ""},
    "other-machine": {"serial": "OTHER0001", "uuid": "00000000-0000-4000-8000-00000000dead"},
    "clock": {"base": "1999-12-31T23:00:00"},
}
COMMON = {"seconds": 0.0}
FILE = "faults.json"


def set_fault(folder: Path, name: str, **parameters: Any) -> None:
    """Switch a fault on, or on anew. Raises LabError for an unknown name or parameter."""
    if name not in DEFAULTS:
        raise LabError(f"unknown fault {name}", hint=f"there are: {', '.join(DEFAULTS)}")
    known = COMMON | DEFAULTS[name]
    if unknown := parameters.keys() - known.keys():
        raise LabError(f"fault {name} has no {', '.join(sorted(unknown))}", hint=f"it has: {', '.join(known)}")
    entry = known | parameters | {"id": secrets.token_hex(8), "since": time.time()}
    write_text(folder / FILE, json.dumps(_read(folder / FILE) | {name: entry}))


def clear_fault(folder: Path, name: str | None = None) -> None:
    """One, or all."""
    left = {k: v for k, v in _read(folder / FILE).items() if name is not None and k != name}
    write_text(folder / FILE, json.dumps(left))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}


class Faults:
    """The reading side, in the supervisor. Counts how often each fault struck."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._struck: dict[str, int] = {}
        self._lock = threading.Lock()

    def active(self) -> Mapping[str, Mapping[str, Any]]:
        """Those that are on now, by name."""
        now = time.time()
        return {
            name: entry
            for name, entry in _read(self._path).items()
            if not entry["seconds"] or now < entry["since"] + entry["seconds"]
        }

    def strike(self, name: str, **against: str) -> Mapping[str, Any] | None:
        """The fault's parameters if it is on, matches (path=, method=, action=) and has strikes left; counts one."""
        entry = self.active().get(name)
        if entry is None:
            return None
        if any(not re.search(str(entry.get(key, "")), value) for key, value in against.items()):
            return None
        with self._lock:
            struck = self._struck.get(entry["id"], 0)
            if entry.get("times") and struck >= entry["times"]:
                return None
            self._struck[entry["id"]] = struck + 1
        return entry

    def last_reboot(self) -> Mapping[str, Any] | None:
        """The newest reboot asked for, also when it is over: whoever was not asked meanwhile must still forget."""
        return _read(self._path).get("reboot")
