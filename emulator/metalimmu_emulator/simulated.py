"""A simulated machine behind a fake BMC: it boots what the BMC says, runs an agent, then the system it has written.

It watches the machine's state (`metalimmu.observed.machine`, in memory or in a file) and acts on it as firmware does:
power, boots counted by `generation`, the image in the virtual drive. One thread each, no process; a hundred of them
share the chunks they hold.

The image says which system it is: its first bytes are `system_header(...)`.

Faults are put into the state's `faults` with `on` = ``guest:WORD``:

====================  ==============================================================  =========================
WORD                  what happens                                                    `detail`
====================  ==============================================================  =========================
``unread``            the media is not read                                           -
``no-check-in``       the media is read, and the agent never speaks                   -
``wrong-serial``      another machine checks in                                       its serial
``clock``             the machine's clock is wrong                                    seconds it is ahead
``burn-in-fails``     the agent fails in its burn-in; likewise salvage-, erase-fails  class in metalimmu.errors
``write-fails``       the agent fails in mid-write                                    class in metalimmu.errors
``network-cut``       the network is gone in mid-write                                seconds
``crash``             the machine restarts in mid-write                               -
``read-back-differs`` the disk returns something else than was written                -
``no-report``         the new system never reports                                    -
``wrong-version``     the new system says another version                             the version
``no-unit``           the new system has no unit that fetches configs                 -
``config-cut``        the fetch of a config is cut                                    -
``config-fails``      a config cannot be applied                                      why
``config-cuts-off``   after a config is applied the controller is out of reach        -
``other-config``      it says that it has another config                              anything
``other-key``         it signs with another key than its own                          -
``installer-dumb``    an installer never asks for its answers                         -
``installer-fails``   an installer fails                                              why
``installer-hangs``   an installer waits for somebody at its console                  -
``phone-home-serial`` an installed system phones home as another machine              its serial
``iso-off``           a vendor's ISO switches the machine off when it is done         -
====================  ==============================================================  =========================
"""

from __future__ import annotations

import json
import ssl
import threading
import time
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from metalimmu.observed.machine import Fault, Machine
from metalimmu.observed.types import PowerAction
from metalimmu.wire.messages import PROOF_FILE, Boot, SystemReport
from metalimmu_emulator import simulated_media, simulated_netboot
from metalimmu_emulator.simulated_agent import Crashed, Platter, SimulatedAgent, find_boot
from metalimmu_emulator.simulated_http import BROKEN, any_server, pieces
from metalimmu_emulator.simulated_state import FileState, State
from metalimmu_emulator.simulated_system import SimulatedSystem

_MAGIC = b'{"metalimmu-system":'
_WHO = ("image_id", "image_version", "build_id")
_ONCE = frozenset({"network-cut", "crash", "config-cut"})
_POLL = 0.1  # seconds between looks at the BMC, before scaling


class _PowerLost(Exception):
    """Power went off, or the machine was started again: whatever ran is gone."""


