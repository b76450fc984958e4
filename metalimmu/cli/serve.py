"""`serve`: everything of a site that runs by itself."""

from __future__ import annotations

from pathlib import Path

import click

from metalimmu.cli.output import site_option


@click.command()
@site_option
@click.option("--listen", metavar="ADDRESS:PORT", help="For /metrics and /healthz; default: listen.serve of site.yaml.")
@click.pass_context
def serve(ctx: click.Context, site: Path, listen: str | None) -> None:
    """Run schedules, alerts, metrics, the worker and the boot service, until Ctrl-C or SIGTERM.

    Runs and scans under way are left as they are, and go on with the next `serve`.
    """
    from metalimmu import log
    from metalimmu.service.site import OpenSite
    from metalimmu.triggers.serve import Server

    verbose = ctx.find_root().params.get("verbose") or 0
    log.setup(verbose=max(1, verbose))  # its log lines are what it says
    opened = OpenSite(site)
    try:
        Server(opened, listen=listen, verbose=max(1, verbose)).run()
    finally:
        opened.close()
