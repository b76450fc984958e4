"""What the doctor looks at with: every question to the machine is here, so that tests answer in its place."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from metalimmu.boot import dhcp_probe
from metalimmu.boot.listeners import Listener, open_socket
from metalimmu.errors import ListenError

_TIME = 3.0  # seconds for one connection or one name
_STA_UNSYNC = 0x40  # adjtimex(2)
_TIME_ERROR = 5
_CAPABILITIES = {"CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}  # bits, capabilities(7)


@dataclass(frozen=True)
class Clock:
    synchronized: bool | None  # None: not known
    error: float = 0.0  # seconds, the kernel's estimate
    why: str = ""


class Probes(Protocol):
    def listen(self, listener: Listener) -> str:
        """Why it cannot be listened on; empty: it can."""
        ...

    def pin(self, host: str, port: int) -> str | None:
        """SHA-256 of the certificate that answers there; None: nothing answers, empty: not in TLS."""
        ...

    def addresses(self, host: str) -> list[str]:
        """What the name means; empty: nothing."""
        ...

    def is_ours(self, address: str) -> bool: ...

    def source(self, address: str) -> str | None:
        """Our address when we talk to that one; None: there is no route."""
        ...

    def clock(self) -> Clock: ...

    def free(self, path: Path) -> tuple[int, int, int]:
        """Bytes free and in all, and free inodes, of the disk that `path` is or will be on."""
        ...

    def program(self, name: str) -> str | None: ...

    def alive(self, pid: int) -> bool: ...

    def interface(self, name: str) -> bool:
        """Is there a network interface of that name?"""
        ...

    def lacks(self) -> tuple[str, ...]:
        """Capabilities that dnsmasq needs and this process has not."""
        ...

    def dhcp(self, interface: str) -> tuple[str, ...]:
        """Servers that answer there. Takes seconds, and the capabilities above."""
        ...

    def now(self) -> float: ...


class System:
    """The machine that we run on."""

    def listen(self, listener: Listener) -> str:
        try:
            open_socket(listener).close()
        except ListenError as exc:
            return exc.message
        return ""

    def pin(self, host: str, port: int) -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # it is compared
        try:
            with socket.create_connection((host, port), _TIME) as plain:
                plain.settimeout(_TIME)
                try:
                    with context.wrap_socket(plain) as secure:
                        return hashlib.sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()
                except (OSError, ssl.SSLError):
                    return ""
        except OSError:
            return None

    def addresses(self, host: str) -> list[str]:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            return []
        return list(dict.fromkeys(str(f[4][0]) for f in found))

    def is_ours(self, address: str) -> bool:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.bind((address, 0))
        except OSError:
            return False
        return True

    def source(self, address: str) -> str | None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((address, 9))  # chooses a route, and sends nothing
                return str(sock.getsockname()[0])
        except OSError:
            return None

    def clock(self) -> Clock:
        if platform.system() != "Linux" or ctypes.sizeof(ctypes.c_long) != 8:
            return Clock(None, why=f"not known how on {platform.system()} {platform.machine()}")
        timex = (ctypes.c_long * 32)()  # struct timex: modes, offset, freq, maxerror, esterror, status, …
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
        if state < 0:
            return Clock(None, why=f"adjtimex: {os.strerror(ctypes.get_errno())}")
        status = timex[5] & 0xFFFFFFFF
        return Clock(state != _TIME_ERROR and not status & _STA_UNSYNC, error=timex[3] / 1e6)

    def free(self, path: Path) -> tuple[int, int, int]:
        there = next(p for p in (path, *path.parents) if p.exists())
        usage, stat = shutil.disk_usage(there), os.statvfs(there)
        return usage.free, usage.total, stat.f_favail if stat.f_files else 1 << 30  # btrfs counts none

    def program(self, name: str) -> str | None:
        sbin = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
        return shutil.which(name, path=sbin)

    def alive(self, pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def interface(self, name: str) -> bool:
        return name in (known for _, known in socket.if_nameindex())

    def lacks(self) -> tuple[str, ...]:
        status = Path("/proc/self/status").read_text()
        has = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
        return tuple(name for name, bit in _CAPABILITIES.items() if not has >> bit & 1)

    def dhcp(self, interface: str) -> tuple[str, ...]:
        return dhcp_probe.servers(interface)

    def now(self) -> float:
        import time

        return time.time()
