"""The secrets of a deployment, derived from one key of the site: nothing secret is kept per deployment, and a controller
that was restarted knows the same tokens and addresses again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Literal, Self

from metalimmu import log
from metalimmu.boot.ports import Secret
from metalimmu.errors import SecretError

KEY_BYTES = 32
_TOKEN_BYTES = 20  # 160 bits; 32 characters in base32, since some BMCs cut URLs at 127


class SiteKey:
    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def at(cls, path: Path) -> Self:
        """The key in this file, made if there is none. Raises SecretError when it is damaged or others may read it."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            write_once(path, secrets.token_bytes(KEY_BYTES))
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise SecretError(
                f"{path} has {len(key)} bytes instead of {KEY_BYTES}",
                hint="restore it; or remove it, and start again what was being deployed",
            )
        if path.stat().st_mode & 0o077:
            raise SecretError(f"{path} can be read by others", hint=f"chmod 600 {path}")
        return cls(key)

    @property
    def id(self) -> str:
        """Tells one site's key from another's, and says nothing about it."""
        return hmac.digest(self._key, b"id", "sha256").hex()[:16]

    @property
    def controller(self) -> str:
        """By which controllers of one site tell each other from strangers."""
        return log.secret(self._derived("controller", ""))

    def token(self, kind: Secret, deployment: str) -> str:
        """The secret with the deployment's name: a controller that was restored from a backup can tell that it once gave
        a token for a deployment which it does not know any more.
        """
        return f"{self.secret(kind, deployment)}.{deployment}"

    def made(self, kind: Secret, secret: str, deployment: str) -> bool:
        """Is this secret ours for that deployment?"""
        wanted = self._derived(kind, deployment)
        return hmac.compare_digest(wanted.encode(), secret.encode("utf-8", "surrogateescape"))

    def secret(self, kind: Secret | Literal["switch"], deployment: str) -> str:
        """Lower-case letters and digits 2 to 7: fit for any URL, on any BMC."""
        return log.secret(self._derived(kind, deployment))

    def _derived(self, kind: str, deployment: str) -> str:
        mac = hmac.digest(self._key, f"{kind}\0{deployment}".encode(), "sha256")
        return base64.b32encode(mac[:_TOKEN_BYTES]).decode().lower()

    def keyed(self, purpose: str, *parts: str) -> str:
        """A hash (hex) of these texts that nobody without the key can compute, one for each purpose."""
        return hmac.digest(self._key, "\0".join((f"keyed {purpose}", *parts)).encode(), "sha256").hex()

    def hashes(self, deployment: str) -> dict[str, str]:
        """The five hash columns of a deployment's record."""
        return {
            "token_hash": hashed(self.secret("agent", deployment)),
            "proof_hash": hashed(self.secret("proof", deployment)),
            "media_hash": hashed(self.secret("media", deployment)),
            "chunk_hash": hashed(self.secret("chunk", deployment)),
            "answers_hash": hashed(self.secret("answers", deployment)),
        }


def hashed(secret: str) -> str:
    """SHA-256 (hex). Looking a secret up by its hash takes the same time whether or not a part of it is right."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def write_once(path: Path, data: bytes) -> None:
    """Create a file of mode 0600 with all of its content, or leave the one that another process made first."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(scratch)
    except FileExistsError:
        return
    finally:
        scratch.unlink()
