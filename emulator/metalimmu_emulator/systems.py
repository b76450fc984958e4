"""sushy-tools' drivers on top of our machines. Each BMC shows exactly one system: its own.

sushy-tools chooses its drivers in properties of the application; `app.build` puts these there instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sushy_tools import error
from sushy_tools.emulator.resources.systems.base import AbstractSystemsDriver
from sushy_tools.emulator.resources.vmedia import DeviceInfo

from metalimmu.errors import LabError
from metalimmu_emulator import resources
from metalimmu_emulator.bmc import CURRENT, Bmc
from metalimmu_emulator.media import Media
from metalimmu_emulator.qemu import RESET_TYPES, Override, WrongState
from metalimmu_emulator.remote import MediaRefused


@contextmanager
def answered() -> Iterator[None]:
    """Our errors as sushy-tools': an HTTP status and a message."""
    try:
        yield
    except WrongState as exc:
        raise error.Conflict(exc.message) from exc
    except MediaRefused as exc:
        raise error.FishyError(exc.message, code=exc.status) from exc
    except LabError as exc:
        raise error.FishyError(exc.message, code=500) from exc


class Systems(AbstractSystemsDriver):  # type: ignore[misc]  # sushy-tools has no types
    @property
    def driver(self) -> str:
        return "<qemu>"

    @property
    def systems(self) -> list[str]:
        return [CURRENT.get().vm.spec.uuid]

    def uuid(self, identity: str) -> str:
        bmc(identity)
        return identity

    def name(self, identity: str) -> str:
        return bmc(identity).vm.spec.name

    def get_power_state(self, identity: str) -> str:
        return bmc(identity).vm.state.power

    def set_power_state(self, identity: str, state: str) -> None:
        machine = bmc(identity)
        if state not in RESET_TYPES:
            raise error.BadRequest(f"ResetType {state!r} is none of {', '.join(RESET_TYPES)}")
        if machine.faults.strike("no-power-effect", action=state):
            return
        with answered():
            machine.vm.power(state)

    def get_boot_device(self, identity: str) -> str:
        return bmc(identity).vm.state.override.target

    def set_boot_device(self, identity: str, boot_source: str) -> None:
        set_boot(bmc(identity), {"BootSourceOverrideTarget": boot_source})

    def get_boot_mode(self, identity: str) -> str:
        return bmc(identity).vm.state.override.mode

    def set_boot_mode(self, identity: str, boot_mode: str) -> None:
        set_boot(bmc(identity), {"BootSourceOverrideMode": boot_mode})

    def get_secure_boot(self, identity: str) -> bool:
        return bmc(identity).vm.spec.firmware == "secure"

    def get_total_memory(self, identity: str) -> float:
        return bmc(identity).vm.spec.memory / 1024

    def get_total_cpus(self, identity: str) -> int:
        bmc(identity)
        return 1

    def get_processors(self, identity: str) -> list[dict[str, Any]]:
        bmc(identity)
        return [{"id": resources.CPU}]

    def get_nics(self, identity: str) -> list[dict[str, str]]:
        return [{"id": "NIC1", "mac": bmc(identity).vm.spec.mac}]

    def set_boot_image(
        self, identity: str, device: str, boot_image: str | None = None, write_protected: bool = True
    ) -> None:
        """sushy-tools calls it after vmedia, which has done all."""


class VirtualMedia:
    """In the place of sushy-tools' driver, which downloads the whole image at insert."""

    driver = "<lazy-vmedia>"
    devices = ("Cd",)

    def get_device_name(self, identity: str, device: str) -> str:
        self._drive(identity, device)
        return "Virtual CD"

    def get_device_media_types(self, identity: str, device: str) -> list[str]:
        self._drive(identity, device)
        return ["CD", "DVD"]

    def get_device_image_info(self, identity: str, device: str) -> Any:
        media = self._drive(identity, device).vm.state.media
        url = media.url if media else ""
        return DeviceInfo(url.rpartition("/")[2], url, bool(media), True, "", "", bool(media and media.verify))

    def insert_image(  # sushy-tools calls it so
        self,
        identity: str,
        device: str,
        image_url: str | None,
        inserted: bool = True,
        write_protected: bool = True,
        username: str | None = None,
        password: str | None = None,
    ) -> str:
        machine = self._drive(identity, device)
        if not isinstance(image_url, str) or not inserted or not write_protected or username or password:
            raise error.BadRequest("InsertMedia takes Image, Inserted true and WriteProtected true, and no user")
        if machine.faults.strike("refuse-media"):
            raise error.BadRequest(f"the media {image_url} are refused")
        with answered():
            machine.vm.insert(Media(image_url, attach="media-not-read" not in machine.faults.active()))
        return image_url

    def eject_image(self, identity: str, device: str) -> None:
        with answered():
            self._drive(identity, device).vm.eject()

    def list_certificates(self, identity: str, device: str) -> list[Any]:
        self._drive(identity, device)
        return []

    @staticmethod
    def _drive(identity: str, device: str) -> Bmc:
        if device not in VirtualMedia.devices:
            raise error.NotFound(f"no virtual media device {device}")
        return bmc(identity)


class Indicators:
    """In the place of sushy-tools' driver, which leaves a database in /tmp."""

    def get_indicator_state(self, _identity: str) -> str:
        return "Off"

    def set_indicator_state(self, _identity: str, _state: str) -> None:
        raise error.NotSupportedError("a lab server has no light")


def bmc(identity: str) -> Bmc:
    """Whose request this is. Raises NotFound for another system's id."""
    current = CURRENT.get()
    if identity != current.vm.spec.uuid:
        raise error.NotFound(f"no system {identity}")
    return current


def set_boot(machine: Bmc, asked: dict[str, Any]) -> None:
    """PATCH of a system's `Boot` (DSP0268, ComputerSystem). Raises BadRequest."""
    now = machine.vm.state.override
    target = str(asked.get("BootSourceOverrideTarget") or now.target)
    enabled = str(
        asked.get("BootSourceOverrideEnabled") or ("Once" if "BootSourceOverrideTarget" in asked else now.enabled)
    )
    mode = str(asked.get("BootSourceOverrideMode") or now.mode)
    allowed = ("Disabled", "Continuous") if machine.vm.spec.persona == "continuous-only" else _ENABLED
    for value, values in ((target, resources.targets(machine.vm.spec)), (enabled, allowed), (mode, ("UEFI", "Legacy"))):
        if value not in values:
            raise error.BadRequest(f"{value!r} is none of {', '.join(values)}")
    if enabled == "Disabled" or target == "None":
        enabled, target = "Disabled", "None"
    ignored = machine.faults.active().get("override-ignored")
    if ignored and not ignored["visible"]:
        return
    with answered():
        machine.vm.set_override(Override(enabled, target, mode, honoured=not ignored))


_ENABLED = ("Disabled", "Once", "Continuous")
