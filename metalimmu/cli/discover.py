"""`discover`: find BMCs on networks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metalimmu.cli.output import emit, optional_site_option, output_option

if TYPE_CHECKING:
    from metalimmu.service.brownfield.discover import Discovery

COLUMNS = ("address", "make", "model", "serial", "bmc_firmware", "known_by", "note")
_BY = {"root": "service root", "login": "log-in", "ping": "IPMI ping"}
WIDE = ("bmc_model", "bios", "power", "redfish", "ipmi", "fingerprint", "uuid", "bmc")


def per_second(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    from metalimmu.desired.units import per_second as parse
    from metalimmu.errors import UsageError

    try:
        rate = parse(value)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 10_000:
        raise UsageError(f"--rate {value} is none", hint="for example --rate 50/s; at most 10000/s")
    return rate


@click.command()
@click.argument("where", metavar="CIDR|ADDRESS|FILE|-...", nargs=-1, required=True)
@optional_site_option
@click.option("--credentials", metavar="REF", help="env:PREFIX, file:PATH, ...: one login per BMC, at most.")
@click.option("--port", "ports", multiple=True, type=click.IntRange(1, 65535), help="Look at this port; repeatable.")
@click.option(
    "--proxy", metavar="URL", help="http://, socks5:// or socks5h://HOST:PORT; default: bmc.proxy of the site."
)
@click.option("--rate", default="50/s", callback=per_second, show_default=True, help="Addresses begun per second.")
@click.option("--sockets", default=256, type=click.IntRange(1, 4000), show_default=True, help="Open at once.")
@click.option(
    "--max-refused", default=3, type=click.IntRange(1), show_default=True, help="Refused logins, then no more."
)
@click.option("--retry-login", is_flag=True, help="Try credentials again that BMCs have refused before.")
@click.option(
    "--write", "target", metavar="FILE", help="Merge what was found into FILE, for review: hosts/discovered.yaml."
)
@click.option("--no-pin", is_flag=True, help="Do not write certificate fingerprints.")
@click.option("--yes", "-y", "large", is_flag=True, help="More than 65,536 addresses are meant.")
@output_option
def discover(
    where: tuple[str, ...], site: Path | None, target: str | None, no_pin: bool, fmt: str, **options: Any
) -> None:
    """Find BMCs: their service root over TLS and IPMI presence, logged in nowhere unless --credentials are given.

    Nothing is written to any BMC. No site is needed; with one, hosts that it has already are recognised by serial
    number, then by address. Networks take a port too: 10.0.0.0/24:8443. Ports are Redfish's, and through a proxy there
    is no UDP: IPMI is looked for at addresses without either.
    """
    import msgspec

    from metalimmu.service.brownfield import discover as service

    result = _run(where, site, **options)
    rows = [msgspec.to_builtins(f) for f in result.found]
    shown = [{**r, "known_by": _BY.get(r["by"], r["by"])} for r in rows] if fmt in ("table", "wide") else rows
    emit(shown, COLUMNS, fmt, wide=WIDE, name="bmc")
    _say(result, fmt)
    if target:
        from metalimmu.cli import review

        folder, file = review.place(site, target)
        pin = not no_pin and service.pins(site)
        credentials = service.to_name(site, options["credentials"])
        merged = service.write(result, folder, file, credentials=credentials, pin=pin)
        review.say(merged, folder)
        if options["credentials"]:
            click.echo(f"Next: metalimmu scan{'' if site else f' --inventory {folder / file}'}", err=True)
        if pin and merged.files and any(f.fingerprint for f in result.found):
            click.echo(
                "certificates are pinned as they were seen now: whoever sat between us and a BMC at this hour would be "
                "pinned too. Compare a few fingerprints with the BMCs' own pages.",
                err=True,
            )
    service.check(result)


def _run(
    where: tuple[str, ...], site: Path | None, *, rate: float, sockets: int, proxy: str | None, **options: Any
) -> Discovery:
    from metalimmu.bmc.discovery import Sweep
    from metalimmu.service.brownfield import discover as service
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site) if site else None
    proxy = proxy or (opened.docs.site.bmc.proxy if opened else None)
    shown = sys.stderr.isatty()

    def progress(done: int, of: int) -> None:
        if shown:
            click.echo(f"\r{done} of {of} addresses looked at", nl=done == of, err=True)

    try:
        return service.discover(
            _items(where),
            sweep=Sweep(rate=rate, sockets=sockets, proxy=proxy),
            folder=site,
            ledger=opened.ledger if opened else None,
            budget=opened.budget if opened else None,
            progress=progress,
            **options,
        )
    finally:
        if opened:
            opened.close()


def _items(where: tuple[str, ...]) -> list[str]:
    """Files and standard input are lists of what may stand on the command line."""
    from metalimmu.bmc.spots import read

    found: list[str] = []
    for item in where:
        if item == "-":
            found += read(sys.stdin.read())
        elif "://" not in item and Path(item).is_file():
            found += read(Path(item).read_text(encoding="utf-8-sig", errors="replace"))
        else:
            found.append(item)
    return found


def _say(result: Discovery, fmt: str) -> None:
    redfish = sum(f.redfish != "" or f.bmc.startswith("redfish") for f in result.found)
    only = len(result.found) - redfish
    click.echo(
        f"{result.looked_at} addresses looked at in {result.seconds:.0f} s: {redfish} {'BMC' if redfish == 1 else 'BMCs'} with Redfish, {only} with IPMI only; "
        "nothing was written to any of them",
        err=True,
    )
    if not result.found:
        click.echo(
            "do these BMCs have another port (10.0.0.0/24:8443, --port), or are they behind a proxy (--proxy)? "
            "Is this machine let through to their network?",
            err=True,
        )
    for line in (*result.duplicates, *result.shared):
        click.echo(f"look at: {line}", err=True)
    shown = result.troubles if fmt == "wide" else result.troubles[:5]
    for line in shown:
        click.echo(f"no BMC that can be read: {line}", err=True)
    if len(shown) < len(result.troubles):
        click.echo(f"... and {len(result.troubles) - len(shown)} more (-o wide names all)", err=True)
