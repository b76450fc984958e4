"""The kernel command line of installers and live systems, and how GRUB is told of it: pure."""

from __future__ import annotations

from metalimmu.errors import ImageError
from metalimmu.wire import cpio

LONGEST = 2047  # COMMAND_LINE_SIZE of x86 is 2048, with its final zero


def words(*texts: str) -> tuple[str, ...]:
    """Arguments in order, each once. Raises ImageError for what cannot be on a command line."""
    found = tuple(dict.fromkeys(w for text in texts for w in text.split()))
    line = " ".join(found)
    if len(line.encode()) > LONGEST:
        raise ImageError(
            f"the kernel's command line has {len(line.encode())} bytes, at most {LONGEST} are possible",
            hint="shorten `arguments:` of the role",
        )
    bad = next((c for c in line if c in "'\"\\" or not c.isprintable()), "")
    if bad:
        raise ImageError(f"the kernel's command line has {bad!r} in it", hint="write arguments without quotes")
    return found


def grub(arguments: tuple[str, ...], size: int, *, second: bool) -> bytes:
    """GRUB's commands for the slot, padded with newlines. Words stand in single quotes: nothing in them means anything
    to GRUB, as `;` and `$` would. `second`: with the second initrd, which is a slot as well.
    """
    quoted = "".join(f" '{word}'" for word in arguments)
    initrds = "/boot/initrd /boot/slot.cpio" if second else "/boot/initrd"
    text = f"linux /boot/vmlinuz{quoted}\ninitrd {initrds}\n".encode()
    if len(text) > size:
        raise ImageError(f"GRUB's commands take {len(text)} bytes, the media has room for {size}")
    return text + b"\n" * (size - len(text))


def esxi(options: tuple[str, ...], size: int) -> bytes:
    """A line for the room in ESXi's boot.cfg, padded with newlines."""
    text = f"kernelopt={' '.join(options)}\n".encode()
    if len(text) > size:
        raise ImageError(f"ESXi's kernel options take {len(text)} bytes, the media has room for {size}")
    return text + b"\n" * (size - len(text))


def second_initrd(files: dict[str, str], programs: dict[str, str], size: int) -> bytes:
    """An archive with these files in /metalimmu/seed, and these programs at their paths, padded with zeros.

    Raises ImageError when it does not fit.
    """
    entries = [cpio.directory("metalimmu", 0o700), cpio.directory("metalimmu/seed", 0o700)] if files else []
    entries += [cpio.file(f"metalimmu/seed/{name}", text.encode(), 0o400) for name, text in sorted(files.items())]
    entries += [cpio.file(path, text.encode(), 0o755) for path, text in sorted(programs.items())]
    archive = cpio.pack(entries)
    if len(archive) > size:
        raise ImageError(
            f"the run-time config takes {len(archive)} bytes, the media has room for {size}",
            hint="make the files of the role's `config:` smaller",
        )
    return archive + bytes(size - len(archive))
