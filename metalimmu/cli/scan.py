"""`scan`: read every BMC, compare with the profiles, say what differs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from metalimmu.cli.output import emit, find_site, optional_site_option

if TYPE_CHECKING:
    from metalimmu.service.scans.result import MaxUnknown, ScanResult
    from metalimmu.service.site import OpenSite
    from metalimmu.store.scan_records import ScanRecord

FORMATS = ("table", "json", "csv", "html", "junit")
SEVERITIES = ("info", "warning", "critical")
_SELECTOR = "Only these hosts: labels, pool, role, rack, model, ..."
FAIL_ON = "Least severity that counts as drift (status 3)."
_REFUSED = "Refused logins, then no more; default: bmc.max_refused of the site, else 3."
_UNKNOWN = "Hosts that may be unknown (else status 4)."


@click.command()
@optional_site_option
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option("-l", "--selector", metavar="KEY=VALUE,...", help=_SELECTOR)
@click.option("--inventory", type=click.Path(path_type=Path), help="No site: BMCs of this file, one per line or CSV.")
@click.option("--credentials", metavar="REF", help="With --inventory: env:PREFIX, file:PATH, ...")
@click.option("--ca", metavar="PEM", help="With --inventory: what signed the certificates of the BMCs.")
@click.option("--no-verify", is_flag=True, help="With --inventory: do not check certificates. Others may listen.")
@click.option("--proxy", metavar="URL", help="With --inventory: http://, socks5:// or socks5h://HOST:PORT.")
@click.option("--max-refused", type=click.IntRange(1), metavar="N", help=_REFUSED)
@click.option("--retry-login", is_flag=True, help="With --inventory: try credentials again that BMCs have refused.")
@click.option("--resume", is_flag=False, flag_value="last", metavar="[ID]", help="Go on with a scan that broke off.")
@click.option("--list", "list_", is_flag=True, help="List the last scans, and scan nothing.")
@click.option("--everything", is_flag=True, help="Read hardware and cabling also where no profile asks.")
@click.option("--fail-on", type=click.Choice(SEVERITIES), default="info", show_default=True, help=FAIL_ON)
@click.option("--max-unknown", default="0", show_default=True, metavar="N|N%", help=_UNKNOWN)
@click.option("--matches", is_flag=True, help="In json, csv, html and junit: also what matches.")
@click.option("-o", "--output", "fmt", type=click.Choice(FORMATS), default="table", help="How to print.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
def scan(
    site: Path | None, inventory: Path | None, list_: bool, fail_on: Any, max_unknown: str, **options: Any
) -> None:
    """Read the BMCs of HOSTs (all of the site without any), compare with their profiles, and record every value.

    Nothing is written to any BMC. Exit status: 0 no drift, 3 drift of --fail-on or worse that is not waived, 4 more
    unknown hosts than --max-unknown allows (wins over 3: the list of drift is incomplete), 1 failed, 2 usage.
    """
    from metalimmu.service.scans import result as scan_result

    limit = scan_result.max_unknown(max_unknown)
    if list_:
        _list(find_site(str(site) if site else None))
        return
    status = (
        _without_site(inventory, limit, fail_on, **options)
        if inventory
        else _with_site(find_site(str(site) if site else None), limit, fail_on, **options)
    )
    if status:
        raise click.exceptions.Exit(status)


def _with_site(site: Path, limit: MaxUnknown, fail_on: Any, **options: Any) -> int:
    from metalimmu.cli.scan_progress import shown
    from metalimmu.cli.scan_table import print_scan
    from metalimmu.errors import StoreError, UsageError
    from metalimmu.service.scans.result import exit_status
    from metalimmu.service.scans.scan import scan as run
    from metalimmu.service.site import OpenSite

    if any(options[name] for name in ("credentials", "ca", "no_verify", "proxy")):
        raise UsageError(
            "--credentials, --ca, --no-verify and --proxy go with --inventory", hint="a site says it in site.yaml"
        )
    if options["retry_login"]:
        raise UsageError(
            "--retry-login goes with --inventory", hint="in a site: `metalimmu power status HOST --retry-login`"
        )
    if options["resume"] and (options["hosts"] or options["selector"]):
        raise UsageError("--resume goes on with the hosts of the scan that broke off", hint="leave hosts and -l out")
    opened = OpenSite(site)
    asked = {name: options[name] for name in ("selector", "resume", "everything", "max_refused")}
    try:
        with shown() as progress:
            result = run(opened, hosts=options["hosts"] or None, progress=progress, **asked)
    except (KeyboardInterrupt, StoreError):
        click.echo("the scan broke off; `metalimmu scan --resume` reads what is left", err=True)
        raise
    with to_file(options["out"]) as stream:
        if options["fmt"] == "table":
            print_scan(opened, result, stream)
        elif options["fmt"] == "html" and not options["matches"]:
            stream.write(_report(opened, result))
        else:
            _write(result, stream, **options)
    return exit_status(result, fail_on=fail_on, limit=limit)


def _report(site: OpenSite, result: ScanResult) -> str:
    """The page that `metalimmu report` makes, of this scan's hosts (also of one that was resumed)."""
    from metalimmu.service.report import html

    scope = result.record.scope
    names = sorted(result.hosts & set(site.docs.hosts)) if scope.get("hosts") else None
    return html(site, hosts=names, selector=scope.get("selector"))


