"""What a session over IPMI can read, through pyghmi's decoders; and the few things it can change. Runs in `ipmi_worker`'s process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from pyghmi import constants as health
from pyghmi.exceptions import IpmiException
from pyghmi.ipmi import events, fru, sdr
from pyghmi.ipmi.oem import generic

from metalimmu.bmc.ipmi_guard import NotAllowed, OutOfTime, Session, Unanswered

SMALLEST_FRU_READ = 8
LARGEST_FRU = 8192
MOST_EVENTS = 4000
FORGETTING = 3
FLAGS = 5
KEEP_FOR_LONGER = 0x08


class Reader:
    """What pyghmi's decoders take for a command object, over the guarded session. Never a vendor's own commands."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._oem = generic.OEMHandler(None, None)
        self._sdr: sdr.SDR | None = None

    def raw_command(self, netfn: int, command: int, data: Any = (), **_: Any) -> dict[str, Any]:
        response = self._session.raw_command(netfn=netfn, command=command, data=data)
        found: dict[str, Any] = response or {"error": "timeout", "code": 0xFFFF}
        return found

    def xraw_command(self, netfn: int, command: int, data: Any = (), **_: Any) -> dict[str, Any]:
        """Raises IpmiException for a refusal."""
        found = self.raw_command(netfn, command, data)
        if "error" in found:
            raise IpmiException(found["error"], code=found["code"])
        return found

    def get_event_constants(self) -> Any:
        return self._oem.get_oem_event_const()

    # parts

    def device(self) -> dict[str, Any]:
        """Get Device ID (20.1). The minor version is two decimal digits, or binary on those that did not read on."""
        data = bytes(self.xraw_command(0x06, 0x01)["data"])
        minor = data[3]
        text = f"{minor:02x}" if f"{minor:02x}".isdigit() else str(minor)
        return {
            "id": data[0],
            "firmware": f"{data[2] & 0x7F}.{text}",
            "ipmi": f"{data[4] & 0x0F}.{data[4] >> 4}",
            "manufacturer": int.from_bytes(data[6:9], "little") & 0xFFFFF,
            "product": int.from_bytes(data[9:11], "little"),
            "auxiliary": data[11:15].hex(),
        }

    def power(self) -> dict[str, Any]:
        """Get Chassis Status (28.2)."""
        data = bytes(self.xraw_command(0x00, 0x01)["data"])
        return {"on": bool(data[0] & 1), "fault": bool(data[0] & 0x1A), "intrusion": bool(data[2] & 1)}

    def boot(self) -> dict[str, Any]:
        """The boot flags as they are, parameter 5 of Get System Boot Options (28.13). pyghmi's `get_bootdev` says "default"
        for whatever stands there while the valid bit is not set, and takes the persistence of nothing for true.
        """
        data = bytes(self.xraw_command(0x00, 0x09, (FLAGS, 0, 0))["data"])
        if len(data) < 4 or data[1] & 0x7F != FLAGS:
            raise ValueError(f"the boot flags are {data.hex()}")
        usable = not data[1] & 0x80  # the bit says that the parameter is locked or invalid
        return {
            "valid": bool(usable and data[2] & 0x80),
            "persistent": bool(data[2] & 0x40),
            "uefi": bool(data[2] & 0x20),
            "device": data[3] >> 2 & 0x0F,
        }

    def guid(self) -> str:
        """Get System GUID (22.14), in SMBIOS's byte order."""
        data = bytes(self.xraw_command(0x06, 0x37)["data"])[:16]
        return str(uuid.UUID(bytes_le=data)) if len(data) == 16 and any(data) else ""

    def bios(self) -> str:
        """System firmware version, parameter 1 of Get System Info Parameters (22.14b); few BMCs are told it."""
        data = bytes(self.xraw_command(0x06, 0x59, (0, 1, 0, 0))["data"])
        size = data[3] if len(data) > 3 else 0
        return data[4 : 4 + size].decode("ascii", "replace").strip("\0 ")

    def clock(self) -> int:
        """Get SEL Time (31.10), seconds since 1970."""
        return int.from_bytes(bytes(self.xraw_command(0x0A, 0x48)["data"])[:4], "little")

    def fru(self) -> list[dict[str, Any]]:
        """All FRUs that can be read, the system's own (0) first; one that cannot be decoded has `error`."""
        locators = dict(self._sensors().fru)
        found = [self._fru(0, "System", None)]
        return found + [self._fru(n, locators[n].fru_name, locators[n]) for n in sorted(locators) if n != 0]

    def _fru(self, number: int, name: str, locator: Any) -> dict[str, Any]:
        entry: dict[str, Any] = {"id": number, "name": _text(name)}
        try:
            raw = self._fru_bytes(number)
            info = fru.FRU(rawdata=raw, sdr=locator).info or {} if raw else {}
        except (NotAllowed, OutOfTime, Unanswered):
            raise
        except Exception as exc:  # noqa: BLE001  data of a BMC in pyghmi's parser: IndexError, ValueError, what comes
            return entry | {"error": f"{type(exc).__name__}: {exc}"}
        return entry | {"info": {k: _text(v) for k, v in info.items() if isinstance(v, (str, bytes, bytearray)) and v}}

    def _fru_bytes(self, number: int) -> bytes:
        """Smaller and smaller pieces: BMCs refuse large ones with three different codes (C7, C8, CA)."""
        size = int.from_bytes(bytes(self.xraw_command(0x0A, 0x10, (number,))["data"])[:2], "little")
        raw, chunk = bytearray(), 128
        while len(raw) < min(size, LARGEST_FRU):
            want = min(chunk, size - len(raw))
            answer = self.raw_command(0x0A, 0x11, (number, len(raw) & 0xFF, len(raw) >> 8, want))
            if answer["code"] in (0xC7, 0xC8, 0xC9, 0xCA) and chunk > SMALLEST_FRU_READ:
                chunk //= 2
                continue
            if "error" in answer:
                raise IpmiException(answer["error"], code=answer["code"])
            piece = bytes(answer["data"])[1:]
            if not piece:
                break
            raw += piece
        return bytes(raw)

    def sensors(self) -> list[dict[str, Any]]:
        """Each readable sensor; one that the BMC refuses to read is left out, the others are not lost."""
        found = []
        known = self._sensors()
        for key in known.get_sensor_numbers():
            sensor = known.sensors[key]
            if sensor.sensor_owner != 0x20 or sensor.sensor_lun:  # another controller's: that would need a bridge
                continue
            answer = self.raw_command(0x04, 0x2D, (sensor.sensor_number,))
            if "error" in answer:
                continue
            try:
                reading = sensor.decode_sensor_reading(self, answer["data"])
            except (NotAllowed, OutOfTime, Unanswered):
                raise
            except Exception:  # noqa: BLE001, S112  as with FRUs
                continue
            if not reading.unavailable:
                found.append(
                    {
                        "name": _text(reading.name),
                        "type": _text(reading.type),
                        "value": reading.value,
                        "units": _text(reading.units or ""),
                        "health": _word(reading.health),
                        "states": [_text(s) for s in reading.states],
                    }
                )
        return found

    def events(self) -> list[dict[str, Any]]:
        """The system event log, oldest first. `at` is the BMC's clock, or absent for events before it was set."""
        handler = events.EventHandler(self._sensors(), self)
        found: list[dict[str, Any]] = []
        for raw in self._event_records():
            event = handler._sel_decode(raw)  # noqa: SLF001
            at = event.get("timecode")
            found.append(
                {
                    "id": event.get("record_id"),
                    "at": at if at and at >= 0x20000000 else None,
                    "component": _text(event.get("component") or ""),
                    "event": _text(event.get("event") or (event.get("oemdata") or b"").hex()),
                    "severity": _word(event.get("severity", health.Health.Ok)),
                }
            )
        return found

    def _event_records(self) -> Iterator[bytes]:
        record = 0
        for _ in range(MOST_EVENTS):
            answer = self.raw_command(0x0A, 0x43, (0, 0, record & 0xFF, record >> 8, 0, 0xFF))
            if answer["code"] == 0xCB:  # an empty log
                return
            if "error" in answer:
                raise IpmiException(answer["error"], code=answer["code"])
            data = bytes(answer["data"])
            yield data[2:]
            following = int.from_bytes(data[:2], "little")
            if following in (0xFFFF, record):
                return
            record = following

    def _sensors(self) -> sdr.SDR:
        if self._sdr is None:
            self._sdr = sdr.SDR(self)
        return self._sdr


