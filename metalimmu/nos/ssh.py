"""OpenSSH as a child process: one command, one connection. Nothing of the user's own configuration is used.

The host key is pinned: where none is known the first one seen is, once the driver has found a NOS behind it, and a
known one never changes by itself.
Passwords go to ssh through its askpass program and an environment variable, which only this user and root can read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from metalimmu.errors import BmcBroken, BmcLoginRefused, BmcUnreachable, HostKeyChanged, SecretError, ToolError
from metalimmu.nos.ports import Said

LARGEST = 16 << 20  # bytes of one answer: a config_db of a large switch has a few million
_CHECK = 0.3  # seconds
_ASKPASS = '#!/bin/sh\nprintf "%s\\n" "$METALIMMU_SSH_PASSWORD"\n'
_REFUSED = re.compile(r"permission denied|too many authentication failures", re.IGNORECASE)
_CHANGED = re.compile(r"host key verification failed|remote host identification has changed", re.IGNORECASE)


class Ssh:
    """`check` is called a few times each second while an answer is waited for, and raises to end that. `keys`: the host keys that are right, as `ssh-ed25519 AAAA…`; without any the first one seen is, and is told to
    `learn`. `key`: a private key file; without it `password`.
    """

    def __init__(
        self,
        address: str,
        *,
        port: int = 22,
        user: str,
        password: str = "",
        key: str | None = None,
        keys: Sequence[str] = (),
        learn: Callable[[tuple[str, ...]], None] | None = None,
        connect: float = 10.0,
        name: str = "",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._address = address
        self._port = port
        self._user = user
        self._password = password
        self._key = key
        self._keys = tuple(keys)
        self._learn = learn
        self._seen: tuple[str, ...] = ()
        self._connect = connect
        self._name = name or address
        self._check = check
        if key and not Path(key).is_file():
            raise SecretError(f"{self._name}: no private key {key}", hint="correct switch.key of the host")

    def run(self, command: str, *, limit: float = 60.0) -> Said:
        with tempfile.TemporaryDirectory(prefix="metalimmu-ssh-") as folder:
            known = Path(folder) / "known_hosts"
            where = self._address if self._port == 22 else f"[{self._address}]:{self._port}"
            known.write_text("".join(f"{where} {key}\n" for key in self._keys))
            environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")}
            if not self._key:
                askpass = Path(folder) / "askpass"
                askpass.write_text(_ASKPASS)
                askpass.chmod(0o700)
                environment |= {
                    "SSH_ASKPASS": str(askpass),
                    "SSH_ASKPASS_REQUIRE": "force",
                    "DISPLAY": ":",
                    "METALIMMU_SSH_PASSWORD": self._password,
                }
            said = _run(
                [*self._argv(known), "--", f"{self._user}@{self._address}", command], environment, limit, self._check
            )
            if said is None:
                raise BmcUnreachable(f"{self._name}: no answer by SSH within {limit:.0f} s", hint=self._silent())
            if said.status == 255:
                self._raise(said.err)
            if not self._keys:
                self._seen = _keys(known.read_text())
            return said

    def confirm(self) -> None:
        if not self._keys and self._seen:
            self._keys = self._seen
            if self._learn is not None:
                self._learn(self._seen)

    def _argv(self, known: Path) -> list[str]:
        options = {
            "BatchMode": "yes" if self._key else "no",
            "ConnectTimeout": f"{max(1, round(self._connect))}",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "StrictHostKeyChecking": "yes" if self._keys else "accept-new",
            "UserKnownHostsFile": str(known),
            "GlobalKnownHostsFile": "/dev/null",
            "UpdateHostKeys": "no",
            "HashKnownHosts": "no",
            "CheckHostIP": "no",
            "NumberOfPasswordPrompts": "1",
            "PreferredAuthentications": "publickey" if self._key else "password,keyboard-interactive",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "ForwardAgent": "no",
            "LogLevel": "ERROR",
        }
        if self._keys:
            options["HostKeyAlgorithms"] = ",".join(dict.fromkeys(_algorithms(self._keys)))
        argv = ["ssh", "-F", "none", "-T", "-p", str(self._port)]
        for name, value in options.items():
            argv += ["-o", f"{name}={value}"]
        return [*argv, "-i", self._key] if self._key else argv

    def _raise(self, err: str) -> None:
        last = err.strip().splitlines()[-1:] or ["no word why"]
        if _CHANGED.search(err):
            raise HostKeyChanged(
                f"{self._name} at {self._address} shows another SSH host key than the one that is known"
            )
        if _REFUSED.search(err):
            raise BmcLoginRefused(
                f"{self._name}: SSH at {self._address}:{self._port} refused the login of {self._user}",
                hint="correct the credentials (or switch.key) of this host",
            )
        raise BmcUnreachable(f"{self._name}: SSH at {self._address}:{self._port}: {last[0][:200]}", hint=self._silent())

    def _silent(self) -> str:
        return f"check address and VLAN, and that its NOS runs: `metalimmu switch show {self._name}` asks again"


def _keys(known_hosts: str) -> tuple[str, ...]:
    rows = (line.split() for line in known_hosts.splitlines())
    return tuple(" ".join(r[1:3]) for r in rows if len(r) >= 3)


def _algorithms(keys: Sequence[str]) -> list[str]:
    """An RSA key is offered under the names of its hashes too (RFC 8332)."""
    found: list[str] = []
    for key in keys:
        kind = key.split()[0]
        found += ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"] if kind == "ssh-rsa" else [kind]
    return found


def _run(argv: list[str], environment: dict[str, str], limit: float, check: Callable[[], None]) -> Said | None:
    """None when the limit passed. Raises ToolError, BmcBroken for an answer without end, and what `check` raises."""
    if shutil.which(argv[0]) is None:
        raise ToolError("ssh is not installed", hint="apt-get install openssh-client")
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # no terminal to ask on
    ) as child:
        out = _Reader(child.stdout, LARGEST + 1)
        err = _Reader(child.stderr, 65536)
        end = time.monotonic() + limit
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(_CHECK)
                check()
                if len(out.data) > LARGEST:
                    raise BmcBroken(
                        f"an answer by SSH of more than {LARGEST >> 20} MiB",
                        hint="look at its console; `metalimmu -vv switch show HOST` shows more",
                    )
                if child.returncode is not None:
                    break
                if time.monotonic() > end:
                    return None
        finally:
            with suppress(ProcessLookupError):
                child.kill()
            out.join(5)
            err.join(5)
    return Said(child.returncode, out.data.decode(errors="replace"), err.data.decode(errors="replace"))


class _Reader(threading.Thread):
    """What a pipe gives, up to a limit, after which nobody reads and the child stands still."""

    def __init__(self, pipe: IO[bytes] | None, most: int) -> None:
        super().__init__(daemon=True)
        self.data = b""
        self._pipe = pipe
        self._most = most
        self.start()

    def run(self) -> None:
        if self._pipe is not None:
            self.data = self._pipe.read(self._most)
