"""Signatures by SSH keys, as `ssh-keygen -Y` makes and verifies them (PROTOCOL.sshsig of OpenSSH).

What is signed is the plan's digest and a line break, so the same is done by hand with::

    echo sha256:… | ssh-keygen -Y sign -n metalimmu-plan -f ~/.ssh/id_ed25519 >> FILE.approvals
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from metalimmu.desired.problems import visible
from metalimmu.desired.signers import Signer
from metalimmu.errors import ToolError, UsageError

NAMESPACE = "metalimmu-plan"

_VERIFY = 20.0  # seconds
_SIGN = 300.0  # a person types a passphrase, or touches a key
_ARMOR = re.compile(r"-----BEGIN SSH SIGNATURE-----\s+([A-Za-z0-9+/=\s]{1,20000}?)\s*-----END SSH SIGNATURE-----")
_MAGIC = b"SSHSIG\x00\x00\x00\x01"


class Signature(NamedTuple):
    text: str  # armored
    key: bytes  # the public key
    namespace: str


def signatures(text: str) -> list[Signature]:
    """All that stand in the text and have the form of one."""
    found = []
    for match in _ARMOR.finditer(text):
        try:
            blob = base64.b64decode("".join(match[1].split()), validate=True)
            if not blob.startswith(_MAGIC):
                continue
            key, rest = _string(blob[len(_MAGIC) :])
            namespace, _ = _string(rest)
        except (binascii.Error, ValueError):
            continue
        found.append(Signature(match[0].strip() + "\n", key, namespace.decode(errors="replace")))
    return found


def _string(data: bytes) -> tuple[bytes, bytes]:
    """RFC 4251, section 5. Raises ValueError."""
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4 + size:
        raise ValueError("cut off")
    return data[4 : 4 + size], data[4 + size :]


def fingerprint(key: bytes) -> str:
    """As ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def sign(message: bytes, key: Path) -> Signature:
    """Raises UsageError for a key that is not there, ToolError when it cannot be used. May ask for a passphrase."""
    if not key.is_file():
        raise UsageError(f"no key {key}", hint="--key FILE names an SSH key; `ssh-keygen -t ed25519` makes one")
    shown = sys.stderr.isatty()  # "touch your key" must be seen
    done = _run(["-Y", "sign", "-q", "-n", NAMESPACE, "-f", str(key)], message, limit=_SIGN, shown=shown)
    found = signatures(done.stdout.decode(errors="replace"))
    if done.returncode != 0 or not found:
        raise ToolError(
            f"ssh-keygen could not sign with {key}",
            hint="is it your private key, with the right passphrase, or a .pub whose private half ssh-agent has?",
            output=_said(done),
        )
    return found[0]


def public_key(key: Path) -> bytes:
    """Of a private or a .pub file. Raises UsageError, ToolError. May ask for a passphrase."""
    beside = key if key.suffix == ".pub" else key.with_name(key.name + ".pub")
    if beside.is_file():
        text = beside.read_text(errors="replace")
    elif key.is_file():
        done = _run(["-y", "-f", str(key)], b"", limit=_SIGN, shown=sys.stderr.isatty())
        if done.returncode != 0:
            raise ToolError(f"ssh-keygen cannot read {key}", hint="is it your private key?", output=_said(done))
        text = done.stdout.decode(errors="replace")
    else:
        raise UsageError(f"no key {key}", hint="--key FILE names an SSH key; `ssh-keygen -t ed25519` makes one")
    try:
        return base64.b64decode(text.split()[1], validate=True)
    except (IndexError, binascii.Error, ValueError) as exc:
        raise UsageError(f"{beside} is no public key of OpenSSH", hint="--key FILE names an SSH key") from exc


def refusal(signature: Signature, message: bytes, signers: Sequence[Signer]) -> str:
    """Why the signature does not count; empty: it is by one of `signers`, all lines of one key. Raises ToolError."""
    why = ""
    for signer in signers:
        with tempfile.TemporaryDirectory(prefix="metalimmu-") as folder:
            line, sig = Path(folder) / "signer", Path(folder) / "sig"
            line.write_text(signer.text())
            sig.write_text(signature.text)
            argv = ["-Y", "verify", "-f", str(line), "-I", signer.principals[0], "-n", NAMESPACE, "-s", str(sig)]
            done = _run(argv, message, limit=_VERIFY)
        if done.returncode == 0:
            return ""
        why = why or _why(_said(done))
    return why or "nobody in allowed_signers has its key"


def _why(said: str) -> str:
    """ssh-keygen's words, without the name of our temporary file."""
    lines = [re.sub(r"^\S+:\d+: ", "", line.strip()) for line in said.splitlines()]
    first = next((line for line in lines if line and not line.startswith("Could not verify")), "ssh-keygen says no")
    if "incorrect signature" in first:
        return "it is of another digest: that was another plan"
    return visible(first, 200)


def _run(args: list[str], data: bytes, *, limit: float, shown: bool = False) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", *args],
            input=data,
            stdout=subprocess.PIPE,
            stderr=None if shown else subprocess.PIPE,
            timeout=limit,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as exc:
        raise ToolError("ssh-keygen is not installed", hint="apt-get install openssh-client") from exc
    except subprocess.TimeoutExpired as exc:
        raise ToolError(f"ssh-keygen has not answered within {limit:.0f} s", hint="is it waiting for a key?") from exc


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return (done.stderr or b"").decode(errors="replace")[:4000]
