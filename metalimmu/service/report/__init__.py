"""The report: one HTML file about a fleet, for a person who would rather look than read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite


def html(site: OpenSite, *, hosts: Sequence[str] | None = None, selector: str | None = None) -> str:
    """About the named hosts, those of the selector, or all. Raises NotFound, UsageError, SiteError, StoreError."""
    from metalimmu.service.report.build import build
    from metalimmu.service.report.page import render

    return render(build(site, hosts=hosts, selector=selector))
