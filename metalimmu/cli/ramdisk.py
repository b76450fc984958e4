"""`ramdisk build | list | show`: what runs on a machine while it is being written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metalimmu.cli.output import emit, find_site, output_option

if TYPE_CHECKING:
    from metalimmu.images.ramdisk import Ramdisk
    from metalimmu.service.site import OpenSite

COLUMNS = ("flavour", "kernel", "architecture", "iso_mib", "agent", "current", "missing_firmware")


@click.group()
def ramdisk() -> None:
    """The ramdisk that writes images: kernel, drivers, firmware and the agent, as a bootable ISO."""


folder_option = click.option(
    "--dir", "folder", type=click.Path(path_type=Path), help="Folder of ramdisks, instead of the site's."
)
site_name_option = click.option("--site", metavar="DIR", help="Folder with site.yaml (METALIMMU_SITE).")


@ramdisk.command()
@click.option("--flavour", default="generic", show_default=True, help="generic: real servers; lab: virtual machines.")
@click.option("--backports", is_flag=True, help="Kernel and firmware from Debian's backports, for newer hardware.")
@click.option(
    "--firmware",
    "firmware_dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder laid out like /lib/firmware; wins over Debian's packages.",
)
@click.option(
    "--mirror", metavar="URL", help="Debian mirror; default: the site's, else the machine's own if it is Debian."
)
@click.option("--arch", "architecture", default="x86_64", show_default=True)
@click.option("--refresh", is_flag=True, help="Ask the mirror for newer packages, although nothing else changed.")
@folder_option
@site_name_option
@click.pass_context
def build(ctx: click.Context, /, flavour: str, folder: Path | None, site: str | None, **options: Any) -> None:
    """Build a ramdisk into the site's state folder (or --dir)."""
    from metalimmu.images import ramdisk as library

    if folder is None:
        opened = _site(ctx, site)
        folder = opened.ramdisk_folder
        options["mirror"] = options["mirror"] or opened.docs.site.mirror
    out = folder / flavour
    made = library.build(flavour, out, progress=lambda line: click.echo(line, err=True), **options)
    for name, size in made.sizes.items():
        click.echo(f"{name:10} {size / (1 << 20):7.1f} MiB")
    for line in made.missing_firmware:
        click.echo(f"no firmware file {line}")
    if made.missing_modules:
        click.echo(f"kernel {made.kernel} has no module {', '.join(made.missing_modules)}")


@ramdisk.command("list")
@output_option
@folder_option
@site_name_option
@click.pass_context
def list_(ctx: click.Context, fmt: str, folder: Path | None, site: str | None) -> None:
    """List the ramdisks that are built."""
    from metalimmu.images import ramdisk as library

    rows = [_row(r) for r in library.list_built(_folder(ctx, folder, site))]
    emit(rows, COLUMNS, fmt, name="flavour", wide=("label", "mirror", "sha256"))


@ramdisk.command()
@click.argument("flavour")
@output_option
@folder_option
@site_name_option
@click.pass_context
def show(ctx: click.Context, flavour: str, fmt: str, folder: Path | None, site: str | None) -> None:
    """Show one ramdisk: kernel, sizes, what it lacks, and the packages it was made from."""
    from metalimmu.images import ramdisk as library

    row = _row(library.load(_folder(ctx, folder, site) / flavour))
    if fmt in ("table", "wide"):
        emit(
            [{"field": k, "value": v} for k, v in row.items() if k != "packages" or fmt == "wide"],
            ("field", "value"),
            fmt,
        )
    else:
        emit([row], tuple(row), fmt, name="flavour")


def _folder(ctx: click.Context, folder: Path | None, site: str | None) -> Path:
    return folder or _site(ctx, site).ramdisk_folder


def _site(ctx: click.Context, site: str | None) -> OpenSite:
    from metalimmu.service.site import OpenSite

    return OpenSite(find_site(site or ctx.find_root().params.get("site")))


def _row(one: Ramdisk) -> dict[str, Any]:
    from dataclasses import asdict

    row = {k: v for k, v in asdict(one).items() if k not in ("sizes", "folder")}
    row |= {f"{name}_mib": round(size / (1 << 20), 1) for name, size in one.sizes.items()}
    return row | {"agent": one.agent_version, "current": one.current, "iso": str(one.iso)}