class Writer:
    """What changes a machine. Raises IpmiException with the BMC's completion code, Unanswered."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def power(self, control: int) -> None:
        """Chassis Control (28.3)."""
        self._checked(self._session.command_once(0x00, 0x02, (control,)))

    def identify(self, on: bool) -> None:
        """Chassis Identify (28.5): until it is switched off; for four minutes where the BMC knows no such thing."""
        try:
            self._send(0x00, 0x04, (0, 1) if on else (0,))
        except IpmiException as exc:
            if not on or exc.ipmicode in (0xC0, 0xD4):
                raise
            self._send(0x00, 0x04, (240,))

    def boot(self, flags: int, device: int) -> None:
        """Set System Boot Options (28.12). First the BMC is asked not to forget the flags after 60 seconds without a reset;
        some do not know the parameter.
        """
        try:
            self._send(0x00, 0x08, (FORGETTING, KEEP_FOR_LONGER))
        except IpmiException as exc:
            if exc.ipmicode in (0xC0, 0xD4):
                raise
        self._send(0x00, 0x08, (FLAGS, flags, device << 2, 0, 0, 0))

    def _send(self, netfn: int, command: int, data: tuple[int, ...] = ()) -> None:
        self._checked(self._session.raw_command(netfn=netfn, command=command, data=data))

    @staticmethod
    def _checked(answer: dict[str, Any] | None) -> None:
        found = answer or {"error": "timeout", "code": 0xFFFF}
        if "error" in found:
            raise IpmiException(found["error"], code=found["code"])


def _word(value: int) -> str:
    """Redfish's words for health."""
    if value & (health.Health.Critical | health.Health.Failed):
        return "Critical"
    return "Warning" if value & health.Health.Warning else "OK"


def _text(value: Any) -> str:
    return bytes(value).decode("latin-1").strip("\0 ") if isinstance(value, (bytes, bytearray)) else str(value)
