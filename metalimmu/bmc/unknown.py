"""From an error to the reason why a value is not known."""

from __future__ import annotations

from metalimmu.errors import (
    BmcBroken,
    BmcBusy,
    BmcCertificateError,
    BmcError,
    BmcLoginRefused,
    BmcNotPermitted,
    BmcUnreachable,
    BmcUnsupported,
)
from metalimmu.observed.types import Reason, Unknown

_REASONS: tuple[tuple[type[BmcError], Reason], ...] = (
    (BmcNotPermitted, Reason.not_permitted),
    (BmcLoginRefused, Reason.not_permitted),
    (BmcUnsupported, Reason.not_modelled),
    (BmcUnreachable, Reason.unreachable),
    (BmcCertificateError, Reason.unreachable),
    (BmcBusy, Reason.broken),  # it answered 5xx until our patience ended: nothing there can be read now
    (BmcBroken, Reason.broken),
)


class NotSent(BmcUnreachable):
    """Not a byte of the request has left us: it is safe to send it again, whatever it is."""


class ProxyUnusable(NotSent):
    """The proxy itself: it is not there, or takes no connection from us. The same for every BMC behind it."""


class BmcTimeout(BmcUnreachable):
    """No answer in time, from a BMC that did take the connection."""


class Hindered(BmcError):
    """What is asked for depends on something that is unknown itself; its reason is `why`."""

    def __init__(self, why: Unknown) -> None:
        super().__init__(why.detail or str(why.reason))
        self.why = why


def unknown(exc: Exception, source: str = "") -> Unknown:
    """Any exception becomes an Unknown; one that is not a BmcError is a fault of ours in reading an odd answer."""
    if isinstance(exc, Hindered):
        return exc.why
    if isinstance(exc, BmcTimeout):
        return Unknown(Reason.timeout, str(exc), source)
    for kind, reason in _REASONS:
        if isinstance(exc, kind):
            return Unknown(reason, str(exc), source)
    return Unknown(Reason.broken, str(exc) if isinstance(exc, BmcError) else f"{type(exc).__name__}: {exc}", source)
