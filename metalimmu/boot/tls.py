"""The controller's own key and certificate: made once per site, pinned by each machine that boots from our media."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from metalimmu.boot.tokens import write_once
from metalimmu.errors import SecretError

_YEARS = 100  # machines do not look at dates: their clocks are wrong. Renewing would break media that is in use


@dataclass(frozen=True)
class TlsFiles:
    certificate: Path  # PEM
    key: Path  # PEM, mode 0600

    @property
    def pin(self) -> str:
        """SHA-256 (hex) of the certificate in DER."""
        return pin(self.certificate)

    @property
    def pem(self) -> str:
        """The certificate alone."""
        return self.certificate.read_text()

    def context(self) -> ssl.SSLContext:
        """For the server's side. Raises SecretError when key and certificate do not fit each other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as exc:
            raise SecretError(
                f"{self.certificate} and {self.key} do not serve as certificate and key: {exc}",
                hint="restore both from a backup; or remove both, and start again what was being deployed",
            ) from exc
        return context


def pin(certificate: Path) -> str:
    """SHA-256 (hex) of a PEM certificate in DER. Raises SecretError when the file has none."""
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
    except (OSError, ValueError) as exc:
        raise SecretError(f"{certificate} has no certificate: {exc}", hint="restore it from a backup") from exc


def ensure(folder: Path, url: str) -> TlsFiles:
    """Key and certificate in `folder`, made if they are not there; for the host part of `url` (urls.machines).

    Two processes that start at once use the same key, and the certificate that came first. An existing certificate stays
    when `url` changes: machines pin the certificate and do not look at names. Raises SecretError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = TlsFiles(folder / "controller.pem", folder / "controller.key")
    if not files.key.exists():
        write_once(files.key, _new_key())
    if files.key.stat().st_mode & 0o077:
        raise SecretError(f"{files.key} can be read by others", hint=f"chmod 600 {files.key}")
    if not files.certificate.exists():
        write_once(files.certificate, _certificate(files.key.read_bytes(), urlsplit(url).hostname or "localhost"))
    return files


def _new_key() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate(key_pem: bytes, host: str) -> bytes:
    """Self-signed (RFC 5280), in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = serialization.load_pem_private_key(key_pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SecretError("controller.key is not an elliptic curve key", hint="restore it from a backup")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "metalimmu controller")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    try:
        address: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        address = x509.DNSName(host)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start.replace(year=start.year + _YEARS))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
