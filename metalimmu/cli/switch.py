"""`switch show | key`: what a switch says of itself, and the SSH host key that it is known by."""

from __future__ import annotations

from pathlib import Path

import click

from metalimmu.cli.output import emit, output_option, site_option


@click.group()
def switch() -> None:
    """Switches: what their NOS says. They are reimaged by `reimage`, as all hosts are."""


@switch.command()
@site_option
@click.argument("name")
@output_option
def show(site: Path, name: str, fmt: str) -> None:
    """Ask a switch and its peer now: NOS, ports, neighbours, pair, and whether it may be taken away."""
    import yaml

    from metalimmu.service.site import OpenSite
    from metalimmu.service.switch_proof import show as ask

    found = ask(OpenSite(site), name)
    if fmt == "json":
        emit([found], [], fmt)
    else:
        click.echo(yaml.safe_dump(found, sort_keys=False, allow_unicode=True), nl=False)


@switch.command()
@site_option
@click.argument("name")
@click.option("--forget", is_flag=True, help="Take the next key that it shows: you know why it has changed.")
def key(site: Path, name: str, forget: bool) -> None:
    """Print the SSH host keys that a switch is known by; one that changes by itself is refused."""
    from metalimmu.service.site import OpenSite
    from metalimmu.service.switches import forget_keys, known_keys

    opened = OpenSite(site)
    if forget:
        click.echo(forget_keys(opened, name))
        return
    for line in known_keys(opened, opened.spec(name), "") or ("none: the first one seen is taken",):
        click.echo(line)
