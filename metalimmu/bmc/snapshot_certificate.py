"""The BMC's web certificate: as the driver has seen it on the wire, or else as the BMC describes it."""

from __future__ import annotations

import hashlib

from metalimmu.bmc import answers, times
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.places import Numbered
from metalimmu.bmc.reading import Reading
from metalimmu.errors import BmcUnsupported
from metalimmu.observed.types import Reason, Unknown

_PARTS = (
    ("CN", "CommonName"),
    ("O", "Organization"),
    ("OU", "OrganizationalUnit"),
    ("L", "City"),
    ("ST", "State"),
    ("C", "Country"),
)
ON_THE_WIRE = "TLS"
_ASKED_FOR = ("not_after", "issuer")


def certificate(reading: Reading) -> Asking[None]:
    """Fills bmc.certificate.not_after|issuer|subject, and .fingerprint where the certificate itself was seen."""
    if reading.peer:
        found, source = seen(reading.peer), ON_THE_WIRE
    else:
        found, source = yield from _described(reading)
    for name, value in found.items():
        setting = f"bmc.certificate.{name}"
        if value:
            reading.set(setting, value, source)
        elif name in _ASKED_FOR:
            reading.unknown[setting] = Unknown(Reason.not_modelled, f"its description has no {name}", source)


def seen(der: bytes) -> dict[str, str]:
    """Of a certificate in DER. Raises ValueError."""
    from cryptography import x509

    found = x509.load_der_x509_certificate(der)
    return {
        "not_after": times.iso(found.not_valid_after_utc.timestamp()),
        "issuer": _words(found.issuer.rfc4514_string()),
        "subject": _words(found.subject.rfc4514_string()),
        "fingerprint": hashlib.sha256(der).hexdigest(),
    }


def _words(name: str) -> str:
    """RFC 4514 begins with the most specific part; so do we, with a blank after each comma as in a BMC's description."""
    return answers.clean(", ".join(name.split(",")))


def _described(reading: Reading) -> Asking[tuple[dict[str, str], str]]:
    """Where the make has it; an older one of the make may have it where the standard does."""
    where = reading.places.certificate
    try:
        if where.numbered is not None:
            doc = yield from reading.document(where.numbered.at)
            return _numbered(doc, where.numbered), doc.uri
        if where.at:
            doc = yield from reading.document(where.at)
            return _standard(doc.part(*where.path)), doc.uri
    except BmcUnsupported:
        pass
    doc = yield from reading.at_path("certificate", lambda: _find(reading))
    return _standard(doc), doc.uri


def _find(reading: Reading) -> Asking[str]:
    network = yield from reading.document("network")
    uri = network.link("HTTPS", "Certificates")
    if not uri:
        raise BmcUnsupported(f"{network.uri} links no certificate")
    for member in (yield from reading.tree.members(uri)):
        return member
    raise BmcUnsupported(f"{uri} is empty")


def _standard(doc: Doc) -> dict[str, str]:
    """DSP0268 Certificate; HPE's own has the names as texts."""
    after = times.seconds(doc.text("ValidNotAfter"))
    return {
        "not_after": "" if after is None else times.iso(after),
        "issuer": _name(doc, "Issuer"),
        "subject": _name(doc, "Subject"),
    }


def _name(doc: Doc, who: str) -> str:
    if isinstance(doc.raw(who), str):
        return ", ".join("=".join(w.strip() for w in part.split("=", 1)) for part in doc.text(who).split(","))
    parts = doc.part(who)
    return ", ".join(f"{short}={parts.text(long)}" for short, long in _PARTS if parts.text(long))


def _numbered(doc: Doc, places: Numbered) -> dict[str, str]:
    found = doc.part("Attributes")
    for n in range(1, places.count + 1):
        if found.text(places.kind.format(n=n)) == places.wanted:
            after = times.seconds(found.text(places.not_after.format(n=n)))
            return {
                "not_after": "" if after is None else times.iso(after),
                "issuer": _attributes(found, places.issuer.format(n=n)),
                "subject": _attributes(found, places.subject.format(n=n)),
            }
    raise BmcUnsupported(f"{doc.uri} has no certificate of the web server")


_ATTRIBUTES = {"L": "Locality", "C": "CountryCode"}


def _attributes(found: Doc, prefix: str) -> str:
    names = ((short, found.text(prefix + _ATTRIBUTES.get(short, long))) for short, long in _PARTS)
    return ", ".join(f"{short}={text}" for short, text in names if text)
