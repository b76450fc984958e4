"""`lab fleet`: thousands of emulated BMCs, to scan without touching a machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metalimmu.cli.output import emit, output_option

if TYPE_CHECKING:
    from metalimmu_emulator.fleet import Fleet


@click.command()
@click.option("--bmcs", type=click.IntRange(0, 100_000), default=100, show_default=True)
@click.option("--mix", default="", metavar="MAKE=N,…", help="Shares: dell=40,hpe=30. Default: all makes alike.")
@click.option("--faults", default="", metavar="FAULT=P%,…", help="silent=1%,slow=5%:delay=2; see --list-faults.")
@click.option(
    "--recording", "recordings", multiple=True, metavar="PATH", help="Replay one (DMTF mockup); a folder of zips: all."
)
@click.option("--latency", default="0ms", show_default=True, metavar="TIME", help="Before each answer: 100ms.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="The same at all addresses; default: a free one."
)
@click.option("--http", is_flag=True, help="Without TLS.")
@click.option("--processes", type=click.IntRange(1, 64), default=os.cpu_count() or 1, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Other serials, other machines with faults.")
@click.option("--site", "folder", metavar="DIR", help="Where inventory and site are written; default: by --name.")
@click.option("--name", default="fleet", show_default=True, help="Which fleet; several can run at once.")
@click.option("--detach", is_flag=True, help="Leave it running; --stop ends it.")
@click.option("--stop", is_flag=True, help="End a detached fleet.")
@click.option("--status", is_flag=True, help="Show what a detached fleet has counted.")
@click.option("--list-faults", is_flag=True, help="Print the faults and their parameters.")
@output_option
def fleet(
    bmcs: int, mix: str, faults: str, recordings: tuple[str, ...], latency: str, port: int, http: bool, processes: int,
    seed: int, folder: str | None, name: str, detach: bool, stop: bool, status: bool, list_faults: bool, fmt: str,
) -> None:  # fmt: skip
    """Run a fleet of emulated BMCs on 127.0.0.0/8, until Ctrl-C.

    Each plays a make, with its oddities, at an address of its own, all at one port. An inventory and a read-only site are
    written, so that `metalimmu scan` works at once. Nothing but this machine can reach them.
    """
    from metalimmu_emulator.fleet import Fleet
    from metalimmu_emulator.fleet.spec import mixed

    if list_faults:
        _list_faults(fmt)
        return
    where = Path(folder).resolve() if folder else default_folder(name)
    if stop or status:
        running = Fleet.attach(where)
        _show(running, fmt) if status else _stop(running)
        return
    _none_runs(where)
    made = Fleet(
        mixed(bmcs, mix, faults, _paths(recordings), seed=seed),
        folder=where, processes=processes, latency=seconds(latency), tls=not http, port=port, seed=seed,
    ).start(detached=detach)  # fmt: skip
    words = partial(_say, made, detach=detach, folder=folder, name=name)
    if detach:
        words()
    else:
        _until_interrupted(made, words)


def default_folder(name: str) -> Path:
    from metalimmu.cli.lab import folder

    return folder(name).parent.parent / "fleet" / name


def seconds(text: str) -> float:
    """`100ms`, `0.1s`, or a number of seconds. Raises UsageError."""
    from metalimmu.errors import UsageError

    number, factor = (text[:-2], 0.001) if text.endswith("ms") else (text.removesuffix("s"), 1.0)
    try:
        found = float(number) * factor
    except ValueError:
        found = -1.0
    if not 0 <= found <= 3600:
        raise UsageError(f"--latency {text!r} is no time", hint="100ms or 0.1s")
    return found


def _paths(given: tuple[str, ...]) -> list[str]:
    """A folder with zips in it stands for all of them."""
    found: list[str] = []
    for text in given:
        zips = sorted(Path(text).glob("*.zip")) if Path(text).is_dir() else []
        found += map(str, zips) if zips else [text]
    return found


def _none_runs(folder: Path) -> None:
    from metalimmu.errors import LabError
    from metalimmu_emulator.fleet import Fleet

    try:
        running = Fleet.attach(folder)
    except LabError:
        return
    if running.alive:
        raise LabError(f"a fleet runs in {folder}", hint="end it with --stop, or give this one another --name")


def _say(made: Fleet, *, detach: bool, folder: str | None, name: str) -> None:
    first, last = made[0], made[len(made) - 1]
    what = f"{len(made)} BMCs answer" if len(made) > 1 else "1 BMC answers"
    click.echo(f"{what} at {first.ip} to {last.ip}, port {made.port}, as {made.username!r}. Next:\n")
    click.echo(f"  metalimmu --site {made.site} scan")
    trust = f" --ca {made.ca}" if made.spec.tls else ""
    click.echo(f"  metalimmu scan --inventory {made.inventory} --credentials {made.credentials}{trust}")
    which = f"--site {folder}" if folder else f"--name {name}"
    click.echo(f"  metalimmu lab fleet --stop {which}" if detach else "  Ctrl-C ends it")


def _stop(running: Fleet) -> None:
    count = len(running)
    running.stop()
    click.echo(f"{count} BMCs are gone")


def _show(running: Fleet, fmt: str) -> None:
    import msgspec

    row = {"bmcs": len(running), "port": running.port} | msgspec.to_builtins(running.counters())
    emit(
        [row],
        ["bmcs", "port", "requests", "writes", "sessions", "connections"],
        fmt,
        wide=["logins", "refused_logins", "most_in_flight", "errors", "bytes_sent"],
        name="port",
    )


def _list_faults(fmt: str) -> None:
    from metalimmu_emulator.fleet.faults import NAMES

    rows = [{"name": n, "parameters": " ".join((*p, "path", "method", "times", "after"))} for n, p in NAMES.items()]
    emit(rows, ["name", "parameters"], fmt)


def _until_interrupted(made: Fleet, words: Callable[[], None]) -> None:
    """Ctrl-C, or SIGTERM; or a process of the fleet that died. Whatever it is, none of them is left."""
    from metalimmu.errors import LabError

    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        words()
        while made.alive and not ended.wait(1.0):
            pass
        if not made.alive:
            raise LabError("a process of the fleet died", hint=f"its log is in {made.folder}")
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
        made.stop()
