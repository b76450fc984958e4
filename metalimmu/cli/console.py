"""`console HOST`: the machine's serial console, over IPMI; for a host of a lab, the lab's."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from metalimmu.cli.output import site_option

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite
    from metalimmu_emulator.lab import Lab


@click.command()
@site_option
@click.argument("host")
@click.option("--read-only", "view", is_flag=True, help="Look, and send nothing. Ctrl-C ends it.")
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), help="Also append what it says to a file, as it came."
)
@click.option("--via", metavar="ipmi://ADDRESS", help="Where this BMC speaks IPMI, if the host document has Redfish.")
def console(site: Path, host: str, view: bool, log: Path | None, via: str | None) -> None:
    """Open the serial console of a host. Enter ~. ends it, ~? lists the other keys.

    What you type is input to the machine: a host in read-only mode takes --read-only alone. A BMC has one console, for one
    at a time.
    """
    from metalimmu.errors import UsageError
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    with contextlib.ExitStack() as stack:
        stack.callback(opened.close)
        file = stack.enter_context(private(log)) if log else None
        lab = None if via else lab_of(site, opened.spec(host).name)
        if lab is not None and view:
            follow(lab, host, file)
            return
        if lab is not None and not lab.running():
            raise UsageError(
                f"the lab of {host} is down: nobody takes what is typed",
                hint=f"`metalimmu console {host} --read-only` shows what it has said; `metalimmu lab up` starts it",
            )
        if lab is not None:
            via = next(s.ipmi for s in lab.status() if s.name == host)
        attach(opened, host, view=view, via=via, log=file)


def private(path: Path) -> BinaryIO:
    """For ourselves: consoles say passwords."""
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))


def attach(site: OpenSite, host: str, *, view: bool, via: str | None, log: BinaryIO | None) -> None:
    """Until it ends. The terminal is raw only while something can be typed."""
    from metalimmu.cli import terminal
    from metalimmu.service import console as service

    with service.attach(site, host, view=view, via=via) as opened:
        keyboard = None if view else sys.stdin.fileno()
        click.echo(f"[console of {host}; {'Ctrl-C' if view else 'Enter ~.'} ends it]", err=True)
        try:
            with terminal.orderly() if keyboard is None else terminal.raw(keyboard):
                why = terminal.join(opened, keyboard=keyboard, screen=terminal.show, log=log)
        except KeyboardInterrupt:
            why = "ended by you"
    click.echo(f"\r\n[console of {host}: {why}]", err=True)


def lab_of(site: Path, host: str) -> Lab | None:
    """The lab that this site is of, if the host is one of its servers."""
    if not (site.parent / "lab.json").is_file():
        return None
    from metalimmu_emulator.lab import Lab

    found = Lab(site.parent)
    return found if any(s.name == host for s in found.spec.servers) else None


def follow(lab: Lab, host: str, log: BinaryIO | None) -> None:
    """What a server of a lab has said so far, and goes on to say: several can look, also beside who types."""
    from metalimmu_emulator.console import read

    with contextlib.suppress(KeyboardInterrupt):
        for text in read(lab.console(host), follow=True):
            if log:
                log.write(text.encode())
                log.flush()
            click.echo(text, nl=False)
