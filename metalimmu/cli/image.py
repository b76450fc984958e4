"""`image build | add | list | show | verify | diff | revoke | rm | gc`: the store of immutable images."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from metalimmu.cli.image_kinds import kind_options
from metalimmu.cli.output import emit, find_site, output_option

if TYPE_CHECKING:
    from metalimmu.images.catalogue import Catalogue, Image
    from metalimmu.service.site import OpenSite

F = TypeVar("F", bound=Callable[..., Any])

COLUMNS = ("ref", "kind", "digest", "size", "stored", "firmware", "recipe", "base", "added", "revoked")
PHASES = {
    "packages": "fetching and installing packages",
    "write": "writing the disk image",
    "check": "checking it",
    "add": "storing chunks",
    "verify": "reading chunks",
}


@click.group()
def image() -> None:
    """Immutable images NAME@VERSION: build, add, compare and revoke them."""


def store_option(function: F) -> F:
    """`--images DIR` and `--site DIR`, passed as `store`: the Place of the image store."""

    def opened(ctx: click.Context, _param: click.Parameter, value: Path | None) -> Place:
        return Place(value, ctx.meta.get("metalimmu.image.site") or ctx.find_root().params.get("site"))

    store = click.option(
        "--images",
        "store",
        type=click.Path(path_type=Path),
        callback=opened,
        help="Folder of the image store, instead of the site's.",
    )
    site = click.option(
        "--site",
        metavar="DIR",
        is_eager=True,
        expose_value=False,
        callback=_keep,
        help="Folder with site.yaml (METALIMMU_SITE).",
    )
    return site(store(function))


def _keep(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    ctx.meta["metalimmu.image.site"] = value


class Place:
    """Where the image store is: a folder that was named, or the site's."""

    def __init__(self, folder: Path | None, site: str | None) -> None:
        self.folder, self._site = folder, site

    def site(self) -> OpenSite | None:
        from metalimmu.service.site import OpenSite

        return None if self.folder else OpenSite(find_site(self._site))

    @property
    def catalogue(self) -> Catalogue:
        from metalimmu.images.catalogue import Catalogue

        site = self.site()
        return site.catalogue if site else Catalogue(self.folder or Path())

    @property
    def mirror(self) -> str | None:
        site = self.site()
        return site.docs.site.mirror if site else None

    def in_use(self) -> dict[str, list[str]]:
        """Digest -> who needs it; nothing is known of a store without a site."""
        from metalimmu.service.images import in_use

        site = self.site()
        if site is None:
            return {}
        with contextlib.closing(site):
            return in_use(site)


@image.command()
@click.argument("recipe")
@click.option("--as", "ref", metavar="NAME@VERSION", help="Default: name and version of the recipe file.")
@click.option(
    "--base", metavar="NAME@VERSION", help="Build on this image: only what differs is written, so little moves."
)
@click.option(
    "--mirror", metavar="URL", help="Debian archive; default: the site's, else the machine's own if it is Debian."
)
@click.option(
    "--size", metavar="SIZE", help="Of the disk image, as 4GiB; the root file system grows on the machine anyway."
)
@click.option("--package", "packages", metavar="NAME[=VERSION]", multiple=True, help="One more package; repeat.")
@click.option(
    "--kernel",
    type=click.Choice(["cloud", "generic"]),
    help="cloud (default): virtual machines; generic: every driver.",
)
@click.option(
    "--files",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder to copy over the root file system.",
)
@store_option
def build(recipe: str, store: Place, mirror: str | None, **options: Any) -> None:
    """Build an image from RECIPE: debian, tiny, or a YAML recipe file."""
    from metalimmu.images.build import build as library

    with _progress() as progress:
        made = library(
            recipe, options.pop("ref"), store.catalogue, mirror=mirror or store.mirror, progress=progress, **options
        )
    _said(store.catalogue, made)


@image.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("ref", metavar="NAME@VERSION")
@click.option("--architecture", type=click.Choice(["x86_64", "aarch64"]), help="Default: what its EFI loader is for.")
@kind_options
@store_option
def add(file: Path, ref: str, store: Place, **options: Any) -> None:
    """Add a disk image: raw, qcow2, vmdk, vhdx, or gz, xz, zst of these. Other kinds of image: --kind."""
    from metalimmu.cli.image_kinds import add_kind

    with _progress() as progress:
        made = add_kind(store.catalogue, file, ref, mirror=store.mirror, progress=progress, **options)
    _said(store.catalogue, made)


@image.command("list")
@store_option
@output_option
def list_(store: Place, fmt: str) -> None:
    """List the images of the store."""
    catalogue = store.catalogue
    emit(
        [_row(catalogue, i) for i in catalogue.images()],
        COLUMNS[:6] + COLUMNS[-1:],
        fmt,
        name="ref",
        wide=COLUMNS[6:-1],
        shows={**SHOWS, "digest": lambda d: d[:19]},
    )


@image.command()
@click.argument("ref", metavar="NAME@VERSION")
@store_option
@output_option
def show(ref: str, store: Place, fmt: str) -> None:
    """Show an image: what it is, how it was built, who needs it."""
    catalogue = store.catalogue
    found = catalogue.get(ref)
    row = _row(catalogue, found) | {
        "architecture": found.manifest.architecture,
        "partition_table": found.manifest.partition_table,
        "sector_size": found.manifest.sector_size,
        "build_id": found.manifest.build_id,
        "efi_loader": found.manifest.efi_loader,
        **_boots(found),
        **_nos(found),
        "in_use": store.in_use().get(found.digest, []),
    }
    if fmt in ("table", "wide"):
        worded = {k: SHOWS[k](v) if k in SHOWS and v is not None else v for k, v in row.items()}
        emit([{"field": k, "value": v} for k, v in worded.items()], ("field", "value"), fmt)
    else:
        emit([row | {"provenance": found.provenance}], (), fmt, name="ref")


