"""What the collector is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

import msgspec

from metalimmu.bmc.ports import Target
from metalimmu.errors import MetalimmuError

T = TypeVar("T")


class ScanTarget(Target, Protocol):
    """A Target that says where it stands: `labels["rack"]` is the rack of the budget. desired.HostSpec fits."""

    @property
    def labels(self) -> Mapping[str, str]: ...


class CollectSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    window: int = 1000
    """BMCs that are talked to at once. One that keeps silent for `silence` does not count until it speaks again."""

    total: float = 300.0
    """For one BMC in all, waiting for the budget not counted; what is asked after that is answered with BmcTimeout."""

    patience: float = 20.0
    """How long one read is repeated while the BMC is busy (503) or its connection breaks off."""

    silence: float = 3.0
    """A BMC that has not answered for so long gives its places in the window, the rack and the site to others."""

    max_refused: int = 3
    """After so many refused logins nobody is logged in any more: no account is locked by a scan."""

    largest: int = 16 << 20
    """Bytes of one answer; HPE's attribute registries have 5 MB. Parsing it is time of all, so not more."""


class Collected(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One BMC's result. `value` is what its walk returned. `failure` says why there is none; both are there when the BMC
    went away in the middle: then `value` has what was read before, and the rest as unknown.
    """

    target: ScanTarget
    at: float  # when the conversation began, seconds since 1970
    value: T | None
    failure: MetalimmuError | None
    requests: int
    seconds: float
