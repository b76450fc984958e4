"""A fleet's certificates: a CA of its own, one certificate for a hundred BMCs each, and a strange one that no client knows."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

CA = "ca.pem"
KEY = "bmc.key"  # shared: these machines have nothing to protect
STRANGE = "strange.pem"
NAMES = 100  # addresses in one certificate: it is sent at each handshake


def name(index: int) -> str:
    """The file with the certificate of the index-th BMC."""
    return f"bmc-{index // NAMES:04d}.pem"


def create(folder: Path, addresses: list[str]) -> None:
    """ca.pem, bmc-NNNN.pem, strange.pem, and their key (mode 0600)."""
    from cryptography.hazmat.primitives.asymmetric import ec

    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    signer = _certificate("metalimmu fleet CA", authority, [], None)
    _write(folder / CA, signer)
    _write_key(folder / KEY, key)
    for start in range(0, len(addresses), NAMES):
        issued = _certificate("emulated BMC", key, addresses[start : start + NAMES], (signer, authority))
        _write(folder / name(start), issued)
    _write(folder / STRANGE, _certificate("somebody else", key, addresses[:NAMES], None))


def _certificate(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    addresses: list[str],
    signer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer[0].subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if signer:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer[1].public_key())
        builder = builder.add_extension(identifier, critical=False)
    else:
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
    if addresses:
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer[1] if signer else key, hashes.SHA256())


def _write(path: Path, certificate: x509.Certificate) -> None:
    from cryptography.hazmat.primitives import serialization

    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    from cryptography.hazmat.primitives import serialization

    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(private)


def context(folder: Path, certificate: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(folder / certificate, folder / KEY)
    return made


def fingerprint(folder: Path, certificate: str) -> str:
    """SHA-256 of the certificate in DER, hex."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert((folder / certificate).read_text())).hexdigest()
