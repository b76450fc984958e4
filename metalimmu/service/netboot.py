"""The worker's dnsmasq: what it is told about the site's hosts and switches, and what of its log the history keeps."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from metalimmu import log
from metalimmu.boot import dhcp_probe, dnsmasq, dnsmasq_log, scripts, ztp
from metalimmu.boot.dnsmasq import Dnsmasq
from metalimmu.boot.loaders import Loaders
from metalimmu.boot.netboot import looped, stopped
from metalimmu.boot.ports import Asked, Sighting
from metalimmu.desired.resolve import resolve_all
from metalimmu.desired.types import HostSpec, SiteDocs
from metalimmu.errors import ListenError, MetalimmuError
from metalimmu.service import switches
from metalimmu.service.netboot_tftp import TftpBoots

if TYPE_CHECKING:
    from metalimmu.boot.dnsmasq_log import Heard
    from metalimmu.service.netboot_tftp import Content
    from metalimmu.service.site import OpenSite
    from metalimmu.store.netboot_records import OfferRecord

LOOK = 1.0  # seconds between looks at who is offered a boot
_SAID = 20  # events of one deployment: a machine in a loop would fill the history
_WARN = 60.0  # seconds between two warnings of one kind

_CONFIG = re.compile(r"([0-9a-f]{2}(?::[0-9a-f]{2}){5})\.cfg\Z")

logger = log.get("netboot")


class NetbootSide:
    """Runs for as long as the worker does. Does nothing where `netboot:` is off."""

    def __init__(
        self,
        site: OpenSite,
        boot_url: str,
        switch_url: Callable[[str, str], str],
        content: Content,
        *,
        prefix: tuple[str, ...] = (),
    ) -> None:
        """`content`: for boots by TFTP. `boot_url`: where machines reach us in the clear; `switch_url`: see switches.dhcp_lines; `prefix`: see Dnsmasq."""
        self._site = site
        self._settings = site.docs.site.netboot
        self._url = boot_url
        self._switch_url = switch_url
        self._content = content
        self._prefix = prefix
        self._tftp: TftpBoots | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._child: Dnsmasq | None = None
        self._offers: dict[str, OfferRecord] = {}  # by MAC
        self._macs: dict[str, str] = {}  # address -> MAC
        self._said: dict[str, int] = {}
        self._docs: SiteDocs | None = None
        self._hosts: list[str] = []  # lines, of those documents
        self._warned: dict[str, float] = {}

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Raises MetalimmuError: no dnsmasq, no permission, a port is taken."""
        if self._settings.mode == "off":
            return
        folder = run_folder(self._site.state)
        leases = self._site.state / "netboot" / "leases"
        loaders = Loaders(self._url)
        start = scripts.start_by_tftp().encode()
        files: dict[str, Path | bytes] = {**loaders.need(self._settings.loader), "grub/grub.cfg": start}
        text = self.config(folder, leases)
        child = Dnsmasq(text, folder=folder, leases=leases, files=files, said=self._hear, prefix=self._prefix)
        self._child = child
        if self._settings.loader == "shim":
            self._tftp = TftpBoots(self._site, self._content, child)
        self._look(child)
        dnsmasq.end_stray(folder)  # it would be found as another server
        self._alone()
        child.start()
        self._thread = threading.Thread(target=self._look_for_ever, args=(child,), name="netboot", daemon=True)
        self._thread.start()

    def config(self, folder: Path, leases: Path) -> str:
        """Text for dnsmasq."""
        switches_too = [ztp.fragment(self._syslog())]
        return dnsmasq.config(self._settings, url=self._url, folder=folder, leases=leases, fragments=switches_too)

    def _syslog(self) -> str:
        """The address that ONIE is told to send its words to; empty: none, nobody listens or it has no IPv4 address."""
        if self._site.docs.site.listen.syslog is None:
            return ""
        host = urlsplit(self._url).hostname or ""
        found = ipv4(host)
        if not found:
            logger.warning(
                "switches are told no syslog server: %s has no IPv4 address, and DHCP carries no other", host
            )
        return found

    def _alone(self) -> None:
        """Raises ListenError where another server gives addresses too; machines would take whichever answers first."""
        interface = self._settings.interface or ""
        others = dhcp_probe.servers(interface)
        if self._settings.mode == "dhcp" and others:
            raise ListenError(
                f"another DHCP server answers on {interface}: {', '.join(others)}",
                hint="stop it; or leave the addresses to it: `netboot: {mode: proxy}`, or mode off and urls.boot there",
            )
        if self._settings.mode == "proxy" and not others:
            logger.warning(
                "no DHCP server answers on %s: machines get no address there (netboot.mode is proxy)", interface
            )

    def stop(self) -> None:
        self._stop.set()
        if self._child is not None:
            self._child.stop()
        if self._thread is not None:
            self._thread.join(5)

    def _look_for_ever(self, child: Dnsmasq) -> None:
        while not self._stop.wait(LOOK):
            try:
                self._look(child)
            except MetalimmuError as exc:
                logger.warning("what dnsmasq knows stays as it is: %s", exc)
            except Exception:
                logger.exception("a fault in metalimmu, updating dnsmasq")

    def _look(self, child: Dnsmasq) -> None:
        offers = self._site.store.offers()
        self._offers = {mac.lower(): o for o in offers for mac in o.nics}
        if self._tftp is not None:
            self._tftp.update(offers)
        hosts, options = switches.dhcp_lines(self._site, self._switch_url)
        if self._docs is not self._site.docs:
            docs = self._site.docs
            specs = resolve_all(docs, root=self._site.folder).values()
            self._docs, self._hosts = docs, host_lines(specs)
        child.update(dict.fromkeys([*self._hosts, *hosts]), options)

    def _hear(self, line: str) -> None:
        """In the thread that reads dnsmasq's log."""
        heard = dnsmasq_log.parse(line)
        if heard is None:
            return
        if heard.mac and heard.address:
            self._macs[heard.address] = heard.mac
        if heard.kind in ("no-address", "tftp-failed"):
            self._warn(heard)
        config = _CONFIG.match(heard.file) if self._tftp is not None else None
        if config and heard.kind in ("loader", "no-file"):
            self._asked(config[1], heard)
        offer = self._offers.get(heard.mac or self._macs.get(heard.address, ""))
        if offer is None or heard.kind == "no-file":
            return
        count = self._said[offer.deployment] = self._said.get(offer.deployment, 0) + 1
        if count <= _SAID:
            data = {"heard": heard.kind}  # see workflows.silence
            self._site.store.add_event(offer.host, "netboot", heard.sentence(), run=offer.deployment, data=data)

    def _asked(self, mac: str, heard: Heard) -> None:
        """The signed GRUB asks by TFTP: what it is given is all that is known of the machine."""
        store, now = self._site.store, time.time()
        offer = self._offers.get(mac)
        if offer is None or heard.kind == "no-file":
            why = "no deployment is for it"
            seen = Sighting(mac, firmware="uefi", via="grub", address=heard.address, why=why, last_seen=now)
            store.sighted([seen])
            return
        store.asked([Asked(offer.deployment, offer.host, now, f"boot config sent to {mac} by TFTP")])
        asked, most = store.deployment(offer.deployment).asked, self._settings.max_boots
        if asked > most:
            failure = looped(offer.host, asked, most)
            logger.warning("%s", failure.message)
            store.update_deployment(offer.deployment, lambda now_: stopped(now_, failure))

    def _warn(self, heard: Heard) -> None:
        now = time.monotonic()
        if now - self._warned.get(heard.kind, -_WARN) >= _WARN:
            self._warned[heard.kind] = now
            logger.warning("%s", heard.sentence())


