"""`enroll`: make a machine that has asked the network what to boot a host of the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metalimmu.cli.output import site_option


@click.command()
@site_option
@click.argument("machine", metavar="MAC|SERIAL|UUID")
@click.option("--bmc", required=True, metavar="ADDRESS", help="Its BMC: redfish+https://10.12.0.7, ipmi://…")
@click.option("--name", default="", help="Of the host; default: from its serial number.")
@click.option("--role", help="Its role.")
@click.option("--pool", help="Its pool.")
@click.option("--credentials", metavar="REF", help="env:PREFIX, file:PATH, …; default: by the site's rules.")
@click.option("--no-check", is_flag=True, help="Do not ask the BMC whether it is this machine's.")
@click.option("--write", "target", metavar="FILE", default="hosts/enrolled.yaml", show_default=True)
def enroll(site: Path, machine: str, bmc: str, no_check: bool, **options: Any) -> None:
    """Write a host document for a machine of `host discovered`, for review.

    Its BMC is asked who it is first: serial number and UUID must be those that the machine said. Nothing is written to it.
    """
    from metalimmu.cli import review
    from metalimmu.service.brownfield import enroll as service
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    done = service.enroll(opened, machine, bmc, check=not no_check, **options)
    review.say(done.merged, opened.folder)
    if done.compared:
        click.echo(f"{done.name}: the BMC says the same {' and '.join(done.compared)}", err=True)
    elif not no_check:
        click.echo(f"{done.name}: nothing that the machine said can be compared with its BMC: look yourself", err=True)
