"""Switches of a site: how each is reached, what is around it, and what a run's deployment is made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from metalimmu import log
from metalimmu.bmc import credentials
from metalimmu.boot import ztp
from metalimmu.boot.tokens import hashed, write_once
from metalimmu.desired.switch import no_bmc
from metalimmu.errors import MetalimmuError, NosAbsent, NotFound, SecretError, UsageError
from metalimmu.images.serve import ImageFile
from metalimmu.nos.driver import SshNos
from metalimmu.nos.ssh import Ssh
from metalimmu.observed.types import PowerState
from metalimmu.plan.pair import Around
from metalimmu.service.config import texts
from metalimmu.service.site import private_folder
from metalimmu.store.switch_records import SwitchRecord

if TYPE_CHECKING:
    from pathlib import Path

    from metalimmu.boot.http import BootService
    from metalimmu.boot.switch_ports import SwitchDeployment, SwitchDeployments
    from metalimmu.boot.tokens import SiteKey
    from metalimmu.desired.types import HostSpec, Mode
    from metalimmu.observed.switch import SwitchFacts
    from metalimmu.plan.types import Plan
    from metalimmu.service.config import Renderer
    from metalimmu.service.site import OpenSite

KEYS = "ssh-host-key"  # kinds of observations
SLOTS = "switch-slots"
FACTS = "switch"

IDENTITY = ("serial", "base_mac", "eeprom")  # facts that say which switch it is, each NOS has some of them


def connect(
    site: OpenSite,
    spec: HostSpec,
    *,
    mode: Mode | None = None,
    run: str = "",
    before_write: Callable[[], None] = lambda: None,
    check: Callable[[], None] = lambda: None,
) -> SshNos:
    """The NOS of a switch, its host key pinned. Raises UsageError, SecretError."""
    switch = spec.switch
    if switch is None:
        raise UsageError(f"{spec.name} is no switch", hint="this is for hosts of kind: switch")
    if spec.credentials is None:
        raise SecretError(
            f"{spec.name} has no credentials: SSH needs a user at least",
            hint="set credentials: in the host, or a rule in site.yaml",
        )
    login = credentials.read(spec.credentials, folder=site.folder)
    shell = Ssh(
        switch.address,
        port=switch.port,
        user=switch.user or login.username,
        password=login.password,
        key=switch.key,
        keys=known_keys(site, spec, run),
        learn=lambda keys: learned(site, spec, keys, run),
        connect=spec.connect_timeout,
        name=spec.name,
        check=check,
    )
    return SshNos(shell, name=spec.name, mode=mode or spec.mode, before_write=before_write)


def known_keys(site: OpenSite, spec: HostSpec, run: str) -> tuple[str, ...]:
    """The host keys that are right now; none: the next one seen is.

    The document's; else those that this run's ZTP has said; else those that were seen before. A NOS that a run has just
    installed has a new key, and no other way to say so: in each run one change is believed, after the image was delivered.
    """
    if spec.switch is not None and spec.switch.host_keys:
        return spec.switch.host_keys
    seen = site.store.observation(spec.name, KEYS)
    known = tuple(str(k) for k in seen.data.get("keys", ())) if seen else ()
    if not run:
        return known
    try:
        r = site.store.switches.get(run)
    except NotFound:
        return known
    if r.reported.get("host_keys"):
        said = tuple(str(k) for k in r.reported["host_keys"])
        learned(
            site, spec, said, run
        )  # they stay right after this run, also where no connection came before the report
        return said
    changes = bool(r.delivered) if r.method == "onie" else bool(r.intent)
    return () if changes and (seen is None or seen.data.get("run") != run) else known


def learned(site: OpenSite, spec: HostSpec, keys: tuple[str, ...], run: str) -> None:
    """Slots keep their own keys: those of the slot before stay right."""
    seen = site.store.observation(spec.name, KEYS)
    old = tuple(str(k) for k in seen.data.get("keys", ())) if seen else ()
    both: tuple[str, ...] = ()
    if run:
        try:
            both = old if site.store.switches.get(run).method == "two-slot" else ()
        except NotFound:
            run = ""
    if set(keys) <= set(old):
        return  # the old NOS, which has not gone yet: the one change of this run is still to come
    found = tuple(dict.fromkeys((*keys, *both)))[:8]
    site.store.observe(spec.name, KEYS, {"keys": list(found), "run": run})
    what = "another SSH host key, after its image was delivered" if old else "an SSH host key, the first one seen"
    site.store.add_event(spec.name, "ssh-key", f"{spec.name} shows {what}", run=run, data={"keys": list(found)})


def forget_keys(site: OpenSite, host: str) -> str:
    """Take the next key that is seen. Returns a sentence."""
    spec = site.spec(host)
    if spec.switch is None:
        raise UsageError(f"{host} is no switch")
    if spec.switch.host_keys:
        raise UsageError(f"the keys of {host} stand in its document", hint="change switch.host_keys there")
    site.store.observe(host, KEYS, {"keys": [], "run": ""})
    site.store.add_event(host, "ssh-key", f"the SSH host key of {host} was forgotten")
    return f"the next SSH host key that {host} shows is taken for right"


def single_homed(site: OpenSite, name: str) -> tuple[str, ...]:
    """Hosts whose document names this switch as their only leaf."""
    hosts = site.docs.hosts.values()
    return tuple(h.name for h in hosts if h.location is not None and set(h.location.leaves) == {name})


def around(site: OpenSite, spec: HostSpec, facts: SwitchFacts | None, *, run: str = "") -> Around:
    """Asks the peer now; never raises for what the peer does not say."""
    switch = spec.switch
    peer = switch.peer if switch else None
    seen: SwitchFacts | None = None
    other: HostSpec | None = None
    why = busy = quarantine = ""
    if peer is not None:
        lease = site.store.lease(peer)
        if lease is not None and lease.run not in (None, run):
            busy = f"{lease.run} of {lease.holder}"
        record = site.store.host(peer)
        quarantine = record.quarantine.reason if record.quarantine and record.image else ""
        try:
            other = site.spec(peer)
            seen = connect(site, other, mode="read-only").facts("pair", "traffic", *IDENTITY)
        except MetalimmuError as exc:
            why = exc.message
    return Around(
        name=spec.name,
        peer=peer,
        facts=facts,
        peer_facts=seen,
        peer_serial=other.serial if other else None,
        peer_base_mac=other.switch.base_mac if other and other.switch else "",
        peer_why=why,
        peer_busy=busy,
        peer_quarantine=quarantine,
        single_homed=single_homed(site, spec.name),
        controller_leaves=tuple(site.docs.site.controller_leaves),
        idle=facts is None and idle(site, spec),
    )


def idle(site: OpenSite, spec: HostSpec) -> bool:
    """Does a switch whose NOS does not answer carry nothing? Silence alone is no evidence: it may forward all the same, with
    the wrong address in its document.
    """
    record = site.store.host(spec.name)
    if record.image is not None:
        return False
    if no_bmc(spec.bmc) or record.quarantine is not None:
        return True  # nobody restarts it; or its NOS was wiped by a run that failed
    try:
        connect(site, spec, mode="read-only").probe()
    except NosAbsent:
        return True
    except MetalimmuError:
        pass
    try:
        with site.connect(spec, mode="read-only") as bmc:
            return bmc.power_state() is PowerState.off
    except MetalimmuError:
        return False


def dhcp_lines(site: OpenSite, url: Callable[[str, str], str]) -> tuple[list[str], list[str]]:
    """Hosts and options for dnsmasq, of the switches that are deployed now. `url`: BootService.switch_url."""
    hosts: list[str] = []
    options: list[str] = []
    for r in site.store.switches.running():
        fresh = r.method == "onie"  # a second slot keeps its config: nothing is to be fetched
        installer = url("/onie/{}/onie-installer", r.id) if fresh else None
        served = url("/ztp/{}/ztp.json", r.id) if fresh else None
        first, second = ztp.dhcp_lines(r.host, r.mgmt_mac, installer=installer, ztp=served)
        hosts += first
        options += second
    return hosts, options


class SwitchSide:
    """Fits the boot service's SwitchContent and the workflow's SwitchTools. `service` gives it when it is made."""

    def __init__(
        self, site: OpenSite, key: SiteKey, service: Callable[[], BootService], renderer: Callable[[], Renderer]
    ) -> None:
        self._site = site
        self._key = key
        self._service = service
        self._renderer = renderer

    # boot.switch_ports.SwitchContent

    def switches(self) -> SwitchDeployments:
        return self._site.store.switches

    def nos_image(self, deployment: SwitchDeployment) -> ImageFile:
        r = self._site.store.switches.get(deployment.id)
        image = self._site.catalogue.by_digest(r.digest)
        if image is None:
            raise NotFound(f"the image store has no {r.image} any more", hint="add it again from its file")
        return ImageFile(image.manifest, self._site.catalogue.chunks)

    def ztp_file(self, deployment: SwitchDeployment, name: str) -> tuple[str, str] | None:
        base = self._service().switch_url("/ztp/{}", deployment.id)
        return ztp.files(self._served(deployment.id), base).get(name)

    def switch_said(self, deployment: SwitchDeployment, kind: str, text: str) -> None:
        self._site.store.add_event(deployment.host, kind, log.redact(text), run=deployment.id)

    # workflows.switch_tools.SwitchTools

    def connect(
        self, spec: HostSpec, *, run: str, before_write: Callable[[], None], check: Callable[[], None]
    ) -> SshNos:
        return connect(self._site, spec, run=run, before_write=before_write, check=check)

    def rehearse(self, run: str, plan: Plan) -> None:
        ztp.files(texts(self._renderer().render(plan.spec, run).served), "http://rehearsal.invalid")
        self._service().boot_url()

    def create(self, run: str, plan: Plan, fence: int, before: dict[str, Any]) -> None:
        spec, switch = plan.spec, plan.spec.switch
        if switch is None:
            raise UsageError(f"{plan.host} is no switch")
        config = self._renderer().render(spec, run)
        self._site.store.switches.add(
            SwitchRecord(
                id=run,
                run=run,
                host=plan.host,
                secret_hash=hashed(self._key.secret("switch", run)),
                method=plan.method,
                image=plan.image.ref,
                digest=plan.image.digest,
                size=plan.image.size,
                serial=spec.serial or plan.identity.serial,
                base_mac=switch.base_mac,
                mgmt_mac=switch.mgmt_mac,
                platform=switch.platform,
                fence=fence,
                installs=switch.installs,
                config=config.kept,
                config_digest=config.digest,
                before=before,
                armed=plan.method == "onie",
                created=time.time(),
            )
        )

    def image_url(self, run: str) -> str:
        return self._service().switch_url("/nos/{}/image", run)

    def around(self, spec: HostSpec, facts: SwitchFacts | None, *, run: str) -> Around:
        return around(self._site, spec, facts, run=run)

    def backup(self, host: str, run: str, config: str) -> str:
        path = self._backup(host, run)
        write_once(path, config.encode())
        return str(path)

    def kept(self, host: str, run: str) -> str:
        path = self._backup(host, run)
        return path.read_bytes().decode() if path.exists() else ""

    def _backup(self, host: str, run: str) -> Path:
        return private_folder(private_folder(self._site.state / "switches") / host) / f"{run}.config"

    def config(self, run: str) -> str | None:
        return self._served(run).get(ztp.CONFIG)

    def slot_of(self, host: str, digest: str) -> str:
        seen = self._site.store.observation(host, SLOTS)
        return str(seen.data.get(digest, "")) if seen else ""

    def remember_slot(self, host: str, digest: str, slot: str) -> None:
        seen = self._site.store.observation(host, SLOTS)
        others = {k: v for k, v in (seen.data if seen else {}).items() if v != slot and k != digest}
        self._site.store.observe(host, SLOTS, {**dict(list(others.items())[-7:]), digest: slot})

    def _served(self, run: str) -> dict[str, str]:
        """Rendered from the plan's documents, with secrets as they are now."""
        from metalimmu.plan.types import Plan

        plan = Plan.decode(self._site.store.run(run).plan)
        return texts(self._renderer().render(plan.spec, run).served)
