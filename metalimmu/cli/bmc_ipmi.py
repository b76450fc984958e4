"""`bmc sensors | events | frus | light`: over IPMI."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from metalimmu.cli.output import emit, output_option, site_option


@click.command()
@site_option
@click.argument("host")
@output_option
def sensors(site: Path, host: str, fmt: str) -> None:
    """Temperatures, fans, voltages, states; over IPMI."""
    emit(_read(site, host, "sensors"), ["name", "value", "units", "health", "states"], fmt, wide=["type"])


@click.command()
@site_option
@click.argument("host")
@output_option
def events(site: Path, host: str, fmt: str) -> None:
    """The system event log, oldest first; over IPMI. Times are the BMC's own."""
    rows = _read(site, host, "events")
    if fmt in ("table", "wide"):
        for row in rows:
            row["at"] = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(row["at"])) if row["at"] else None
    emit(rows, ["at", "severity", "component", "event"], fmt, name="id", wide=["id"])


@click.command()
@site_option
@click.argument("host")
@output_option
def frus(site: Path, host: str, fmt: str) -> None:
    """Field-replaceable units with their makers and serial numbers; over IPMI."""
    rows = _read(site, host, "frus")
    if fmt in ("table", "wide"):
        rows = [
            {"name": fru["name"], "field": field, "value": value}
            for fru in rows
            for field, value in (fru.get("info") or {"error": fru.get("error", "empty")}).items()
        ]
    emit(rows, ["name", "field", "value"], fmt)


@click.command()
@site_option
@click.argument("host")
@click.argument("state", type=click.Choice(["on", "off"]))
def light(site: Path, host: str, state: str) -> None:
    """The light by which people find the machine; over IPMI."""
    from metalimmu.service import ipmi
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    try:
        ipmi.light(opened, host, on=state == "on")
    finally:
        opened.close()
    click.echo(f"{host}: light {state}")


def _read(site: Path, host: str, what: Any) -> list[dict[str, Any]]:
    from metalimmu.service import ipmi
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    try:
        return ipmi.read(opened, host, what)
    finally:
        opened.close()
