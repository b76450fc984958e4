"""`host list | show | inspect | discovered`, `power`, `prove`, `release`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metalimmu.cli.output import emit, output_option, site_option
from metalimmu.cli.targets import chosen, targets


@click.group()
def host() -> None:
    """Hosts: servers and switches of the site."""


@host.command("list")
@site_option
@click.option(
    "-l", "--selector", metavar="KEY=VALUE,…", help="Labels, and pool, role, rack, model, image, state, proof."
)
@output_option
def list_(site: Path, selector: str | None, fmt: str) -> None:
    """List hosts with state, proof and image."""
    from metalimmu.service import hosts
    from metalimmu.service.site import OpenSite

    rows = hosts.rows(OpenSite(site), selector)
    if selector and not rows and fmt in ("table", "wide"):
        click.echo("no host matches", err=True)
    emit(
        rows,
        ["name", "state", "proof", "image", "wanted", "quarantine"],
        fmt,
        wide=["health", "role", "pool", "power", "serial", "bmc", "error"],
    )


@host.command()
@site_option
@click.argument("name")
@output_option
def show(site: Path, name: str, fmt: str) -> None:
    """Show all that is known of a host, with the evidence of its proof."""
    import yaml

    from metalimmu.service import hosts
    from metalimmu.service.site import OpenSite

    found = hosts.show(OpenSite(site), name)
    if fmt == "json":
        emit([found], [], fmt)
    else:
        known = {k: hosts.readable(v, k) for k, v in found.items() if v not in (None, [], {})}
        click.echo(yaml.safe_dump(known, sort_keys=False, allow_unicode=True), nl=False)


@host.command()
@site_option
@click.argument("name")
@output_option
def inspect(site: Path, name: str, fmt: str) -> None:
    """Read the host's BMC now, writing nothing: identity, power, media, disks, firmware, BIOS."""
    import msgspec

    from metalimmu.service import hosts
    from metalimmu.service.site import OpenSite

    found = hosts.inspect(OpenSite(site), name)
    emit([msgspec.to_builtins(found)], [], fmt if fmt == "json" else "yaml")


@host.command()
@site_option
@click.option("--all", "known", is_flag=True, help="Those of the documents too.")
@output_option
def discovered(site: Path, known: bool, fmt: str) -> None:
    """List machines that have asked the network what to boot and belong to no host; `enroll` makes one a host."""
    from metalimmu.cli.runs import when
    from metalimmu.service.brownfield import enroll
    from metalimmu.service.site import OpenSite

    rows = enroll.discovered(OpenSite(site), known=known)
    if fmt in ("table", "wide"):
        rows = [{**r, "first_seen": when(r["first_seen"]), "last_seen": when(r["last_seen"])} for r in rows]
        if not rows:
            click.echo("no machine has asked the network what to boot and was unknown", err=True)
    columns = ["mac", "serial", "vendor", "product", "firmware", "address", "times", "last_seen"]
    emit(rows, [*columns, "host"] if known else columns, fmt, name="mac", wide=["uuid", "via", "first_seen", "why"])


@host.command()
@site_option
@click.argument("name")
def unhold(site: Path, name: str) -> None:
    """End the hold of a host: the next plan brings its role's image."""
    from metalimmu.service.rollback import end_hold
    from metalimmu.service.site import OpenSite

    click.echo(end_hold(OpenSite(site), name))


@click.command()
@site_option
@click.argument("verb", type=click.Choice(["on", "off", "reset", "status"]))
@targets
@click.option("--graceful", is_flag=True, help="Ask the system to shut down or restart.")
@click.option("--retry-login", is_flag=True, help="With status: try credentials again that this BMC has refused.")
@click.option("--allow-protected", is_flag=True, help="Go on for a protected host; needs --reason.")
@click.option("--allow-same-domain", is_flag=True, help="Though another host of its failure domain changes.")
@click.option("--reason", metavar="TEXT", help="Kept in the history.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; for up to guards.max_hosts hosts.")
@click.option("--confirm", type=int, metavar="N", help="Do not ask, if it is exactly N hosts.")
@click.option("--skip-refused", is_flag=True, help="Go on without hosts that are refused.")
def power(
    site: Path, verb: str, hosts: tuple[str, ...], selector: str | None, retry_login: bool, **options: Any
) -> None:
    """Switch hosts on or off, reset them, or ask for their power state; waits until it is so.

    Guards count what each act leaves: when a pool has no more hosts to spare, the others are refused.
    """
    from metalimmu.cli import many
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    names = chosen(opened, hosts, selector, f"power {verb}")
    if verb == "status":
        many.power_status(opened, names, retry_login=retry_login)
    else:
        many.power(opened, names, verb, one=not selector and len(names) == 1, **options)


@click.command()
@site_option
@targets
def prove(site: Path, hosts: tuple[str, ...], selector: str | None) -> None:
    """Ask hosts again which image they run; the answer is recorded, whatever it is."""
    from metalimmu.cli import many
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    many.prove(opened, chosen(opened, hosts, selector, "prove"))


@click.command()
@site_option
@click.argument("name")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the history.")
def release(site: Path, name: str, reason: str) -> None:
    """End the quarantine of HOST. It becomes unproven, never proven: only a reimage or `prove` proves."""
    from metalimmu.service import hosts
    from metalimmu.service.site import OpenSite

    hosts.release(OpenSite(site), name, reason)
    click.echo(f"{name}: released, unproven")
