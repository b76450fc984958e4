"""`import netbox | ansible`: hosts from what people have already, merged for review."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from metalimmu.cli.output import optional_site_option

if TYPE_CHECKING:
    from metalimmu.desired.imports import Imported

F = TypeVar("F", bound=Callable[..., Any])
MOST_LINES = 20


@click.group("import")
def import_() -> None:
    """Hosts from NetBox or an Ansible inventory, merged into a document for review. Nothing is sent to any BMC."""


def _shared(function: F) -> F:
    scheme = click.Choice(["redfish+https", "redfish+http", "redfish-raw+https", "ipmi"])
    for option in (
        click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing."),
        click.option(
            "--scheme", type=scheme, default="redfish+https", show_default=True, help="How BMCs are spoken to."
        ),
        click.option("--write", "target", metavar="FILE", default="hosts/imported.yaml", show_default=True),
        optional_site_option,
    ):
        function = option(function)
    return function


@import_.command()
@click.argument("source", metavar="FILE|URL")
@click.option("--token-ref", metavar="REF", help="The API's token: env:NAME or file:PATH.")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="Certificate authority of NetBox (PEM).")
@click.option(
    "--only",
    metavar="KEY=VALUE",
    multiple=True,
    help="site=ams1, role=server, status=active, tag=gpu; several are joined by and.",
)
@_shared
def netbox(source: str, site: Path | None, target: str, dry_run: bool, only: tuple[str, ...], **options: Any) -> None:
    """Devices of NetBox: its URL (with --token-ref), or an export of devices as JSON or CSV."""
    from metalimmu.service.brownfield import imports

    pairs = dict(_pair(text) for text in only)
    found = imports.netbox(source, only=pairs, folder=site or Path(), **options)
    _merge(found, site, target, dry_run=dry_run)


@import_.command()
@click.argument("source", metavar="INVENTORY", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--bmc-var",
    "bmc_vars",
    multiple=True,
    metavar="NAME",
    help="The variable with the BMC's address; before the usual ones.",
)
@click.option("--group", "groups", multiple=True, help="Hosts of this group alone.")
@_shared
def ansible(source: Path, site: Path | None, target: str, dry_run: bool, **options: Any) -> None:
    """An Ansible inventory: INI, YAML, a folder of them, or the output of `ansible-inventory --list`. Groups become labels.

    No password is taken over: set `credentials` of the hosts, or rules in site.yaml.
    """
    from metalimmu.service.brownfield import imports

    _merge(imports.ansible(source, **options), site, target, dry_run=dry_run)


def _pair(text: str) -> tuple[str, str]:
    from metalimmu.errors import UsageError

    key, equal, value = text.partition("=")
    if not (key and equal and value):
        raise UsageError(f"--only {text!r} is no KEY=VALUE", hint="for example --only site=ams1")
    return key, value


def _merge(found: Imported, site: Path | None, target: str, *, dry_run: bool) -> None:
    from metalimmu.cli import review
    from metalimmu.desired.review import review as merge
    from metalimmu.log import redact

    folder, file = review.place(site, target)
    merged = merge(folder, file, found.candidates, write=not dry_run)
    review.say(merged, folder, written=not dry_run)
    for line in found.left_out[:MOST_LINES]:
        click.echo(redact(f"left out   {line}"), err=True)
    if len(found.left_out) > MOST_LINES:
        click.echo(f"... and {len(found.left_out) - MOST_LINES} more left out", err=True)
