r"""Encryption of a backup's private members.

One random key per backup encrypts them; that key is wrapped by a passphrase (scrypt, RFC 7914, and ChaCha20-Poly1305,
RFC 8439) or by age (https://age-encryption.org: its program, so that hardware keys and plugins work too).

A sealed stream is ``MISEAL1\n``, 16 bytes of salt, and segments of 1 MiB, each ChaCha20-Poly1305 under a key derived
(HKDF-SHA256) from backup key, salt and member name, with nonce ``counter (11 bytes) || last (1 byte)`` as in STREAM
(Hoang, Reyhanitabar, Rogaway, Vizár 2015): segments cannot be left out, exchanged or carried to another member.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import subprocess
from pathlib import Path
from typing import IO, Any

from metalimmu import log
from metalimmu.errors import BackupError, SecretError, ToolError

MAGIC = b"MISEAL1\n"
SEGMENT = 1 << 20
_TAG = 16
_KEY = 32
_SCRYPT = {"n": 1 << 17, "r": 8, "p": 1}  # 128 MiB and about half a second: what a person waits, and a guesser pays
_MOST = 1 << 20  # n of a header that we did not write: at most 1 GiB


class BackupKey:
    """The key of one backup."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def new(cls) -> BackupKey:
        return cls(secrets.token_bytes(_KEY))

    def wrap(self, *, passphrase: str | None = None, recipient: str | None = None) -> dict[str, Any]:
        """For the manifest. Raises ToolError when `age` fails."""
        if recipient:
            return {"kind": "age", "wrapped": _age(["-a", "-r", recipient], self._key).decode()}
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        sealed = _cipher(_stretched(passphrase or "", salt, _SCRYPT)).encrypt(nonce, self._key, MAGIC)
        return {"kind": "scrypt", **_SCRYPT, "salt": _text(salt), "nonce": _text(nonce), "wrapped": _text(sealed)}

    @classmethod
    def unwrap(
        cls, header: dict[str, Any], *, passphrase: str | None = None, identity: Path | None = None
    ) -> BackupKey:
        """Raises SecretError: the wrong passphrase or identity, or none; BackupError for a damaged header."""
        kind = header.get("kind")
        if kind == "age":
            if identity is None:
                raise SecretError(
                    "this backup is encrypted to an age key",
                    hint="--age-identity FILE names the file with the secret key",
                )
            return cls(_age(["-d", "-i", str(identity)], str(header.get("wrapped", "")).encode()))
        if kind != "scrypt":
            raise BackupError(f"the backup is encrypted by {kind!r}, which this program does not know")
        if not passphrase:
            raise SecretError(
                "this backup is encrypted with a passphrase",
                hint="--passphrase-ref env:NAME or file:PATH says where it is",
            )
        return cls(_unwrapped(header, passphrase))

    def mac(self, data: bytes) -> str:
        """So that a manifest that somebody has changed is found out."""
        return hmac.new(self._derived(b"", "manifest"), data, hashlib.sha256).hexdigest()

    def seal(self, source: IO[bytes], target: IO[bytes], name: str) -> None:
        salt = secrets.token_bytes(16)
        cipher = _cipher(self._derived(salt, name))
        target.write(MAGIC + salt)
        counter, block = 0, source.read(SEGMENT)
        while True:
            following = source.read(SEGMENT)
            target.write(cipher.encrypt(_nonce(counter, last=not following), block, None))
            if not following:
                return
            counter, block = counter + 1, following

    def unseal(self, source: IO[bytes], target: IO[bytes], name: str) -> None:
        """Raises BackupError: cut short, changed, or another member's."""
        from cryptography.exceptions import InvalidTag

        head = source.read(len(MAGIC) + 16)
        if len(head) != len(MAGIC) + 16 or not head.startswith(MAGIC):
            raise BackupError(f"{name} in the backup is not what it should be: no sealed stream")
        cipher = _cipher(self._derived(head[len(MAGIC) :], name))
        counter, block = 0, source.read(SEGMENT + _TAG)
        while True:
            following = source.read(SEGMENT + _TAG)
            try:
                target.write(cipher.decrypt(_nonce(counter, last=not following), block, None))
            except InvalidTag:
                raise BackupError(f"{name} in the backup was changed or is cut short (segment {counter})") from None
            if not following:
                return
            counter, block = counter + 1, following

    def _derived(self, salt: bytes, name: str) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(hashes.SHA256(), _KEY, salt, b"metalimmu backup\0" + name.encode()).derive(self._key)


def _nonce(counter: int, *, last: bool) -> bytes:
    return counter.to_bytes(11, "big") + bytes([last])


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(key)


def _stretched(passphrase: str, salt: bytes, cost: dict[str, int]) -> bytes:
    n, r, p = cost["n"], cost["r"], cost["p"]
    return hashlib.scrypt(passphrase.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=_KEY)


def _unwrapped(header: dict[str, Any], passphrase: str) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        cost = {k: int(header[k]) for k in ("n", "r", "p")}
        if not (1 < cost["n"] <= _MOST and 1 <= cost["r"] <= 16 and 1 <= cost["p"] <= 16):
            raise BackupError(f"the backup asks for scrypt with {cost}, which is no cost that we use")
        salt, nonce, sealed = (base64.b64decode(header[k], validate=True) for k in ("salt", "nonce", "wrapped"))
        key: bytes = _cipher(_stretched(passphrase, salt, cost)).decrypt(nonce, sealed, MAGIC)
    except InvalidTag:
        raise SecretError(
            "the passphrase is not that of this backup", hint="the one that was in use when the backup was made"
        ) from None
    except (KeyError, TypeError, ValueError) as exc:
        raise BackupError(f"the backup's encryption header is damaged: {exc}") from exc
    return key


def _age(args: list[str], data: bytes) -> bytes:
    try:
        done = subprocess.run(["age", *args], input=data, capture_output=True, timeout=120, check=False)
    except FileNotFoundError:
        raise ToolError("the program age is not installed", hint="apt-get install age") from None
    except subprocess.TimeoutExpired:
        raise ToolError(
            "age did not end within two minutes", hint="does its plugin wait for a touch or a PIN?"
        ) from None
    if done.returncode != 0:
        words = log.redact(done.stderr.decode(errors="replace")).strip()
        raise SecretError(f"age failed: {words}", hint="check the recipient or the identity file")
    return done.stdout


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def private_file(path: Path) -> IO[bytes]:
    """A new file of mode 0600."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")
