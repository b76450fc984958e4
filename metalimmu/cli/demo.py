"""`lab demo`: the whole story on one virtual server, with the commands that a person would type."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

NAME = "demo"
HOST = "node-1"


@click.command()
@click.option(
    "--recipe",
    type=click.Choice(["debian", "tiny"]),
    default="debian",
    show_default=True,
    help="What the machine runs.",
)
@click.option("--firmware", type=click.Choice(["uefi", "bios", "secure"]), default="uefi", show_default=True)
@click.option("--kvm", is_flag=True, help="Use KVM. Never by itself: /dev/kvm may open and not work.")
@click.option("--mirror", metavar="URL", help="Debian mirror for ramdisk and images.")
@click.option("--keep", is_flag=True, help="Leave the lab up.")
def demo(recipe: str, firmware: str, kvm: bool, mirror: str | None, keep: bool) -> None:
    """Reimage a virtual machine to version 1 of an image, to version 2, and roll back, each proven.

    The ramdisk and both versions of the image are built the first time and kept for the next.
    """
    from metalimmu.cli.lab import artifacts, folder
    from metalimmu.errors import NotFound
    from metalimmu_emulator import requirements
    from metalimmu_emulator.lab import Lab

    requirements.check(firmware)
    images, ramdisks = artifacts()
    versions = _built(recipe, images, ramdisks, mirror)
    try:
        Lab(folder(NAME)).down()  # one that an interrupted demo left
    except NotFound:
        shutil.rmtree(folder(NAME), ignore_errors=True)
    _say(f"a lab: one server ({firmware}) behind a Redfish BMC with TLS and a password")
    lab = Lab.up(
        folder(NAME),
        images=images,
        ramdisks=ramdisks,
        image=versions[0],
        firmware=firmware,
        kvm=kvm,
        mirror=mirror or "",
    )
    try:
        _story(lab.site, versions)
        _table(lab.site)
    finally:
        if keep:
            click.echo(
                f"\nthe lab stays up: metalimmu --site {lab.site} host show {HOST}; metalimmu lab down --name {NAME}"
            )
        else:
            lab.down()


def _built(recipe: str, images: Path, ramdisks: Path, mirror: str | None) -> tuple[str, str]:
    """The ramdisk, and two versions of the image, the second built on the first: an update of a package."""
    from metalimmu.cli.lab import ensure_ramdisk
    from metalimmu.errors import NotFound
    from metalimmu.images import build
    from metalimmu.images.catalogue import Catalogue

    ensure_ramdisk(ramdisks, "lab", mirror)
    catalogue = Catalogue(images)
    versions = (f"{recipe}-demo@1", f"{recipe}-demo@2")
    for ref, base, more in (
        (versions[0], None, {}),
        (versions[1], versions[0], {"packages": ["tree"]} if recipe == "debian" else {}),
    ):
        try:
            catalogue.get(ref)
        except NotFound:
            _say(f"building the image {ref}" + (f", on {base}" if base else "") + " (once)")
            begun = time.monotonic()
            arguments: dict[str, Any] = {"base": base, "mirror": mirror, **more}
            build.build(recipe, ref, catalogue, **arguments)
            click.echo(f"  took {time.monotonic() - begun:.0f} s")
    return versions


def _story(site: Path, versions: tuple[str, str]) -> None:
    role = site / "roles" / "web.yaml"
    _say(f"version 1: the role says {versions[0]}")
    _metalimmu(site, "reimage", HOST, "--yes")
    _say(f"version 2: the role now says {versions[1]}")
    role.write_text(role.read_text().replace(versions[0], versions[1]))
    _metalimmu(site, "reimage", HOST, "--yes")
    _say("and back, held there")
    _metalimmu(site, "rollback", HOST, "--yes", "--hold", "--reason", "version 2 was too new")
    _metalimmu(site, "host", "list")


def _metalimmu(site: Path, *args: str) -> None:
    """As a person would, in a process of its own. Raises LabError."""
    from metalimmu.errors import LabError

    words = [f"'{a}'" if " " in a else a for a in args]
    click.echo(click.style(f"\n$ metalimmu --site {site} {' '.join(words)}", bold=True))
    done = subprocess.run([sys.executable, "-m", "metalimmu", "--site", str(site), *args], check=False)
    if done.returncode:
        raise LabError(
            f"metalimmu {args[0]} ended with {done.returncode}",
            hint="the lab stays up with --keep; look at its console",
        )


def _table(site: Path) -> None:
    """Step, seconds, bytes over the network, proof: of all three runs."""
    from metalimmu.cli.watch import summary
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    for run in reversed(opened.store.runs(host=HOST, limit=10)):
        _say(f"{run.verb} to {run.plan['image']['ref']}")
        summary(opened, run)
    opened.close()


def _say(text: str) -> None:
    click.echo(click.style(f"\n== {text}", fg="cyan", bold=True))
