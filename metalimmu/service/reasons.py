"""Why a host could not be read: codes of errors, in words for people, and which of them are one cause."""

from __future__ import annotations

PARTLY = "PartlyRead"
"""Of hosts that answer, and do not tell all that their profile asks for."""

_WORDS = {
    PARTLY: "read in part only",
    "BmcUnreachable": "unreachable",
    "BmcBusy": "busy or answers with errors",
    "BmcCertificateError": "certificate is not trusted",
    "BmcLoginRefused": "login refused",
    "ScanStopped": "not asked, after too many refused logins",
    "BmcNotPermitted": "not permitted",
    "BmcUnsupported": "not supported",
    "BmcBroken": "answers that cannot be read",
    "BmcRefused": "refused",
    "SecretError": "credentials cannot be read",
    "SiteError": "its documents are in conflict",
    "NotFound": "no longer in the site",
}
_SAME = {
    # A network that is down gives all of them.
    "BmcTimeout": "BmcUnreachable",
    "NotSent": "BmcUnreachable",
    "Broke": "BmcUnreachable",
    "NoTurn": "BmcBusy",
    "BmcLoginNotTried": "BmcLoginRefused",
}


def cause(code: str) -> str:
    """The code that stands for all with the same cause."""
    return _SAME.get(code, code)


def words(code: str) -> str:
    """A code that is not known here is its own word."""
    return _WORDS.get(cause(code), code)