def _without_site(file: Path, limit: MaxUnknown, fail_on: Any, **options: Any) -> int:
    from metalimmu.cli.scan_progress import shown
    from metalimmu.cli.scan_table import print_groups
    from metalimmu.desired.types import Tls
    from metalimmu.errors import UsageError
    from metalimmu.service.scans.inventory import scan_inventory
    from metalimmu.service.scans.result import exit_status

    if options["hosts"] or options["selector"] or options["resume"]:
        raise UsageError("--inventory scans all that its file lists", hint="leave hosts, -l and --resume out")
    if options["no_verify"]:
        click.echo("warning: certificates are not checked: anyone on the path can read the BMCs' password", err=True)
    tls = Tls(ca=str(Path(options["ca"]).resolve()) if options["ca"] else None, verify=not options["no_verify"])
    with scan_inventory(file, options["credentials"], tls=tls, proxy=options["proxy"]) as scanning:
        with shown() as progress:
            asked = {name: options[name] for name in ("everything", "retry_login", "max_refused")}
            result = scanning.run(progress=progress, **asked)
        with to_file(options["out"]) as stream:
            if options["fmt"] == "junit":
                _write(result, stream, **options)
            else:
                print_groups(result, scanning.groups(), stream, options["fmt"])
        return exit_status(result, fail_on=fail_on, limit=limit)


@contextmanager
def to_file(file: Path | None) -> Iterator[TextIO]:
    """Standard output, or the file: it is there as a whole when all is written, or as it was."""
    if file is None:
        yield sys.stdout
        return
    from metalimmu.errors import ToolError

    beside = file.with_name(f".{file.name}.new")
    try:
        with beside.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        beside.replace(file)
    except OSError as exc:
        raise ToolError(
            f"{file} was not written: {exc.strerror}",
            hint=f"free space, or write elsewhere: `df {file.absolute().parent}`",
        ) from exc
    finally:
        beside.unlink(missing_ok=True)
    click.echo(f"written: {file}", err=True)


def _write(result: ScanResult, stream: TextIO, *, fmt: str, matches: bool, **_: Any) -> None:
    from metalimmu.service.scans.formats import write

    write(result, fmt, stream, matches=matches)


def _list(site: Path) -> None:
    from metalimmu.cli.runs import when
    from metalimmu.service.site import OpenSite

    rows = [
        {
            "id": s.id,
            "trigger": s.trigger,
            "began": when(s.created),
            "ended": when(s.finished) if s.finished else "not finished",
            "hosts": s.hosts,
            **{n: _states(s).get(n, 0) for n in ("match", "drift", "waived", "unknown")},
        }
        for s in OpenSite(site).store.scans()
    ]
    emit(rows, ["id", "trigger", "began", "ended", "hosts", "match", "drift", "waived", "unknown"], "table", name="id")


def _states(scan: ScanRecord) -> dict[str, int]:
    """With the waivers of that day; of one that has not ended, without."""
    found: dict[str, int] = scan.summary.get("states") or scan.counts.get("states", {})
    return found
