"""`bmc probe | roles | record | sensors | events | frus | light`: what BMCs can do, which rights they need, what they know."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from metalimmu.cli.output import emit, output_option, site_option

if TYPE_CHECKING:
    from metalimmu.service.brownfield.probe import Probed


class _Group(click.Group):
    """Those that have a module of their own are imported when they are used."""

    others: ClassVar[dict[str, str]] = {
        "record": "bmc_record",
        "sensors": "bmc_ipmi",
        "events": "bmc_ipmi",
        "frus": "bmc_ipmi",
        "light": "bmc_ipmi",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self.others]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in self.others:
            found: click.Command = getattr(import_module(f"metalimmu.cli.{self.others[name]}"), name)
            return found
        return super().get_command(ctx, name)


@click.group(cls=_Group)
def bmc() -> None:
    """BMCs: what they can do, which rights they need, a recording of one."""


@bmc.command()
@site_option
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@click.option("-l", "--selector", metavar="KEY=VALUE,…", help="Labels, and pool, role, rack, model.")
@click.option("--why", metavar="CAPABILITY", help="The answers to one question, with their reasons and hosts.")
@click.option(
    "--max-refused", default=3, type=click.IntRange(1), show_default=True, help="Refused logins, then no more."
)
@output_option
def probe(
    site: Path, hosts: tuple[str, ...], selector: str | None, why: str | None, max_refused: int, fmt: str
) -> None:
    """A census of what each BMC can do: virtual media, licences, HTTP boot, BIOS settings, firmware push, events.

    Asks by reading alone. The table counts answers by make; -o json has every answer of every host.
    """
    import msgspec

    from metalimmu.service.brownfield import probe as service
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    try:
        specs = service.chosen(opened, hosts, selector)
        found = [*_counted(service.probe(opened, specs, max_refused=max_refused), len(specs))]
    finally:
        opened.close()
    found.sort(key=lambda p: p.host)
    if fmt in ("json", "yaml"):
        emit([msgspec.to_builtins(p) for p in found], [], fmt)
    elif why:
        _reasons(found, why, fmt)
    elif fmt == "name":
        emit([{"name": p.host} for p in found if not p.trouble], ["name"], fmt)
    else:
        _census(found, wide=fmt == "wide")
    for one in found:
        if one.trouble and one.asked:
            click.echo(f"{one.host}: {one.trouble}", err=True)
    service.check(found)


def _counted(found: Iterator[Probed], of: int) -> Iterator[Probed]:
    """Says how far it is, to people."""
    for done, one in enumerate(found, 1):
        if sys.stderr.isatty():
            click.echo(f"\r{done} of {of} BMCs asked", nl=done == of, err=True)
        yield one


def _census(found: list[Probed], *, wide: bool) -> None:
    """Makes as columns; with -o wide hosts as columns are too many, so hosts are rows then."""
    from metalimmu.service.brownfield.probe import census

    if wide:
        names = [a.capability for a in found[0].probe.answers] if found else []
        rows: list[dict[str, Any]] = [
            {"host": p.host, "make": p.probe.make, "model": p.probe.model, "bmc": p.probe.bmc}
            | {a.capability: a.answer for a in p.probe.answers}
            for p in found
        ]
        emit(rows, ["host", "make", "model", "bmc", *names], "table")
        return
    counts = census(found)
    makes = list(dict.fromkeys(c.make for c in counts))
    table: dict[str, dict[str, Any]] = {}
    for count in counts:
        table.setdefault(count.capability, {"capability": count.capability})[count.make] = count.text
    emit(list(table.values()), ["capability", *makes], "table")


def _reasons(found: list[Probed], capability: str, fmt: str) -> None:
    from metalimmu.bmc.probe import QUESTIONS
    from metalimmu.desired.problems import nearest
    from metalimmu.errors import UsageError
    from metalimmu.service.brownfield.probe import reasons

    if capability not in QUESTIONS:
        raise UsageError(f"--why {capability}: no such question", hint=nearest(capability, QUESTIONS))
    rows = [
        {"answer": answer, "hosts": len(hosts), "reason": reason, "which": hosts if fmt == "wide" else hosts[:5]}
        for (answer, reason), hosts in reasons(found, capability).items()
    ]
    emit(rows, ["answer", "hosts", "reason", "which"], "table")


@bmc.command()
@click.argument("make", required=False)
@output_option
def roles(make: str | None, fmt: str) -> None:
    """The least rights that each make's BMC needs: for a scan, for a probe, for a reimage; and what a scan does not see then."""
    import msgspec

    from metalimmu.bmc.roles import roles as all_roles
    from metalimmu.desired.problems import nearest
    from metalimmu.errors import UsageError

    found = [r for r in all_roles() if make is None or r.make == make.lower()]
    if not found:
        makes = [r.make for r in all_roles()]
        raise UsageError(f"no make {make!r} in the list", hint=nearest(str(make), makes))
    if fmt in ("json", "yaml", "name"):
        emit([msgspec.to_builtins(r) for r in found], [], fmt, name="make")
        return
    for role in found:
        click.secho(role.make, bold=True)
        for name in ("scan", "probe", "reimage"):
            click.echo(f"  {name:<8} {getattr(role, name)}")
        for i, text in enumerate(role.unseen):
            click.echo(f"  {'' if i else 'unseen':<8} {text}")
        click.echo(f"  {'how':<8} {role.how}")
        click.echo(f"  {'sources':<8} {'; '.join(role.sources)}\n")
