"""Between a run and the boot service: what a deployment is made of, and what its machine is served."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from metalimmu.boot import tls
from metalimmu.boot.http import BootService
from metalimmu.boot.media import SplicedIso, slot
from metalimmu.boot.tokens import SiteKey
from metalimmu.desired.render import render
from metalimmu.desired.units import seconds
from metalimmu.errors import ImageRevoked
from metalimmu.service import aftermath
from metalimmu.service.config import controller, filled, made, with_proof
from metalimmu.service.outside import ask_ssh
from metalimmu.store.records import DeploymentRecord
from metalimmu.wire.messages import Assignment, Boot, CheckIn, RootDisk, RunTimeConfig, SystemReport

if TYPE_CHECKING:
    from metalimmu.boot.ports import Deployment
    from metalimmu.desired.types import HostSpec
    from metalimmu.plan.types import Plan
    from metalimmu.service.site import OpenSite


class BootSide:
    """Fits the workflow's Protocols (Media, Images, Deployments) and the boot service's (Content)."""

    def __init__(self, site: OpenSite) -> None:
        self._site = site
        self._urls = site.docs.site.urls
        self._tls = tls.ensure(site.state / "tls", self._urls.machines)
        self._key = SiteKey.at(site.state / "tls" / "site.key")
        self._service = BootService(
            self._urls,
            site.docs.site.listen,
            tls=self._tls,
            key=self._key,
            deployments=site.store,
            images=site.catalogue,
            content=self,
            again=seconds(site.docs.site.limits.report_again),
        )

    def start(self) -> None:
        """Raises MetalimmuError: a port is taken, a certificate cannot be read."""
        self._service.start()

    def stop(self) -> None:
        self._service.stop()

    # workflows.context.Media

    def media_url(self, deployment: str) -> str:
        return self._service.media_url(deployment)

    def is_media_of(self, deployment: str, image: str) -> bool:
        return self._service.is_media_of(deployment, image)

    def wait(self, deployment: str, seconds: float) -> None:
        self._service.wait(deployment, seconds)

    # workflows.context.Images

    def missing(self, digest: str) -> list[str]:
        """Chunks of the image that are not in the store. Each is hashed by the agent: here it is enough that they are there.

        Raises ImageRevoked: somebody may have revoked it since the plan was made.
        """
        image = self._site.catalogue.by_digest(digest)
        if image is None:
            return [digest]
        if image.revoked:
            raise ImageRevoked(f"{image.ref} is revoked: {image.revoked}")
        return [c for c in sorted(image.manifest.distinct()) if not self._site.catalogue.chunk_path(c).is_file()]

    # workflows.context.Outside

    def ask(self, spec: HostSpec) -> dict[str, str] | None:
        return ask_ssh(spec, self._site.folder)

    # workflows.context.Deployments

    def create(self, run: str, plan: Plan, fence: int) -> None:
        """Record what the machine must become. Doing it twice is the same as once."""
        record = self._site.store.host(plan.host)
        spec = plan.spec
        config = made(render(spec, controller=controller(self._urls.machines, run)))
        assignment = Assignment(
            deployment=run,
            fence=fence,
            stage="write",
            image=plan.image.ref,
            digest=plan.image.digest,
            chunk_base="",
            serial=spec.serial or plan.identity.serial,
            uuid=plan.identity.uuid,
            nics=spec.nics,
            root_disk=RootDisk(**spec.root_disk),  # type: ignore[arg-type]
            previous_digest=record.digest if self._known(record.digest) else None,
            wipe_signatures=spec.wipe_signatures,
            host=plan.host,
            efi_label=f"metalimmu {plan.image.ref}",
            own_efi_entries=record.efi_entries,
        )
        hashes = self._key.hashes(run)
        self._site.store.add_deployment(
            DeploymentRecord(
                id=run,
                run=run,
                host=plan.host,
                token_hash=hashes["token_hash"],
                proof_hash=hashes["proof_hash"],
                media_hash=hashes["media_hash"],
                chunk_hash=hashes["chunk_hash"],
                assignment=assignment,
                fence=fence,
                config=config,
                config_digest=self._filled(run, config).digest,
                proof_by=spec.proof.by,
                created=plan.created,
            )
        )

    def _known(self, digest: str | None) -> bool:
        return bool(digest) and self._site.catalogue.by_digest(str(digest)) is not None

    # boot.ports.Content

    def media(self, deployment: Deployment) -> SplicedIso:
        plan = self._plan(deployment.id)
        ramdisk = self._site.ramdisk(plan.spec.ramdisk)
        boot = Boot(
            url=self._urls.machines.rstrip("/"),
            token=self._key.token("agent", deployment.id),
            pin=self._tls.pin,
            deployment=deployment.id,
            network=boot_network(plan.spec),
        )
        return SplicedIso(ramdisk.iso, ramdisk.slot_offset, slot(boot, ramdisk.slot_size))

    def config(self, deployment: Deployment) -> RunTimeConfig:
        record = self._site.store.deployment(deployment.id)
        config = self._filled(deployment.id, record.config or made({}))
        proof = {
            "url": self._urls.machines.rstrip("/"),
            "token": self._key.token("proof", deployment.id),
            "pin": self._tls.pin,
            "certificate": self._tls.pem,
        }
        return with_proof(config, proof) if record.proof_by == "report" else config

    def unknown(self, deployment: str, said: SystemReport | CheckIn | None) -> str:
        return aftermath.unknown(self._site, self, deployment, said)

    def _plan(self, run: str) -> Plan:
        from metalimmu.plan.types import Plan

        return Plan.decode(self._site.store.run(run).plan)

    def _filled(self, deployment: str, config: RunTimeConfig) -> RunTimeConfig:
        """cloud-init knows no pinned certificate: it phones home in the clear, by an address that nobody else knows."""
        base = (self._urls.chunks or self._urls.bmc).rstrip("/")
        return filled(config, phone_home=f"{base}/p/{self._key.secret('proof', deployment)}")


def boot_network(spec: HostSpec) -> dict[str, str]:
    """How the ramdisk reaches us: the host's own static address, or nothing for DHCP. A bond is used by its first NIC:
    LACP with fallback, or the switch port in its individual state, is what carries a ramdisk.
    """
    net = spec.network
    if not net.address:
        return {}
    macs = net.nics or list(spec.nics)
    found = {
        "address": net.address,
        "gateway": net.gateway
        or next((r.via for r in net.routes if re.fullmatch(r"default|0\.0\.0\.0/0|::/0", r.to)), ""),
        "dns": " ".join(net.dns),
        "mac": macs[0] if macs else "",
        "vlan": str(net.vlan or ""),
        "mtu": str(net.mtu or ""),
    }
    return {k: v for k, v in found.items() if v}
