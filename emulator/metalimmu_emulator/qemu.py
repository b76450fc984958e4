"""One lab server: a QEMU process, its power, its boot override and its CD drive, as a BMC drives them.

Real *Once*: `bootindex` of devices can be changed with qom-set while the machine runs, and firmware is told the
order anew at each reset (fw_cfg's bootorder). So the order is set when the override is, and set back as soon as
the boot has begun; the guest's own next reboot lands on the disk.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metalimmu.errors import LabError
from metalimmu_emulator.files import write_message
from metalimmu_emulator.machine import BOOTABLE, NETBOOTS, ORDERS, SERIAL, VARS, ServerSpec, Start, command
from metalimmu_emulator.media import Disc, Media
from metalimmu_emulator.processes import ProcessId, identify
from metalimmu_emulator.qmp import QmpClient, QmpError, event_time

LOG = logging.getLogger(__name__)
QUIT_SECONDS = 10.0
RESET_SECONDS = 15.0
SEABIOS_SECONDS = 5.0

RESET_TYPES = (
    "On",
    "ForceOn",
    "ForceOff",
    "GracefulShutdown",
    "GracefulRestart",
    "ForceRestart",
    "PowerCycle",
    "Nmi",
)


class WrongState(LabError):
    """The machine is off, or has a medium already: 409."""


@dataclass(frozen=True)
class Override:
    """`mode` is "UEFI" or "Legacy"."""

    enabled: str = "Disabled"  # Disabled | Once | Continuous
    target: str = "None"
    mode: str = "UEFI"
    honoured: bool = True  # False: read back as asked, and not followed (a fault)

    @property
    def order(self) -> tuple[str, ...]:
        return ORDERS[self.target] if self.honoured and self.enabled != "Disabled" else ORDERS["None"]

    @property
    def netboot(self) -> str:
        return NETBOOTS.get(self.target, "") if self.honoured and self.enabled != "Disabled" else ""


@dataclass(frozen=True)
class State:
    """What `lab status` shows; in state.json of the server's folder."""

    power: str = "Off"
    process: ProcessId | None = None
    override: Override = Override()
    media: Media | None = None
    starts: int = 0  # power-ons
    resets: int = 0  # resets of the machine while on, the guest's own too


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    client: QmpClient
    firmware: str
    netboot: str  # see Start
    again: bool = False  # start when it has ended: a graceful restart
    node: str = ""  # block node of the attached medium
    warm_reset: float = 0.0  # time of a reset that SeaBIOS has not yet answered with its own; 0: none


