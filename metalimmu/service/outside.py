"""Ask a running system over SSH what it is: the proof of images that cannot report by themselves.

The system is new, so its host key is not known and is not checked: what is proven is that the address answers with the
key of our run-time config, on the machine with the serial we wrote, in the image we wrote.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

from metalimmu import log
from metalimmu.errors import SecretError, ToolError

if TYPE_CHECKING:
    from pathlib import Path

    from metalimmu.desired.types import HostSpec

logger = log.get("ssh")

_ASK = "cat /etc/os-release; echo SERIAL=$(cat /sys/class/dmi/id/product_serial 2>/dev/null || sudo -n cat /sys/class/dmi/id/product_serial); echo BOOT=$(cat /proc/sys/kernel/random/boot_id)"
_FIELD = re.compile(r"^([A-Z_]+)=(.*)$", re.MULTILINE)


def ask_ssh(spec: HostSpec, folder: Path) -> dict[str, str] | None:
    """os-release's fields, SERIAL and BOOT; None while nothing answers, or something that is not what was written.

    Raises ToolError without ssh, SecretError for a key that cannot be used.
    """
    address = (spec.network.address or "").split("/")[0] or spec.name
    proof = spec.proof
    argv = [
        "ssh",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=5",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
    ]
    if proof.ssh_key:
        if not proof.ssh_key.startswith("file:"):
            raise SecretError(
                f"proof.ssh_key {proof.ssh_key.split(':')[0]}: is not a file", hint="name a private key as file:PATH"
            )
        argv += ["-i", str(folder / proof.ssh_key.removeprefix("file:")), "-o", "IdentitiesOnly=yes"]
    target = f"{proof.ssh_user}@{address}" if proof.ssh_user else address
    try:
        done = subprocess.run([*argv, "--", target, _ASK], capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError as exc:
        raise ToolError("ssh is not installed", hint="apt-get install openssh-client") from exc
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        logger.debug("ssh %s: %s", target, done.stderr.strip()[-200:])
        return None
    said = {k: " ".join(shlex.split(v)) for k, v in _FIELD.findall(done.stdout[:65536])}
    return None if _differs(said, spec) else said


def _differs(said: dict[str, str], spec: HostSpec) -> str:
    wanted = dict(spec.proof.expect)
    if spec.serial:
        wanted["SERIAL"] = spec.serial
    for key, value in wanted.items():
        if said.get(key, "").casefold() != value.casefold():
            logger.info("%s: %s is %r, expected %r", spec.name, key, said.get(key), value)
            return key
    return ""
