"""`lab up | status | console | down`: a rack of virtual machines behind BMCs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metalimmu.cli import lab_switches
from metalimmu.cli.demo import demo
from metalimmu.cli.fleet import fleet
from metalimmu.cli.output import emit, output_option

if TYPE_CHECKING:
    from metalimmu_emulator.lab import Lab

IMAGES = ("tiny@1", "tiny@2")  # each built on the one before


def folder(name: str) -> Path:
    """Where the lab of that name lives (XDG base directory specification: state). Raises UsageError."""
    from metalimmu import paths
    from metalimmu.errors import UsageError

    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,40}", name):
        raise UsageError(f"{name!r} is no lab name", hint="lower case, digits, . _ -; at most 41")
    return paths.state() / "lab" / name


def existing(name: str) -> Lab:
    from metalimmu_emulator.lab import Lab

    return Lab(folder(name))


name_option = click.option("--name", default="default", show_default=True, help="Which lab; several can be up at once.")


@click.group()
def lab() -> None:
    """A rack of virtual machines, each behind a BMC of its own (Redfish and IPMI); or a fleet of BMCs without machines."""


lab.add_command(demo)
lab.add_command(fleet)


@lab.command()
@name_option
@click.option("--servers", type=click.IntRange(0, 64), help="Virtual servers.  [default: 1; 0 with --switches]")
@click.option(
    "--switches", type=click.IntRange(0, 16), default=0, show_default=True, help="Switches with ONIE, in pairs."
)
@click.option("--firmware", type=click.Choice(["uefi", "bios", "secure"]), default="uefi", show_default=True)
@click.option("--kvm", is_flag=True, help="Use KVM. Never by itself: /dev/kvm may open and not work.")
@click.option("--memory", type=int, default=1024, show_default=True, metavar="MIB")
@click.option("--disk", type=click.Choice(["virtio", "ahci", "nvme", "scsi"]), default="virtio", show_default=True)
@click.option("--disk-size", type=click.IntRange(1, 1024), default=8, show_default=True, metavar="GIB")
@click.option("--disks", type=click.IntRange(1, 5), default=1, show_default=True, help="Disks per server.")
@click.option("--nic", type=click.Choice(["virtio", "e1000"]), default="virtio", show_default=True)
@click.option("--cd", type=click.Choice(["virtio", "ahci"]), default="virtio", show_default=True)
@click.option("--ramdisk", type=click.Choice(["lab", "generic"]), default="lab", show_default=True)
@click.option("--mirror", metavar="URL", help="Debian mirror for ramdisk and images.")
@click.option(
    "--bmc",
    "protocol",
    type=click.Choice(["redfish", "ipmi"]),
    default="redfish",
    show_default=True,
    help="How the lab's site reaches the BMCs; every server speaks both.",
)
@click.option(
    "--network", is_flag=True, help="A real network on a bridge of this host: DHCP, PXE, UEFI HTTP boot. Needs root."
)
def up(
    name: str, servers: int | None, switches: int, disk_size: int, ramdisk: str, mirror: str | None, **shape: Any
) -> None:
    """Start a lab, with a site to drive it."""
    from metalimmu_emulator import requirements
    from metalimmu_emulator.lab import Lab

    servers = servers if servers is not None else (0 if switches else 1)
    requirements.check(shape["firmware"] if servers else "bios")
    images, ramdisks = artifacts()
    if servers:
        ensure_artifacts(images, ramdisks, ramdisk, mirror)
    made = Lab.up(
        folder(name),
        images=images,
        ramdisks=ramdisks,
        ramdisk=ramdisk,
        image=IMAGES[0],
        servers=servers,
        switches=switches,
        switch_disk=lab_switches.ensure(images, mirror) if switches else None,
        disk_size=disk_size << 30,
        mirror=mirror or "",
        **shape,
    )
    first = made.spec.servers[0].name
    racked = [f"{count} {what}" for count, what in ((servers, "servers"), (switches, "switches")) if count]
    click.echo(f"{' and '.join(racked)} are up, powered off. Next:\n")
    by_network = (
        " --method pxe" if made.spec.segment and servers else ""
    )  # what somebody wanted who asked for a network
    click.echo(f"  metalimmu --site {made.site} reimage {first}{by_network}")
    click.echo(f"  metalimmu lab console {first} -f --name {name}")
    click.echo(f"  metalimmu lab down --name {name}")


@lab.command()
@name_option
@output_option
def status(name: str, fmt: str) -> None:
    """Show the servers of a lab."""
    import dataclasses

    from metalimmu.errors import LabError

    found = existing(name)
    rows = [dataclasses.asdict(s) for s in found.status()]
    columns = ["name", "power", "bmc", "ipmi", "boot", "media", *(["ssh"] if any(r["ssh"] for r in rows) else [])]
    emit(rows, columns, fmt, wide=["serial", "firmware", "pid", "console"])
    if not found.running():
        raise LabError(
            "the lab's supervisor has died, and its machines with it", hint="`metalimmu lab up` starts it again"
        )


@lab.command()
@name_option
@click.argument("host")
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
def console(name: str, host: str, follow: bool) -> None:
    """Print what a server's serial port said."""
    from metalimmu_emulator.console import read

    for text in read(existing(name).console(host), follow=follow):
        click.echo(text, nl=False)


@lab.command()
@name_option
def down(name: str) -> None:
    """End all processes of a lab and remove all its files."""
    existing(name).down()
    click.echo(f"lab {name} is gone")


def artifacts() -> tuple[Path, Path]:
    """Where the labs of this user have their images and ramdisks; what builds them otherwise builds them elsewhere."""
    import hashlib

    from metalimmu import __version__, images, paths

    # Folder by folder: a wheel and a checkout have the same files in other places, and share what they build.
    folders = (Path(images.__file__).parent / "recipes", paths.data("pxe") / "proof")
    sources = [p for f in folders for p in sorted(f.rglob("*")) if p.is_file() and p.suffix != ".pyc"]
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()
    here = paths.cache() / "lab" / f"{__version__}-{digest[:8]}"
    return here / "images", here / "ramdisk"


def ensure_ramdisk(ramdisks: Path, flavour: str, mirror: str | None) -> None:
    """The ramdisk of a lab, built anew when it is of another version of metalimmu than this."""
    from metalimmu.errors import MetalimmuError
    from metalimmu.images import ramdisk

    try:
        current = ramdisk.load(ramdisks / flavour).current
    except MetalimmuError:  # none, or one that an older version made
        current = False
    if not current:
        click.echo(f"building the {flavour} ramdisk …", err=True)
        ramdisk.build(flavour, ramdisks / flavour, mirror=mirror)


def ensure_artifacts(images: Path, ramdisks: Path, flavour: str, mirror: str | None) -> None:
    """The ramdisk and the images of a lab, made once and shared by all labs of this user."""
    from metalimmu.errors import NotFound
    from metalimmu.images import build
    from metalimmu.images.catalogue import Catalogue

    ensure_ramdisk(ramdisks, flavour, mirror)
    catalogue = Catalogue(images)
    base = None
    for ref in IMAGES:
        try:
            catalogue.get(ref)
        except NotFound:
            click.echo(f"building the image {ref} …", err=True)
            build.build("tiny", ref, catalogue, base=base, mirror=mirror)
        base = ref