@image.command()
@click.argument("refs", metavar="[NAME@VERSION]...", nargs=-1)
@store_option
def verify(refs: tuple[str, ...], store: Place) -> None:
    """Read every chunk and compare its SHA-256; of all images, if none is named."""
    from metalimmu.images.verify import verify as library

    with _progress() as progress:
        found = library(store.catalogue, refs, progress=progress)
    click.echo(f"{found.images} images are whole: {found.chunks} chunks, {_size(found.stored)} on disk")


@image.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@store_option
@output_option
def diff(a: str, b: str, store: Place, fmt: str) -> None:
    """What moves when a machine with image A becomes image B (both NAME@VERSION)."""
    from metalimmu.images.verify import diff as library

    catalogue = store.catalogue
    found = library(catalogue, catalogue.get(a), catalogue.get(b))
    row = {
        "from": a,
        "to": b,
        "same_chunks": found.same,
        "changed_chunks": found.changed,
        "fetch_chunks": found.fetch,
        "fetch_bytes": found.fetch_bytes,
        "whole_bytes": found.whole_bytes,
    }
    emit([row], tuple(row), fmt, name="to", shows=SHOWS)


@image.command()
@click.argument("ref", metavar="NAME@VERSION")
@click.option("--reason", required=True, help="Why nobody may deploy it; it is shown to those who try.")
@store_option
def revoke(ref: str, reason: str, store: Place) -> None:
    """Deploy this image nowhere from now on."""
    found = store.catalogue.revoke(ref, reason)
    click.echo(f"{ref} is revoked: {found.revoked}")
    for user in store.in_use().get(found.digest, []):
        click.echo(f"  {user}")


@image.command()
@click.argument("ref", metavar="NAME@VERSION")
@store_option
def rm(ref: str, store: Place) -> None:
    """Forget an image that nothing needs; `image gc` then frees its chunks."""
    store.catalogue.remove(ref, store.in_use())
    click.echo(f"{ref} is gone; `metalimmu image gc` frees its space")


@image.command()
@click.option("--dry-run", is_flag=True, help="Say what would go.")
@store_option
def gc(dry_run: bool, store: Place) -> None:
    """Remove chunks that no image names."""
    from metalimmu.images.gc import collect

    found = collect(store.catalogue, dry_run=dry_run)
    would = "would free" if dry_run else "freed"
    click.echo(f"{would} {found.chunks} chunks, {_size(found.bytes)}; {found.kept} are in use")


def _row(catalogue: Catalogue, one: Image) -> dict[str, Any]:
    from metalimmu.errors import ImageCorrupt

    try:
        stored: int | str = sum(map(catalogue.chunks.size, one.manifest.distinct()))
    except ImageCorrupt:
        stored = "chunks are missing"
    told = one.provenance
    return {
        "ref": one.ref,
        "kind": one.manifest.kind,
        "digest": one.digest,
        "size": one.manifest.size,
        "stored": stored,
        "firmware": list(one.manifest.firmware),
        "recipe": (told.get("recipe") or {}).get("recipe") or told.get("source", {}).get("format"),
        "base": (told.get("base") or {}).get("ref"),
        "added": time.strftime("%Y-%m-%d %H:%M", time.localtime(one.added)),
        "revoked": one.revoked,
    }


def _nos(one: Image) -> dict[str, Any]:
    nos = one.manifest.nos
    if nos is None:
        return {}
    return {
        "nos": f"{nos.nos} {nos.version}",
        "platforms": list(nos.platforms),
        "min_ram": nos.min_ram,
        "sha256": nos.sha256,
    }


def _boots(one: Image) -> dict[str, Any]:
    boots = one.manifest.boots
    if boots is None:
        return {}
    parts = [f"{p.name} {_size(p.length)}" for p in boots.parts]
    return {"arguments": boots.arguments, "answers": boots.answers, "parts": parts}


def _said(catalogue: Catalogue, made: Image) -> None:
    row = _row(catalogue, made)
    click.echo(
        f"{made.ref} {made.digest}: {_size(row['size'])}, {_size(row['stored'])} to move, boots {', '.join(made.manifest.firmware) or 'nothing'}"
    )


def _size(count: int | str) -> str:
    return count if isinstance(count, str) else f"{count / (1 << 20):.1f} MiB"


SHOWS = dict.fromkeys(("size", "stored", "min_ram", "fetch_bytes", "whole_bytes"), _size)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """One moving line on a terminal; a line per phase otherwise."""
    live, last = sys.stderr.isatty(), [""]

    def report(phase: str, done: int, total: int) -> None:
        text = PHASES.get(phase, phase)
        if live:
            share = f" {done * 100 // total} %" if total else f" {_size(done)}" if done else " …"
            click.echo(f"\r\033[K{text}{share}", nl=False, err=True)
        elif phase != last[0]:
            click.echo(f"{text} …", err=True)
        last[0] = phase

    try:
        yield report
    finally:
        if live and last[0]:
            click.echo("\r\033[K", nl=False, err=True)
