"""What boot loaders are told: iPXE scripts and GRUB configs, rendered from pxe/ipxe and pxe/grub. Pure but for reading those."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from metalimmu import paths
from metalimmu.boot.ports import Netboot
from metalimmu.errors import ImageError

if TYPE_CHECKING:
    import jinja2

Loader = Literal["ipxe", "grub"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_ARGS = re.compile(r"[\x20-\x7e]*\Z")
_SPLIT = frozenset({"||", "&&", ";"})  # where iPXE begins another command


@dataclass(frozen=True)
class Job:
    """One machine's boot."""

    host: str
    image: str
    deployment: str
    path: str  # /m/SECRET
    netboot: Netboot


def start(loader: Loader, url: str) -> str:
    """`url`: where machines reach us, without a trailing slash."""
    return _render(_file(loader, "start"), url=url, place=place(url))


def disk(loader: Loader) -> str:
    return _render(_file(loader, "disk"))


def start_by_tftp() -> str:
    """For Debian's signed GRUB, which has no HTTP: its configs are files, by MAC."""
    return _render("grub/start-tftp.cfg.j2")


def boot(loader: Loader, url: str, job: Job, *, device: str = "") -> str:
    """`device`: where GRUB finds the files, instead of at `url` by HTTP: `(tftp)`. Raises ImageError for names or a kernel command line that would break out of their line."""
    n = job.netboot
    bad = [name for name in (n.kernel, *n.initrds) if not _NAME.match(name)]
    if bad or not _one_line(n.args):
        what = f"a file called {bad[0]!r}" if bad else f"the kernel command line {n.args!r}"
        raise ImageError(
            f"{job.image} cannot be booted from the network: {what}",
            hint="plain ASCII on one line, without ${, ||, && and #",
        )
    return _render(
        _file(loader, "boot"),
        host=_plain(job.host),
        image=_plain(job.image),
        deployment=_plain(job.deployment),
        url=url + job.path,
        device=device or f"(http,{place(url)})",
        path=job.path,
        kernel=n.kernel,
        initrds=n.initrds,
        args=_grub_quoted(n.args) if loader == "grub" else n.args,
    )


def place(url: str) -> str:
    """ADDRESS[:PORT] for GRUB's `(http,…)`."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return shown if parts.port in (None, 80) else f"{shown}:{parts.port}"


def _file(loader: Loader, name: str) -> str:
    return f"{loader}/{name}.{'ipxe' if loader == 'ipxe' else 'cfg'}.j2"


def _one_line(args: str) -> bool:
    words = args.split(" ")
    return bool(_ARGS.match(args)) and "${" not in args and not any(w in _SPLIT or w.startswith("#") for w in words)


def _grub_quoted(args: str) -> str:
    """GRUB's shell splits and expands words: each in single quotes."""
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in args.split())


def _plain(text: str) -> str:
    """For comments and echo: nothing that a boot loader's shell would read."""
    return re.sub(r"[^A-Za-z0-9@._+~:-]", "-", text)


def _render(name: str, **values: Any) -> str:
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.data("pxe")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # scripts of boot loaders, not HTML; what goes in is checked above
    )


def render(name: str, **values: Any) -> str:
    """Any other template below pxe/."""
    return _render(name, **values)