class SimulatedMachine:
    """`start` and `stop` it; `disk` is what it has on its disk. `pace` scales its pauses: 0.1 is ten times as fast."""

    def __init__(
        self,
        state: State | Path,
        *,
        pace: float = 1.0,
        disk: Platter | None = None,
        images: Mapping[str, tuple[str, str, str]] | None = None,
        **faults: str,
    ) -> None:
        """`images`: digest -> (image id, version, build id), for images without a `system_header`.

        `faults`: words of the table with `_` for `-`, and their detail: `no_report="", wrong_serial="X1"`. They hold
        for ever, but `network_cut`, `crash` and `config_cut`, which happen once.
        """
        self.disk = disk or Platter()
        self.pace = pace
        self.boot_id = ""
        self.context: ssl.SSLContext = _shared_context()
        self.log: list[str] = []  # what its console would show
        self.installed: str | None = None  # what a system that an installer has made does at its first boot
        self._state = FileState(state) if isinstance(state, Path) else state
        self._images = images or {}
        self._stop = threading.Event()
        self._running: tuple[str, int] = ("Off", -1)
        self._thread = threading.Thread(target=self._live, name="simulated-machine", daemon=True)

        for name, detail in faults.items():
            word = name.replace("_", "-")
            inject(self._state, word, detail, times=1 if word in _ONCE else None)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(30)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def machine(self) -> Machine:
        return self._state.read()

    def pause(self, seconds: float) -> None:
        """Sleep. Raises when the machine lost its power or was started again in the meantime."""
        deadline = time.monotonic() + seconds * self.pace
        while True:
            if self._stop.is_set() or self._now() != self._running:
                raise _PowerLost
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._stop.wait(min(left, _POLL))

    def fault(self, word: str) -> str | None:
        due = f"guest:{word}"
        if not any(f.on == due and f.times != 0 for f in self.machine().faults):
            return None
        taken: Fault | None = None

        def take(machine: Machine) -> Machine:
            nonlocal taken
            after, taken = _take(machine, due)
            return after

        self._state.update(take)
        return None if taken is None else taken.detail

    def _now(self) -> tuple[str, int]:
        machine = self._state.read()
        return machine.power, machine.generation

    def _live(self) -> None:
        while not self._stop.is_set():
            self._running = self._now()
            try:
                if self._running[0] == "On":
                    self._boot()
                while True:
                    self.pause(_POLL)
            except _PowerLost:
                continue
            except Crashed:
                self._say("crashed, restarting")
                self._state.update(Machine.guest_reboot)
            except Exception as exc:  # noqa: BLE001  # a crashed ramdisk or system; the machine stays on and silent
                self._say(f"stopped: {type(exc).__name__}: {exc}")
                self._hang()

    def _hang(self) -> None:
        try:
            while True:
                self.pause(1)
        except _PowerLost:
            return

    def _boot(self) -> None:
        self.boot_id = str(uuid.uuid4())
        machine = self.machine()
        self.pause(0.2)  # POST
        if machine.booted_from == "cd" and machine.boot_image:
            self._run_ramdisk(machine.boot_image)
        elif machine.booted_from == "network":
            self._run_network(machine)
        elif machine.booted_from == "disk":
            self._run_system()

    def _run_ramdisk(self, url: str) -> None:
        if self.fault("unread") is not None:
            self._say("the firmware does not read the media")
            return
        boot = None
        while boot is None:
            try:
                boot = find_boot(pieces(url, context=self.context))
                if boot is None:
                    self._run_media(url)
                    return
            except BROKEN as exc:
                self._say(f"media: {exc}")
                self.pause(2)
        self._run_agent(boot)

    def _run_network(self, machine: Machine) -> None:
        """As firmware and iPXE do it: ask what to boot, and fetch that; the disk where nobody answers."""
        for _ in range(5):
            try:
                boot = simulated_netboot.fetch(machine, self._say)
                break
            except BROKEN as exc:
                self._say(f"network: {exc}")
                self.pause(2)
        else:
            boot = None
        if boot is None:
            self._run_system()
        elif isinstance(boot, simulated_media.Media):
            self._run_other(boot)
        else:
            self._run_agent(boot)

    def _run_agent(self, boot: Boot) -> None:
        if self.fault("no-check-in") is not None:
            self._say("the ramdisk hangs")
            return
        self._say(f"agent of deployment {boot.deployment}")
        SimulatedAgent(self, boot).run()
        self._say("go")
        self._state.update(Machine.guest_reboot)

    def _run_media(self, url: str) -> None:
        """Media without an agent."""
        self._run_other(simulated_media.read(b"".join(pieces(url, context=self.context))))

    def _run_other(self, media: simulated_media.Media) -> None:
        machine = self.machine()
        if media.answers:
            self._say(f"an installer, told {' '.join(media.arguments)}")
            installer = simulated_media.SimulatedInstaller(self, media.answers, machine.serial, self._say)
            self.installed = installer.run()
            if self.installed is not None:
                self.disk.complete = ""
                self._state.update(Machine.guest_reboot)
        elif media.seed is not None:
            name, _, version = media.argument("metalimmu.image").partition("@")
            self._say(f"a live system, {name}@{version}")
            self.disk.seed = {PROOF_FILE: json.dumps(media.seed)}
            told = str(media.seed.get("config_digest", ""))
            report = SystemReport(name, version, "", machine.serial, self.boot_id, machine.uuid, told)
            SimulatedSystem(self, lambda: report, self._say).run()
        else:
            self._say("a vendor's ISO")
            if self.fault("iso-off") is not None:
                self._state.update(lambda m: m.powered(PowerAction.force_off))

    def _run_system(self) -> None:
        if self.installed is not None:
            if self.fault("no-report") is None:
                machine = self.machine()
                simulated_media.phone_home(self, self.installed, "installed", machine.serial)
                self._say("phoned home")
            return
        if not self.disk.complete:
            self._say("nothing to boot on the disk")
            return
        if self.fault("no-report") is not None:
            self._say("the system does not report")
            return
        report = self._report()
        self._say(f"{report.image_id}@{report.image_version} runs")
        if "metalimmu.json" in self.disk.seed:
            SimulatedSystem(self, self._report, self._say).run()

    def _report(self) -> SystemReport:
        machine = self.machine()
        known = self._images.get(self.disk.complete)
        who = dict(zip(_WHO, known, strict=True)) if known else read_header(self.disk.read(0))
        proof = json.loads(self.disk.seed.get("metalimmu.json", "{}"))
        version = self.fault("wrong-version") or who["image_version"]
        return SystemReport(
            image_id=who["image_id"],
            image_version=version,
            build_id=who["build_id"],
            serial=machine.serial,
            boot_id=self.boot_id,
            uuid=machine.uuid,
            config_digest=proof.get("config_digest", ""),
        )

    def _say(self, line: str) -> None:
        self.log.append(line)


def system_header(image_id: str, image_version: str, build_id: str = "") -> bytes:
    """The first bytes of an image that a simulated machine can boot; pad it and add what you like."""
    who = dict(zip(_WHO, (image_id, image_version, build_id), strict=True))
    return _MAGIC + json.dumps(who).encode() + b"}\n"


def read_header(data: bytes) -> dict[str, str]:
    """Raises ValueError when the disk begins with something else."""
    line = data.partition(b"\n")[0]
    if not line.startswith(_MAGIC):
        raise ValueError("the disk has no system that a simulated machine can boot")
    found: dict[str, str] = json.loads(line)["metalimmu-system"]
    return found


def inject(state: State, word: str, detail: str = "", *, times: int | None = 1) -> None:
    """Put a fault of the table above into the machine's state."""
    fault = Fault(f"guest:{word}", "", times, detail)
    state.update(lambda m: msgspec.structs.replace(m, faults=(*m.faults, fault)))


def _take(machine: Machine, on: str) -> tuple[Machine, Fault | None]:
    for i, found in enumerate(machine.faults):
        if found.on != on or found.times == 0:
            continue
        if found.times is None:
            return machine, found
        used = msgspec.structs.replace(found, times=found.times - 1)
        return msgspec.structs.replace(machine, faults=(*machine.faults[:i], used, *machine.faults[i + 1 :])), found
    return machine, None


@cache
def _shared_context() -> ssl.SSLContext:
    """One for all machines of the process: each costs memory and milliseconds."""
    return any_server()
