"""Where the boot service listens: sockets opened before anything starts, so that a taken port is said at once."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from metalimmu.desired.checks_netboot import plain_boot_url
from metalimmu.desired.types import Listen, Urls
from metalimmu.errors import ListenError, UsageError

BACKLOG = 512


@dataclass(frozen=True)
class Listener:
    """One address, and what is served there."""

    host: str  # empty: all addresses
    port: int
    setting: str  # what to look at in site.yaml
    tls: bool
    media: bool = False
    chunks: bool = False
    agents: bool = False
    netboot: bool = False


def plan(urls: Urls, listen: Listen) -> list[Listener]:
    """The machines' listener, and the BMCs'; one when both are the same address. Machines that boot the network have one of
    their own if `urls.boot` says so; else, if that is plain HTTP, they share the BMCs'.

    `urls.chunks` may lead to the second one by another of our addresses, or to a cache in front of it: it serves chunks
    whenever the site wants them in the clear.

    Raises UsageError for an address that cannot be read, or one that is plain HTTP for BMCs and TLS for machines.
    """
    machines = _listener(urls.machines, listen.machines, "machines", chunks=True, agents=True)
    bmc = _listener(urls.bmc, listen.bmc, "bmc", media=True, chunks=urls.chunks is not None)
    boot = _listener(urls.boot, listen.boot, "boot", netboot=True) if urls.boot else None
    if boot is not None and boot.port == machines.port:
        raise UsageError(
            f"urls.boot and urls.machines both lead to port {boot.port}, one without TLS and one with",
            hint="give them different ports in site.yaml",
        )
    if not bmc.tls and (boot is None or boot.port == bmc.port):
        bmc, boot = replace(bmc, netboot=True), None
    elif boot is not None and boot.port == bmc.port:
        raise UsageError(
            f"urls.boot and urls.bmc both lead to port {boot.port}, one without TLS and one with",
            hint="give them different ports in site.yaml",
        )
    if (machines.host, machines.port) != (bmc.host, bmc.port):
        return [bmc, machines, *([boot] if boot else [])]
    if not bmc.tls:
        raise UsageError(
            f"urls.bmc and urls.machines both lead to port {bmc.port}, one with TLS and one without",
            hint="give them different ports in site.yaml",
        )
    return [
        Listener(bmc.host, bmc.port, "urls", tls=True, media=True, chunks=True, agents=True),
        *([boot] if boot else []),
    ]


def boot_url(urls: Urls) -> str | None:
    """Where machines that boot the network reach us, without a trailing slash; None: nowhere in the clear."""
    return plain_boot_url(urls)


def open_socket(listener: Listener) -> socket.socket:
    """Bound and listening. Raises ListenError, which says which and why."""
    where = f"{listener.host or 'all addresses'}, port {listener.port}"
    both = not listener.host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in listener.host else socket.AF_INET
    try:
        return socket.create_server((listener.host, listener.port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as exc:
        raise ListenError(
            f"the boot service cannot listen on {where} ({listener.setting}): {exc.strerror or exc}",
            hint=_hint(exc.errno, listener),
        ) from exc


def _hint(code: int | None, listener: Listener) -> str:
    if code == errno.EADDRINUSE:
        return (
            f"`ss -ltnp 'sport = :{listener.port}'` names the program that has it: stop that, or change "
            f"{listener.setting} (the port in the URL, or `listen:`) in site.yaml"
        )
    if code == errno.EACCES:
        return f"ports below 1024 need root or CAP_NET_BIND_SERVICE: use another port in {listener.setting}"
    if code == errno.EADDRNOTAVAIL:
        return f"this machine has no address {listener.host}: correct `listen:` in site.yaml"
    return ""


def _listener(
    url: str,
    listen: str | None,
    name: str,
    *,
    media: bool = False,
    chunks: bool = False,
    agents: bool = False,
    netboot: bool = False,
) -> Listener:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    try:
        port = parts.port or (443 if tls else 80)
        host, setting = "", f"urls.{name}"
        if listen:
            setting = f"listen.{name}"
            place = urlsplit(f"//{listen}")
            host, port = place.hostname or "", place.port or port
    except ValueError as exc:
        raise UsageError(f"{name}: {url} {listen or ''}: {exc}", hint="write ADDRESS:PORT") from exc
    return Listener(host, port, setting, tls, media=media, chunks=chunks, agents=agents, netboot=netboot)
