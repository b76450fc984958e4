"""`config show | render | diff | push | withdraw`: run-time config without a new image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metalimmu.cli.output import emit, output_option, site_option
from metalimmu.cli.targets import batch_option, chosen, confirmed, targets

if TYPE_CHECKING:
    from metalimmu.plan.config import FileChange
    from metalimmu.plan.types import Finding
    from metalimmu.service.pushes import Proposal
    from metalimmu.service.site import OpenSite

DIFFERS = 3  # exit status, as of drift


@click.group()
def config() -> None:
    """Run-time config: what hosts were given, what the site says now, and bringing it to them without a new image."""


@config.command()
@site_option
@click.argument("host")
@output_option
def show(site: Path, host: str, fmt: str) -> None:
    """Print what was deployed on HOST, when, with its digest; secrets by their references."""
    from metalimmu.service import configs
    from metalimmu.service.site import OpenSite

    found = configs.show(OpenSite(site), host)
    if fmt in ("json", "yaml"):
        emit([found], [], fmt)
        return
    files = found.pop("files")
    for key, value in found.items():
        if value not in (None, [], {}):
            click.echo(f"{key.replace('_', ' ')}: {_plain(key, value)}")
    _files(files)


@config.command()
@site_option
@click.argument("host")
@click.option("--with-secrets", is_flag=True, help="Print the secrets themselves, too.")
@output_option
def render(site: Path, host: str, with_secrets: bool, fmt: str) -> None:
    """Print what the site says now for HOST: what a push or the next reimage brings."""
    from metalimmu.service import configs
    from metalimmu.service.site import OpenSite

    files = configs.render_now(OpenSite(site), host, with_secrets=with_secrets)
    if fmt == "json":
        import json

        click.echo(json.dumps(files, indent=2, ensure_ascii=False))  # not by `emit`, which takes secrets out
    else:
        _files(files)


@config.command()
@site_option
@targets
@output_option
def diff(site: Path, hosts: tuple[str, ...], selector: str | None, fmt: str) -> int:
    """Print how what was deployed differs from what the site says now, file by file; secrets only as changed.

    Exit status 3 when a host differs. What differs is applied at the next reimage, or by `config push`.
    """
    from metalimmu.service.configs import Configs
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    names = chosen(opened, hosts, selector, "config diff")
    configs = Configs(opened)
    rows = []
    for name in names:
        found, changes = configs.compare(opened.spec(name))
        rows.append(_row(name, found, changes))
        if fmt in ("table", "wide") and str(found.word) != "match":
            _print(rows[-1], changes)
    if fmt not in ("table", "wide"):
        emit(rows, [], fmt, name="host")
    elif len(rows) > 1 or rows[0]["word"] == "match":
        emit(rows, ["host", "word", "deployed", "now"], "table", name="host")
    return DIFFERS if any(r["word"] == "differs" for r in rows) else 0


def _row(name: str, found: Finding, changes: list[FileChange]) -> dict[str, Any]:
    return {
        "host": name,
        "setting": found.setting,
        "word": str(found.word),
        "deployed": found.actual,
        "now": found.expected,
        "reason": found.reason,
        "files": {c.path: list(c.lines) for c in changes},
    }


def _print(row: dict[str, Any], changes: list[FileChange]) -> None:
    click.echo(click.style(f"{row['host']}: {row['word']}", bold=True) + f" ({row['reason']})")
    for change in changes:
        for line in change.lines:
            colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            click.echo(click.style(_visible(line), fg=colour) if colour else _visible(line))


def _files(files: dict[str, str]) -> None:
    for path, text in files.items():
        click.echo(click.style(f"\n--- {path}", bold=True))
        click.echo(text, nl=not text.endswith("\n"))


def _visible(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in line)


def _plain(key: str, value: Any) -> str:
    from metalimmu.cli.runs import when

    if key in ("at", "reported_at"):
        return when(value)
    if isinstance(value, dict):
        times = {k: when(v) if k.endswith("_at") else v for k, v in value.items() if v}
        return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in times.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@config.command()
@site_option
@targets
@click.option("--reason", metavar="TEXT", help="Kept in the history.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; for up to guards.max_hosts hosts.")
@click.option("--confirm", type=int, metavar="N", help="Do not ask, if it is exactly N hosts.")
@click.option("--allow-protected", is_flag=True, help="Go on for a protected host; needs --reason.")
@click.option("--skip-refused", is_flag=True, help="Go on without hosts that are refused.")
@batch_option
def push(
    site: Path,
    hosts: tuple[str, ...],
    selector: str | None,
    yes: bool,
    confirm: int | None,
    skip_refused: bool,
    batch: str | int | None,
    **options: Any,
) -> None:
    """Bring what the site says now to hosts that run: they fetch it, apply it, and report its digest.

    A host asks every few minutes (limits.report_again). The first host goes alone, the others follow in batches.
    """
    from metalimmu.service import pushes
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    proposals = pushes.propose(opened, chosen(opened, hosts, selector, "config push"), options=options)
    for one in proposals:
        if one.goes:
            _print(_row(one.host, one.finding, list(one.changes)), list(one.changes))
        elif one.nothing:
            click.echo(f"{one.host}: has it already ({one.finding.actual})")
    going = [p.host for p in proposals if p.goes]
    _refused(proposals, going, skip=skip_refused)
    if not going:
        return
    _ask(opened, going, yes=yes, confirm=confirm)
    _roll(opened, going, options, batch)


@config.command()
@site_option
@click.argument("host")
def withdraw(site: Path, host: str) -> None:
    """End a push that HOST has not fetched yet."""
    from metalimmu.service import pushes
    from metalimmu.service.site import OpenSite

    click.echo(f"{host}: push of config {pushes.withdraw(OpenSite(site), host).digest[:12]} is withdrawn")


def _refused(proposals: list[Proposal], going: list[str], *, skip: bool) -> None:
    from metalimmu.errors import HostsRefused

    refused = [p for p in proposals if p.refused]
    if refused and not (skip and going):
        problems = tuple(f"{p.host}: {p.refused}" for p in refused)
        hint = refused[0].hint if len(refused) == 1 else ""
        text = f"{len(refused)} of {len(proposals)} hosts are refused" if len(proposals) > 1 else "the host is refused"
        raise HostsRefused(text, problems=problems, hint=hint)
    for p in refused:
        click.echo(f"refused: {p.host}: {p.refused}", err=True)


def _ask(site: OpenSite, going: list[str], *, yes: bool, confirm: int | None) -> None:
    if len(going) == 1 and confirm is None:
        if not yes:
            click.confirm(f"\n{going[0]} gets this config while it runs. Go on?", abort=True)
    else:
        confirmed(site, len(going), "get a new config while they run", yes=yes, confirm=confirm)


def _roll(site: OpenSite, going: list[str], options: dict[str, Any], batch: str | int | None) -> None:
    from metalimmu.errors import StepFailed
    from metalimmu.service import pushes
    from metalimmu.service.worker import Worker

    click.echo(
        "waiting for the machines to ask; Ctrl-C stops waiting, `metalimmu config withdraw` takes it back", err=True
    )
    worker = Worker(site, runs=False)
    try:
        ended = {}
        for one in pushes.roll(site, going, options=options, batch=batch, listening=worker.try_start):
            ended[one.host] = one
            click.echo(f"{one.host}: {one.state}" + (f": {_lines(one.why)}" if one.why else ""))
    finally:
        worker.stop()
    bad = [h for h, e in ended.items() if not e.good]
    if bad:
        untouched = len(going) - len(ended)
        more = f"; {untouched} hosts after that are untouched" if untouched else ""
        raise StepFailed(
            f"{len(bad)} of {len(going)} hosts did not apply it: {', '.join(bad)}{more}",
            hint=f"`metalimmu config show {bad[0]}` and its journal (metalimmu-config) say why; it keeps its old config",
        )


def _lines(text: str) -> str:
    return "\n  ".join(_visible(line) for line in text.splitlines())