class Spawner:
    """Starts processes from one thread that lives as long as the supervisor.

    The kernel sends a child's parent-death signal when the *thread* that made it ends (prctl(2)): were QEMU
    started by the thread of a Redfish request, it would die with the answer.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")

    def __call__(self, arguments: list[str], folder: Path, fd: int) -> subprocess.Popen[bytes]:
        def start() -> subprocess.Popen[bytes]:
            with (folder / "qemu.log").open("ab") as log:
                return subprocess.Popen(
                    arguments,
                    cwd=folder,
                    pass_fds=[fd],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=0,
                )

        return self._pool.submit(start).result()

    def close(self) -> None:
        self._pool.shutdown()


class Vm:
    """All methods may be called from any thread. `faults` gives the current faults of this server by name."""

    def __init__(
        self,
        spec: ServerSpec,
        folder: Path,
        spawn: Callable[[list[str], Path, int], subprocess.Popen[bytes]],
        faults: Callable[[], Mapping[str, Mapping[str, Any]]] = dict,
    ) -> None:
        self.spec = spec
        self.folder = folder
        self._spawn = spawn
        self._faults = faults
        self._lock = threading.RLock()
        self._running: _Running | None = None
        self._disc: Disc | None = None
        self._nodes = 0
        self._ordered = 0.0  # when the boot order was last set
        self._last_reset = 0.0
        self._booted = threading.Condition(self._lock)
        self.state = State(override=Override(mode="Legacy" if spec.firmware == "bios" else "UEFI"))
        self._save()

    # power ---------------------------------------------------------------------------------------------------

    def power(self, action: str) -> None:
        """A ResetType (DSP0268). Raises WrongState, LabError."""
        with self._lock:
            running = self._running
            if action in ("On", "ForceOn"):
                if running is None:
                    self._start()
            elif action in ("ForceOff", "GracefulShutdown") and running is None:
                pass
            elif running is None:
                raise WrongState(f"{self.spec.name} is off: {action} is not possible", hint="power it on")
            elif action == "ForceOff":
                self._stop(running)
            elif action in ("GracefulShutdown", "GracefulRestart"):
                running.again = action == "GracefulRestart"
                running.client.execute("system_powerdown")
            elif action == "Nmi":
                running.client.execute("inject-nmi")
            elif action == "PowerCycle" or self._needs_cold_start(running):
                self._stop(running)
                self._start()
            else:
                self._reset(running)

    def send_break(self) -> None:
        """On the serial line. Raises QmpError."""
        with self._lock:
            if self._running:
                self._running.client.execute("chardev-send-break", id=SERIAL)

    def _needs_cold_start(self, running: _Running) -> bool:
        """Firmware is chosen at start, and by what it boots the network. And SeaBIOS may or may not reset a second time, depending on how far it was."""
        netboot = self.state.override.netboot
        return (
            running.firmware != self._firmware()
            or netboot not in ("", running.netboot)
            or (running.firmware == "bios" and self.state.override.enabled == "Once")
        )

    def _reset(self, running: _Running) -> None:
        asked = time.time()
        running.client.execute("system_reset")
        if not self._booted.wait_for(lambda: self._last_reset >= asked, RESET_SECONDS):
            raise LabError(f"{self.spec.name}: QEMU did not reset the machine within {RESET_SECONDS:g} s")

    def _firmware(self) -> str:
        if self.state.override.mode == "Legacy":
            return "bios"
        return "uefi" if self.spec.firmware == "bios" else self.spec.firmware

    def _start(self) -> None:
        firmware = self._firmware()
        self._prepare(firmware)
        faults = self._faults()
        other = faults.get("other-machine", {})
        ours, theirs = socket.socketpair()
        with theirs:
            start = Start(
                firmware=firmware,
                order=self.state.override.order,
                netboot=self.state.override.netboot,
                qmp_fd=theirs.fileno(),
                clock=str(faults.get("clock", {}).get("base", "")),
                serial=str(other.get("serial", "")),
                uuid=str(other.get("uuid", "")),
            )
            process = self._spawn(command(self.spec, start), self.folder, theirs.fileno())
        try:
            running = _Running(process, QmpClient(ours), firmware, self.state.override.netboot)
        except QmpError as exc:
            ours.close()
            process.kill()
            process.wait()
            raise LabError(f"QEMU of {self.spec.name} did not start: {self._last_words() or exc.message}") from exc
        self._running = running
        self.state = replace(self.state, power="On", process=identify(process.pid), starts=self.state.starts + 1)
        threading.Thread(target=self._watch, args=(running,), name=f"{self.spec.name}-watch", daemon=True).start()
        self._attach(running)
        running.client.execute("cont")
        self._begun(running)

    def _prepare(self, firmware: str) -> None:
        for disk in self.spec.disks:
            path = self.folder / disk.file
            if not path.exists():
                with path.open("wb") as file:
                    file.truncate(disk.size)
        store = self.folder / f"vars-{firmware}.fd"
        if firmware in VARS and not store.exists():
            shutil.copyfile(VARS[firmware], store)
        with (self.folder / "console.log").open("ab") as console:
            console.write(f"\r\n[lab] {self.spec.name} power on {time.strftime('%H:%M:%S')}\r\n".encode())

    def _stop(self, running: _Running) -> None:
        running.again = False
        with contextlib.suppress(QmpError):
            running.client.execute("quit", QUIT_SECONDS)
        self._ended(running)

    def _ended(self, running: _Running) -> None:
        """The process is gone or dying: power is off. Once per process, from whoever notices first."""
        with self._lock:
            try:
                running.process.wait(QUIT_SECONDS)
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            running.client.close()
            if self._running is running:
                self._running = None
                self.state = replace(self.state, power="Off", process=None)
                self._save()

    def _last_words(self) -> str:
        return " / ".join((self.folder / "qemu.log").read_text(errors="replace").splitlines()[-3:])

    def close(self) -> None:
        with self._lock:
            if self._running:
                self._stop(self._running)
            if self._disc:
                self._disc.close()
                self._disc = None

    # boot override -------------------------------------------------------------------------------------------

    def set_override(self, override: Override) -> None:
        with self._lock:
            self.state = replace(self.state, override=override)
            if self._running:
                self._order(self._running)
            self._save()

    def _order(self, running: _Running) -> None:
        """For the next reset. An index must be unique at any moment, so all are taken away first."""
        order = self.state.override.order
        for name in BOOTABLE:
            _bootindex(running.client, name, -1)
        self._ordered = time.time()
        for index, name in enumerate(order):
            _bootindex(running.client, name, index)

    def _begun(self, running: _Running) -> None:
        """A boot has begun: firmware has its order, so Once is used up."""
        if self.state.override.enabled == "Once":
            self.state = replace(self.state, override=replace(self.state.override, enabled="Disabled", target="None"))
            self._order(running)
        self._save()

    def _on_reset(self, running: _Running, at: float) -> None:
        """SeaBIOS answers a warm reset with one of its own, some 40 ms later, and only then reads the order.

        So with it the first RESET of a pair does not begin the boot. (OVMF resets once.) A reset so early that
        SeaBIOS had not begun has no second one: hence the time limit. `at` is QEMU's time of the event: one from
        before the override was set, heard of late, has nothing to do with it.
        """
        with self._lock:
            if self._running is not running:
                return
            self.state = replace(self.state, resets=self.state.resets + 1)
            self._last_reset = at
            first = running.firmware == "bios" and at - running.warm_reset > SEABIOS_SECONDS
            running.warm_reset = at if first else 0.0
            if not first and at >= self._ordered:
                self._begun(running)
            else:
                self._save()
            self._booted.notify_all()

    def _watch(self, running: _Running) -> None:
        while (event := running.client.events.get()) is not None:
            if event.get("event") == "RESET":
                with contextlib.suppress(QmpError):  # it ends while we talk to it: the loop ends too
                    self._on_reset(running, event_time(event))
        self._ended(running)
        with self._lock:
            if running.again and self._running is None:
                try:
                    self._start()
                except LabError:
                    LOG.exception("%s does not start again", self.spec.name)

    # virtual media -------------------------------------------------------------------------------------------

    def insert(self, media: Media) -> None:
        """Raises WrongState when a medium is in already, MediaRefused when it cannot be read."""
        with self._lock:
            if self.state.media:
                raise WrongState(f"{self.state.media.url} is inserted already", hint="eject it first")
            self._disc = Disc(media, self.folder)
            self.state = replace(self.state, media=media)
            if self._running:
                self._attach(self._running)
            self._save()

    def eject(self) -> None:
        """An empty drive is no error."""
        with self._lock:
            disc, running = self._disc, self._running
            if disc:
                if running:
                    disc.detach(running.client, running.node)
                disc.close()
            self._disc = None
            self.state = replace(self.state, media=None)
            self._save()

    def _attach(self, running: _Running) -> None:
        if self._disc:
            self._nodes += 1
            running.node = f"media{self._nodes}"
            self._disc.attach(running.client, running.node)

    def _save(self) -> None:
        write_message(self.folder / "state.json", self.state)


def _bootindex(client: QmpClient, name: str, value: int) -> None:
    client.execute("qom-set", path=f"/machine/peripheral/{name}", property="bootindex", value=value)