def host_lines(specs: Iterable[HostSpec]) -> list[str]:
    """For dnsmasq's `dhcp-hostsfile`: who is known, and a static IPv4 address as the documents have it. It is given to a machine
    on whose network it lies; on another one dnsmasq takes one of the range. A switch has the line of its runs at all times.
    """
    lines: list[str] = []
    for spec in specs:
        if spec.switch is not None:
            lines += ztp.dhcp_lines(spec.name, spec.switch.mgmt_mac, installer=None, ztp=None)[0]
            continue
        macs = list(dict.fromkeys(m.lower() for m in (*spec.nics, *spec.network.nics)))
        if macs:
            address = (spec.network.address or "").partition("/")[0]
            fixed = [address] if "." in address and not spec.network.vlan else []
            lines.append(",".join([*macs, *fixed, f"set:host-{spec.name.replace('.', '-')}"]))
    return lines


def ipv4(host: str) -> str:
    """Its first IPv4 address; empty: it has none, or no DNS knows it."""
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return ""


def run_folder(state: Path) -> Path:
    """Where dnsmasq's files are: it gives up root, and the state folder is ours alone. It has secrets: root and dnsmasq's group alone may enter."""
    name = hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:12]
    if os.geteuid() == 0:
        return Path("/run") / f"metalimmu-netboot-{name}"
    return state / "netboot" / "run"
