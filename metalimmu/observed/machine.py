"""A pretended machine behind a fake BMC: its state as one JSON document, and what happens to it. Pure.

The fake BMC (`metalimmu.bmc.fake`) and the simulated machine (`metalimmu_emulator`) share this document, so it is
a contract. Either side takes an exclusive flock on `FILE.lock`, reads FILE, applies one transition and replaces FILE
atomically (write beside it, rename). A killed controller so finds the machine as it left it.

::

    {"power": "On" | "Off",
     "boot": {"enabled": "Disabled" | "Once" | "Continuous", "target": "None" | "Cd" | "Hdd" | ..., "mode": "UEFI" | "Legacy" | null},
     "media": {"Cd": {"image": URL | null, "inserted": bool, "media_types": [...]}},
     "generation": 7,                     counts boots: a watcher acts when it grows
     "booted_from": "cd" | "network" | "disk" | "none",
     "boot_image": URL | null,            what was in the drive when it booted from cd
     "serial": ..., "uuid": ..., "manufacturer": ..., "model": ..., "nics": ["52:54:00:..."],
     "username": "", "password": "",      empty: any login is good
     "sessions": 0, "refused_logins": 0,
     "targets": ["Cd", "Pxe", ...],       that the BMC names; empty: it does not say
     "netboot": URL,                      whom DHCP tells the machine to ask what to boot
     "faults": [{"on": "insert_media", "effect": "refuse", "times": 1, "detail": ""}],
     "guest": {}}                         the simulated machine's own notes; the BMC never looks inside

Faults, in order; the first whose `on` fits and whose `times` is not used up applies. `times` null means always.
`on` is a method of `bmc.ports` (`set_power`, `insert_media`, ...), `*` for any of them, `boot` for what the machine
does when it starts, or a word of the simulated machine that the BMC leaves alone. Effects:

===================  =======================================================================================
an error's name      the call raises it and does nothing: `BmcBusy`, `BmcRefused`, `BmcUnreachable`, ...
``ignore``           the call is accepted and changes nothing (power that does not change, media not inserted)
``then:BmcXxx``      the call takes effect, and raises all the same (the BMC reboots in mid-answer)
``lost-override``    on `boot`: the override is forgotten before it is used
``unread``           on `boot`: the media is in the drive and the firmware does not boot it
===================  =======================================================================================
"""

from __future__ import annotations

from typing import Literal, Self

import msgspec

from metalimmu import structs
from metalimmu.observed.types import BootEnabled, BootMode, BootTarget, PowerAction

STARTS = frozenset({PowerAction.on, PowerAction.force_restart, PowerAction.graceful_restart, PowerAction.power_cycle})
STOPS = frozenset({PowerAction.force_off, PowerAction.graceful_shutdown})


class Boot(msgspec.Struct, frozen=True):
    enabled: BootEnabled = BootEnabled.disabled
    target: BootTarget = BootTarget.none
    mode: BootMode | None = BootMode.uefi


class Drive(msgspec.Struct, frozen=True):
    """One virtual drive of the BMC."""

    image: str | None = None
    inserted: bool = False
    media_types: tuple[str, ...] = ("CD", "DVD")


class Fault(msgspec.Struct, frozen=True):
    on: str
    effect: str
    times: int | None = 1
    detail: str = ""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """State of one machine. Each method returns the state afterwards."""

    power: Literal["On", "Off"] = "Off"
    boot: Boot = Boot()
    media: dict[str, Drive] = msgspec.field(default_factory=lambda: {"Cd": Drive()})
    generation: int = 0
    booted_from: Literal["cd", "network", "disk", "none"] = "none"
    boot_image: str | None = None
    serial: str = "FAKE0001"
    uuid: str = "00000000-0000-4000-8000-000000000001"
    manufacturer: str = "Fake"
    model: str = "Fake 1"
    nics: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()  # boot targets that its BMC names; empty: it does not say
    netboot: str = ""  # whom its DHCP server tells it to ask what to boot: http://ADDRESS:PORT; empty: nobody answers
    username: str = ""
    password: str = ""
    sessions: int = 0
    refused_logins: int = 0
    faults: tuple[Fault, ...] = ()
    guest: dict[str, object] = {}

    def powered(self, action: PowerAction) -> Machine:
        """After a ComputerSystem.Reset. `On` when on, and stops when off, change nothing, as on real machines."""
        if action in STOPS:
            return msgspec.structs.replace(self, power="Off", booted_from="none", boot_image=None)
        if action is PowerAction.on and self.power == "On":
            return self
        return self._started()

    def guest_reboot(self) -> Machine:
        """The machine restarts by itself (the agent's reboot, a crash). Off stays off."""
        return self._started() if self.power == "On" else self

    def _started(self) -> Machine:
        after, fault = self.fault("boot")
        boot = Boot(mode=after.boot.mode) if fault and fault.effect == "lost-override" else after.boot
        image = after.cd_image() if boot.enabled is not BootEnabled.disabled and boot.target is BootTarget.cd else None
        network = boot.enabled is not BootEnabled.disabled and boot.target in (BootTarget.pxe, BootTarget.uefi_http)
        if fault and fault.effect == "unread":
            image, network = None, False
        if boot.enabled is BootEnabled.once:
            boot = Boot(mode=boot.mode)
        return msgspec.structs.replace(
            after,
            power="On",
            boot=boot,
            generation=after.generation + 1,
            booted_from="cd" if image else "network" if network else "disk",
            boot_image=image,
        )

    def cd_image(self) -> str | None:
        drives = (d for d in self.media.values() if d.inserted and {"CD", "DVD"} & set(d.media_types))
        return next((d.image for d in drives if d.image), None)

    def overridden(self, target: BootTarget, enabled: BootEnabled, mode: BootMode | None) -> Machine:
        return msgspec.structs.replace(self, boot=Boot(enabled, target, mode or self.boot.mode))

    def with_media(self, slot: str, image: str | None) -> Machine:
        """`image` None ejects. KeyError for a slot that is not there."""
        drive = msgspec.structs.replace(self.media[slot], image=image, inserted=image is not None)
        return msgspec.structs.replace(self, media=self.media | {slot: drive})

    def fault(self, on: str) -> tuple[Machine, Fault | None]:
        """The first fault that applies to `on`, and the state in which it is used up by one."""
        for i, found in enumerate(self.faults):
            fits = found.on == on or (found.on == "*" and on != "boot")
            if not fits or found.times == 0:
                continue
            if found.times is None:
                return self, found
            left = msgspec.structs.replace(found, times=found.times - 1)
            return msgspec.structs.replace(self, faults=(*self.faults[:i], left, *self.faults[i + 1 :])), found
        return self, None

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Raises msgspec.ValidationError (a ValueError)."""
        return structs.decode(data, cls)
