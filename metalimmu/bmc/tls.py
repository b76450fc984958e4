"""One TLS context for each way of knowing who a BMC is, shared by all connections of the process.

Loading the CA store takes 17 ms of CPU: once, and not for each connection as urllib3 does for sushy.
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path

from metalimmu import log
from metalimmu.desired.types import Tls
from metalimmu.errors import UsageError

LOG = log.get("bmc")


def context_and_pin(tls: Tls, base: str, *, quiet: bool = False) -> tuple[ssl.SSLContext, str | None]:
    """The pin is the SHA-256 of the certificate (DER) in lower-case hex. `quiet`: the caller says that nothing is
    verified. Raises UsageError.
    """
    if tls.fingerprint:
        pin = tls.fingerprint.replace(":", "").strip().lower()
        if len(pin) != 64:
            raise UsageError(f"{base}: tls.fingerprint is not a SHA-256 (64 hex digits): {tls.fingerprint!r}")
        # Not a verifying context as well: urllib3 turns check_hostname off in the context it checks a pin with, and
        # ours are shared.
        return _unverified(), pin
    if tls.verify:
        return _verifying(tls.ca, _stamp(tls.ca)), None
    if not quiet:
        say_once(f"{base}: the BMC's certificate is not verified (tls.verify is false); set tls.fingerprint or tls.ca")
    return _unverified(), None


def _stamp(ca: str | None) -> float:
    """A changed CA file makes a new context."""
    try:
        return Path(ca).stat().st_mtime if ca else 0.0
    except OSError as exc:
        raise UsageError(f"tls.ca {ca} cannot be read: {exc.strerror}") from exc


@lru_cache(maxsize=32)
def _verifying(ca: str | None, _stamp: float) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError as exc:
        raise UsageError(f"tls.ca {ca} is no PEM file of certificates: {exc}") from exc


@lru_cache(maxsize=1)
def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # BMCs of 2015 have RSA keys of 1024 bits, which Debian's default level refuses. Here the pin tells who it is,
    # or the operator has said that nothing does.
    context.set_ciphers("DEFAULT:@SECLEVEL=1")
    return context


@lru_cache(maxsize=4096)
def say_once(text: str) -> None:
    LOG.warning("%s", text)
