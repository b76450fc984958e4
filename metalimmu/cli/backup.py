"""`backup` and `restore`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metalimmu.cli.output import emit, output_option, site_option

if TYPE_CHECKING:
    from metalimmu.service.backup.make import Made, Protection
    from metalimmu.service.backup.restore import Report
    from metalimmu.service.site import OpenSite

_SHOWN = 10  # lines of a list


@click.command()
@site_option
@click.argument("file", metavar="[FILE]", required=False)
@click.option(
    "--to", metavar="URL", help="Instead of FILE: s3://BUCKET/PREFIX or file:///DIR; each backup by its time."
)
@click.option("--every", metavar="TIME", help="Again and again, as 1h; until Ctrl-C.")
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Remove all but the newest N at the URL.")
@click.option(
    "--chunks",
    type=click.Choice(["reference", "include"]),
    default="reference",
    show_default=True,
    help="Images: their manifests with a list of chunks, or all.",
)
@click.option("--passphrase-ref", metavar="REF", help="env:NAME or file:PATH of the passphrase that encrypts it.")
@click.option("--age-recipient", metavar="KEY", help="Encrypt to this age or SSH public key instead.")
@click.option("--without-keys", is_flag=True, help="Not encrypted, and without the keys that machines trust.")
@output_option
def backup(site: Path, file: str | None, to: str | None, every: str | None, fmt: str, **options: Any) -> None:
    """Write a backup of the controller while runs go on: databases, keys, catalogue. `restore` reads it.

    Without an option for it, `backup:` of site.yaml says how it is encrypted, and where to.
    """
    from metalimmu.errors import UsageError
    from metalimmu.service.backup import make, schedule
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    try:
        protection = _protection(opened, options)
        if file is not None and to is not None:
            raise UsageError("FILE and --to are two places", hint="name one")
        if file is not None:
            if every or options["keep"]:
                raise UsageError("--every and --keep are for --to", hint=f"--to file://{Path(file).absolute().parent}")
            _say(make.backup(opened, Path(file).absolute(), protection, chunks=options["chunks"]), fmt)
            return
        settings = schedule.settings(opened, to=to, every=every, keep=options["keep"], chunks=options["chunks"])
        schedule.loop(opened, settings, protection, once=every is None, said=lambda made: _say(made, fmt))
    finally:
        opened.close()


def _protection(site: Any, options: dict[str, Any]) -> Protection:
    from metalimmu.service.backup import schedule

    return schedule.protection(
        site,
        passphrase_ref=options["passphrase_ref"],
        recipient=options["age_recipient"],
        without_keys=options["without_keys"],
    )


def _say(made: Made, fmt: str) -> None:
    m = made.manifest
    row = {
        "backup": str(made.path),
        "at": _when(m.at),
        "bytes": made.size,
        "seconds": round(made.seconds, 2),
        "chunks": m.chunks,
        "under_way": len(m.under_way),
        **m.counts,
    }
    if fmt in ("json", "yaml", "name"):
        emit([row], [], fmt, name="backup")
        return
    click.echo(f"{made.path}: {made.size / 1e6:.1f} MB in {made.seconds:.1f} s, as of {_when(m.at)}")
    included = "included" if m.chunks == "included" else "by reference: keep the image store, or a copy of it"
    click.echo(
        f"  {m.counts['hosts']} hosts, {m.counts['runs']} runs ({len(m.under_way)} under way), "
        f"{m.counts['images']} images with {m.counts['chunks']} chunks ({included})"
    )
    if m.encryption is None:
        click.echo("  not encrypted and without keys: machines that wait cannot be answered with it alone", err=True)


@click.command()
@site_option
@click.argument("file", metavar="FILE|URL")
@click.option("--force", is_flag=True, help="Also where a controller's state is: it is moved aside and kept.")
@click.option("--hold", is_flag=True, help="Runs that were under way wait for `run resume`.")
@click.option("--passphrase-ref", metavar="REF", help="env:NAME or file:PATH of the passphrase.")
@click.option(
    "--age-identity", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="age's secret key."
)
def restore(
    site: Path, file: str, force: bool, hold: bool, passphrase_ref: str | None, age_identity: Path | None
) -> None:
    """Put a controller back from a backup, on this machine or another one with the same addresses.

    URL is that of one backup, or ends with / for the newest of this site. What happened after the backup is found by
    observation: hosts are unproven until they report.
    """
    from metalimmu.service.backup import restore as verb
    from metalimmu.service.backup import schedule
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    _documents(opened, file)
    given = verb.Secrets(passphrase=schedule.passphrase(opened, passphrase_ref), identity=age_identity)
    with schedule.fetched(opened, file) as (stream, name):
        report = verb.restore(opened, stream, name, given, force=force, hold=hold)
    _tell(report, opened.state)


def _documents(site: OpenSite, file: str) -> None:
    """They come from git, and must be right. Raises SiteError."""
    from metalimmu.errors import SiteError
    from metalimmu.service.backup.documents import KEPT

    try:
        _ = site.docs
    except SiteError:
        if Path(file).is_file():
            click.echo(
                f"note: `tar -xf {file} documents` brings {', '.join(KEPT)} as they were, if one is missing", err=True
            )
        raise


def _tell(report: Report, state: Path) -> None:
    m = report.manifest
    click.echo(f"restored {m.site} as of {_when(m.at)} ({_ago(time.time() - m.at)} ago) into {state}")
    if report.aside:
        click.echo(f"what was there lies in {report.aside}")
    click.echo(f"\nWhat happened since {_when(m.at)} is not known here:")
    click.echo(f"  {report.doubted} hosts that were proven are unproven until they report, or `metalimmu prove HOST`")
    click.echo("  cancellations, freezes and pauses since then are forgotten: say them again")
    if report.paused:
        click.echo(f"  rollouts are paused: {', '.join(report.paused)}")
    _list("runs under way; each goes on when its machine is heard", [_run(r) for r in report.going_on])
    _list("documents that are not those of the backup", report.documents)
    _list("documents put back, commit them (those named .restored differ from yours)", report.written)
    _list("ramdisks: build or copy them (`metalimmu ramdisk build`)", report.missing_ramdisks)
    if report.missing_chunks:
        click.echo(
            f"  {len(report.missing_chunks)} chunks of images are missing: copy the image store, or `metalimmu image add` again",
            err=True,
        )
    click.echo("\nNext: stop the old controller for good if it still lives, then `metalimmu serve`")


def _run(run: dict[str, str]) -> str:
    waits = ": waits for `metalimmu run resume`" if run["status"] == "interrupted" else ""
    return f"{run['run']} {run['verb']} of {run['host']}{waits}"


def _list(title: str, lines: list[str]) -> None:
    if lines:
        click.echo(f"  {len(lines)} {title}:")
        for line in lines[:_SHOWN]:
            click.echo(f"    {line}")
        if len(lines) > _SHOWN:
            click.echo(f"    … and {len(lines) - _SHOWN} more")


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"
