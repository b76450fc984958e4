"""Between a run and the boot service: what a deployment is made of, and what its machine is served."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import msgspec

from metalimmu import structs
from metalimmu.boot import netboot_files, tls
from metalimmu.boot.http import BootService
from metalimmu.boot.media import SplicedIso, slot
from metalimmu.boot.media_api import files_path
from metalimmu.boot.ports import Netboot
from metalimmu.boot.tokens import SiteKey
from metalimmu.desired.answers import family
from metalimmu.desired.types import HostSpec
from metalimmu.desired.units import bytes_per_second, seconds
from metalimmu.errors import ImageRevoked, NotFound
from metalimmu.plan import disk_work
from metalimmu.service import aftermath, presence, salvages
from metalimmu.service.config import Rendered, Renderer, Secrets, has_secrets, made, with_proof
from metalimmu.service.fresh import Fresh
from metalimmu.service.guarding import PUSH, Guards, act
from metalimmu.service.kinds import Boots
from metalimmu.service.methods import loader_url
from metalimmu.service.netboot import NetbootSide
from metalimmu.service.outside import ask_ssh
from metalimmu.service.switches import SwitchSide
from metalimmu.store.records import DeploymentRecord
from metalimmu.wire.messages import Assignment, Boot, CheckIn, ConfigPackage, RootDisk, RunTimeConfig, SystemReport

if TYPE_CHECKING:
    from metalimmu.boot.ports import Deployment, MediaFile, Receiver
    from metalimmu.plan.push import Push
    from metalimmu.plan.types import Plan
    from metalimmu.service.site import OpenSite


class BootSide:
    """Fits the workflow's Protocols (Media, Images, Deployments) and the boot service's (Content)."""

    def __init__(self, site: OpenSite) -> None:
        self._site = site
        self._urls = site.docs.site.urls
        self._tls = tls.ensure(site.state / "tls", self._urls.machines)
        self._key = SiteKey.at(site.state / "tls" / "site.key")
        self._guards = Guards(site, refresh=Fresh(site))
        limits = site.docs.site.boot
        self.switches = SwitchSide(site, self._key, lambda: self._service, self.renderer)
        self._service = BootService(
            self._urls,
            site.docs.site.listen,
            tls=self._tls,
            key=self._key,
            deployments=site.store,
            images=site.catalogue,
            content=self,
            again=seconds(site.docs.site.limits.report_again),
            per_rack=bytes_per_second(limits.per_rack) if limits.per_rack else None,
            agents=limits.agents,
            netboot=site.docs.site.netboot,
            switches=self.switches,
        )

    def start(self) -> None:
        """Raises MetalimmuError: a port is taken, a certificate cannot be read."""
        self._service.start()

    def stop(self) -> None:
        self._service.stop()

    def files_path(self, deployment: str) -> str:
        return files_path(self._key.secret("media", deployment))

    def netboot_side(self) -> NetbootSide | None:
        """Our DHCP and TFTP; None: the site wants none. Raises UsageError where machines cannot reach us in the clear."""
        if self._site.docs.site.netboot.mode == "off":
            return None
        return NetbootSide(self._site, self._service.boot_url(""), self._service.switch_url, self)

    # workflows.context.Media

    def media_url(self, deployment: str) -> str:
        return self._service.media_url(deployment)

    def loader_url(self) -> str:
        return loader_url(self._site.docs.site)

    def dhcp(self) -> str:
        return self._site.docs.site.netboot.mode

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

    def rehearse(self, run: str, plan: Plan) -> None:
        self.renderer().render(plan.spec, run)

    def create(self, run: str, plan: Plan, fence: int) -> None:
        """Record what the machine must become. Doing it twice is the same as once."""
        record = self._site.store.host(plan.host)
        spec = plan.spec
        config = self.renderer().render(spec, run)
        assignment = Assignment(
            deployment=run,
            fence=fence,
            stage="write" if plan.image.kind == "disk" else "done",  # no agent ever writes for the others
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
            **disk_work.work(plan),  # type: ignore[arg-type]
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
                answers_hash=hashes["answers_hash"],
                kind=plan.image.kind,
                method=plan.method,
                assignment=assignment,
                fence=fence,
                config=config.kept,
                config_digest=config.digest,
                config_key=self._key.id,
                config_at=plan.created,
                proof_by=spec.proof.by,
                stage=assignment.stage,
                created=time.time(),  # a saved plan may be of yesterday
            )
        )

    def _known(self, digest: str | None) -> bool:
        """An image that our agent may find on the disk."""
        found = self._site.catalogue.by_digest(digest) if digest else None
        return found is not None and found.manifest.kind == "disk"

    # boot.ports.Content

    def media(self, deployment: Deployment) -> MediaFile:
        plan = self._plan(deployment.id)
        if plan.image.kind != "disk":
            return self._boots(plan, deployment).media()
        ramdisk = self._site.ramdisk(plan.spec.ramdisk)
        return SplicedIso(ramdisk.iso, ramdisk.slot_offset, slot(self._boot(plan, deployment), ramdisk.slot_size))

    def _boot(self, plan: Plan, deployment: Deployment) -> Boot:
        return Boot(
            url=self._urls.machines.rstrip("/"),
            token=self._key.token("agent", deployment.id),
            pin=self._tls.pin,
            deployment=deployment.id,
            network=boot_network(plan.spec),
        )

    def netboot(self, deployment: Deployment) -> Netboot:
        plan = self._plan(deployment.id)
        if plan.image.kind != "disk":
            return self._boots(plan, deployment).netboot(self._service.files_url(deployment.id))
        return Netboot(netboot_files.VMLINUZ, netboot_files.INITRDS, netboot_files.ARGUMENTS)

    def netboot_file(self, deployment: Deployment, name: str) -> MediaFile:
        plan = self._plan(deployment.id)
        if plan.image.kind != "disk":
            return self._boots(plan, deployment).netboot_file(name)
        if name not in netboot_files.NAMES:
            raise NotFound(f"the ramdisk has no {name}")
        ramdisk = self._site.ramdisk(plan.spec.ramdisk)
        filled = slot(self._boot(plan, deployment), ramdisk.slot_size)
        return netboot_files.netboot_file(name, ramdisk.iso, ramdisk.parts, filled)

    def _boots(self, plan: Plan, deployment: Deployment) -> Boots:
        seed = {}
        if plan.image.kind == "live":
            seed = {f.path: f.content for f in self.config(deployment).files}
        return Boots(self._site.catalogue, plan, self.renderer().answers(deployment.id), seed)

    def answer(self, deployment: Deployment, name: str) -> tuple[str, bool]:
        plan = self._plan(deployment.id)
        served = self._served(self._site.store.deployment(deployment.id))
        text = next((f.content for f in served.files if f.path == name), None)
        if text is None or plan.image.kind == "disk":
            raise NotFound(f"{plan.host} has no file {name}")
        return text, name == family(plan.image.answers).main

    def config(self, deployment: Deployment) -> RunTimeConfig:
        record = self._site.store.deployment(deployment.id)
        config = self._served(record)
        return self.with_proof(config, deployment.id) if record.proof_by == "report" else config

    def _served(self, record: DeploymentRecord) -> RunTimeConfig:
        """A secret that was changed since the deployment was made is served as it is now, and that is what is expected."""
        config = record.config or made({})
        if not has_secrets(config):
            return self.renderer().filled(config, record.id)
        rendered = self.renderer().render(self._plan(record.id).spec, record.id)
        if rendered.digest != record.config_digest:
            self._site.store.update_deployment(record.id, config=rendered.kept, config_digest=rendered.digest)
        return rendered.served

    def renderer(self) -> Renderer:
        """Reads secrets anew."""
        return Renderer(self._key, Secrets(self._site.folder), self._urls)

    def with_proof(self, config: RunTimeConfig, deployment: str) -> RunTimeConfig:
        """With what the new system's units need to reach us."""
        proof = {
            "url": self._urls.machines.rstrip("/"),
            "token": self._key.token("proof", deployment),
            "pin": self._tls.pin,
            "certificate": self._tls.pem,
        }
        return with_proof(config, proof)

    def package(self, deployment: Deployment) -> ConfigPackage:
        record = self._site.store.deployment(deployment.id)
        push = record.push
        if push is None:
            raise NotFound(f"no config waits for {record.host}", hint=f"`metalimmu config push {record.host}`")
        spec = structs.convert(push.spec, HostSpec)
        rendered = self.renderer().render(spec, record.id)
        if rendered.digest != push.digest:  # a secret has changed since it was pushed
            self._site.store.update_deployment(record.id, lambda now: _rendered_anew(now.push, push.serial, rendered))
        files = self.with_proof(rendered.served, record.id).files
        return ConfigPackage(push.serial, rendered.digest, files, spec.apply, spec.limits["apply"], rendered.secrets)

    def withheld(self, deployment: Deployment) -> str:
        host, push = deployment.host, deployment.push
        lease = self._site.store.lease(host)
        if lease is not None and lease.run is not None:
            return f"{lease.run} of {lease.holder} works on {host}"
        if self._site.store.host(host).proof_evidence.get("run") != deployment.id:
            return f"{host} has been deployed again since"
        found = self._guards.refusals(act(PUSH, host, push.options if push else {}, costs=False))
        return "; ".join(r.text for r in found)

    def booted(self, deployment: Deployment) -> None:
        """Guards count on it again, see hosts.power."""
        if self._site.store.host(deployment.host).proof_evidence.get("run") == deployment.id:
            self._site.store.update_host(deployment.host, settles=None)

    def settled(self, deployment: Deployment) -> None:
        push, host = deployment.push, deployment.host
        if push is None or push.open:
            return
        why = f": {push.why}" if push.why else ""
        text = f"config {push.digest[:12]} {push.state}{why}"
        data = {"digest": push.digest, "serial": push.serial, "state": push.state}
        key = f"{deployment.id}/config/{push.serial}/{push.state}"
        self._site.store.add_event(host, "config", text, run=deployment.id, data=data, key=key)

    def salvage(self, deployment: Deployment, name: str) -> salvages.Incoming:
        return salvages.Incoming(self._site, deployment, name)

    def rack(self, deployment: Receiver) -> str:
        host = self._site.docs.hosts.get(deployment.host)
        return (host.location.rack if host and host.location else None) or ""

    def controller(self) -> dict[str, Any]:
        return presence.who(self._site)

    def unknown(self, deployment: str, said: SystemReport | CheckIn | None) -> str:
        return aftermath.unknown(self._site, self, deployment, said)

    def _plan(self, run: str) -> Plan:
        from metalimmu.plan.types import Plan

        return Plan.decode(self._site.store.run(run).plan)


def _rendered_anew(push: Push | None, serial: int, rendered: Rendered) -> dict[str, Any]:
    if push is None or push.serial != serial:
        return {}
    return {"push": msgspec.structs.replace(push, digest=rendered.digest, config=rendered.kept)}


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
