"""Options of `image add` by kind of image, and which library function takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from metalimmu.images.catalogue import Catalogue, Image

F = TypeVar("F", bound=Callable[..., Any])

KINDS = ("disk", "installer", "live", "iso", "nos")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# Option -> kinds that have it. Those of every kind are not here.
_OF = {
    "initrd": ("installer", "live"),
    "squashfs": ("installer", "live"),
    "place": ("installer", "live"),
    "arguments": ("installer", "live"),
    "answers": ("installer",),
    "nos": ("nos",),
    "platforms": ("nos",),
    "min_ram": ("nos",),
    "nos_version": ("nos",),
}


def kind_options(function: F) -> F:
    """`--kind` and what belongs to some kinds only, passed by name."""
    for option in reversed(
        (
            click.option(
                "--kind",
                type=click.Choice(KINDS),
                default="disk",
                show_default=True,
                help="disk: written by our agent. installer, live: FILE is a Linux kernel. iso: a vendor's, as it is. nos: a switch's.",
            ),
            click.option("--initrd", type=_FILE, help="Of installers and live systems."),
            click.option("--squashfs", type=_FILE, help="Of installers and live systems: their root file system."),
            click.option("--place", metavar="PATH", help="Of the squashfs on the media; default live/filesystem.squashfs."),
            click.option("--arguments", metavar="TEXT", help="Kernel arguments of installers and live systems, a template."),
            click.option(
                "--answers",
                type=click.Choice(("preseed", "kickstart", "autoinstall", "esxi")),
                help="What the installer asks for: Debian's, Anaconda's, Ubuntu's, ESXi's (whose FILE is VMware's ISO).",
            ),
            click.option("--nos", metavar="NAME", help="Of a nos: sonic, cumulus, lab."),
            click.option("--platform", "platforms", metavar="GLOB", multiple=True, help="ONIE platforms of a nos; repeat. Of a SONiC it chooses from its table."),
            click.option("--min-ram", metavar="SIZE", help="Memory that a nos needs, as 4GiB; default: three times the file."),
            click.option("--nos-version", metavar="TEXT", help="What a nos says of itself; default: the version of the name."),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def add_kind(
    catalogue: Catalogue, file: Path, ref: str, *, kind: str, mirror: str | None, progress: Any, **given: Any
) -> Image:
    """Raises UsageError for an option of another kind, and what the library raises."""
    options = _own(kind, given)
    architecture = options.pop("architecture", None)
    if kind == "disk":
        from metalimmu.images.add import add

        return add(catalogue, file, ref, architecture=architecture, progress=progress)
    if architecture:
        options["architecture"] = architecture
    if kind == "nos":
        return _nos(catalogue, file, ref, options, progress)
    from metalimmu.images.kinds import add_bootable, add_iso

    if kind == "iso":
        return add_iso(catalogue, file, ref, progress=progress, **options)
    if options.get("answers") == "esxi":
        from metalimmu.images.esxi import add_esxi

        return add_esxi(catalogue, file, ref, mirror=mirror, progress=progress, arguments=options.get("arguments", ""))
    if "initrd" not in options:
        from metalimmu.errors import UsageError

        raise UsageError(f"--kind {kind} needs --initrd", hint=f"FILE is the kernel: image add KERNEL {ref} --kind {kind} --initrd FILE")  # fmt: skip
    say = lambda text: click.echo(text, err=True)  # noqa: E731
    return add_bootable(catalogue, file, ref, kind=kind, mirror=mirror, progress=progress, say=say, **options)


def _nos(catalogue: Catalogue, file: Path, ref: str, options: dict[str, Any], progress: Any) -> Image:
    from metalimmu.desired.units import size_bytes
    from metalimmu.errors import UsageError
    from metalimmu.images.nos import add_nos
    from metalimmu.nos.adapter import adapters

    if "nos" not in options:
        raise UsageError(
            "--kind nos needs --nos", hint="--nos sonic | cumulus | lab says which commands it understands"
        )
    if options["nos"] not in adapters():
        raise UsageError(f"no NOS {options['nos']!r} is known", hint=f"there are: {', '.join(adapters())}")
    if "nos_version" in options:
        options["version"] = options.pop("nos_version")
    if "min_ram" in options:
        options["min_ram"] = size_bytes(options["min_ram"])
    options.setdefault("platforms", ())
    warn = lambda text: click.echo(f"warning: {text}", err=True)  # noqa: E731
    return add_nos(catalogue, file, ref, progress=progress, warn=warn, **options)


def _own(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given. Raises UsageError for those of another kind."""
    from metalimmu.errors import UsageError

    said = {k: v for k, v in given.items() if v not in (None, ())}
    for name in said:
        if kind not in _OF.get(name, KINDS):
            option = {"platforms": "--platform"}.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(f"{option} is not for --kind {kind}", hint=f"it is for {' and '.join(_OF[name])}")
    return said
