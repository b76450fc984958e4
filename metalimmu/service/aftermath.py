"""What happened between a backup and the loss of the controller, found by observation.

Two kinds of machines come back to a restored controller: those of deployments that it knows, and those of deployments
which were made after the backup. The latter show a token that only this site's key can have made, so what they say is
believed as far as it goes: their hosts are listed, unproven, with what they run. Their agents are refused and wait; a new
`reimage` is what helps them.

Hosts that were proven are in doubt until they report again; then the BMC is read as well, and they are proven anew.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from metalimmu import log
from metalimmu.errors import MetalimmuError, NotFound, StepFailed
from metalimmu.lifecycle import Proof, State, move
from metalimmu.plan.identity import same_serial
from metalimmu.store.facts import UNSURE
from metalimmu.store.records import FINAL, DeploymentRecord, ErrorText, HostRecord, RunStatus
from metalimmu.wire.messages import CheckIn, SystemReport
from metalimmu.workflows.aftermath import AFTER_BACKUP, WAITS

if TYPE_CHECKING:
    from metalimmu.plan.types import Plan
    from metalimmu.service.site import OpenSite
    from metalimmu.store.facts import Restored
    from metalimmu.workflows.context import Deployments

logger = log.get("aftermath")

LOOK = 5.0  # seconds
AT_ONCE = 16  # BMCs that are read
_AGAIN = 300.0  # seconds until a host is read again that did not prove itself


def unknown(site: OpenSite, deployments: Deployments, deployment: str, said: SystemReport | CheckIn | None) -> str:
    """A machine of a deployment that is not in the store, see boot.ports.Content. Raises StoreError."""
    known = _run(site, deployments, deployment)
    if known is not None:
        return known
    told = f"this controller does not know deployment {deployment}: it was restored from a backup that is older"
    host = _whose(site, said)
    if host is None:
        if said is not None:
            logger.warning("a machine of the unknown deployment %s asks, of no host of this site", deployment)
        return told
    _keep(site, host, deployment, said)
    return f"{told}; `metalimmu reimage {host}` makes a new one"


def _run(site: OpenSite, deployments: Deployments, deployment: str) -> str | None:
    """A run that we do know, though not that it had come so far: its deployment is made again, and then it is heard."""
    from metalimmu.plan.types import Plan

    try:
        run = site.store.run(deployment)
    except NotFound:
        return None
    if run.status in FINAL:
        return f"run {deployment} has {run.status}"
    if run.status is RunStatus.interrupted and run.error is not None and run.error.code == WAITS:
        site.store.set_run(deployment, status=RunStatus.queued, error=None)
        site.store.add_event(run.host, "resumed", f"{run.host} was heard: run {deployment} goes on", run=deployment)
    _create(site, deployments, deployment, Plan.decode(run.plan))
    return "your deployment is being prepared again: ask again"


def _create(site: OpenSite, deployments: Deployments, run: str, plan: Plan) -> None:
    """As the step would, which finds it done."""
    lease = site.store.lease(plan.host)
    if lease is None or lease.run != run:
        return
    record = site.store.host(plan.host)
    site.store.update_host(plan.host, state=move(record.state, State.deploying))
    deployments.create(run, plan, lease.fence)


def _whose(site: OpenSite, said: SystemReport | CheckIn | None) -> str | None:
    """The host with the machine's serial."""
    if said is None:
        return None
    serial = said.serial if isinstance(said, SystemReport) else said.identity.serial
    hosts = site.docs.hosts.values()
    return next((h.name for h in hosts if h.serial and serial and same_serial(h.serial, serial)), None)


def _keep(site: OpenSite, host: str, deployment: str, said: SystemReport | CheckIn | None) -> None:
    """Once per change: such a machine asks every few seconds."""
    image = f"{said.image_id}@{said.image_version}" if isinstance(said, SystemReport) else ""
    what = f"which runs {image}" if image else "whose agent waits in the ramdisk"
    if not site.store.observe(host, AFTER_BACKUP, {"deployment": deployment, "what": what, "image": image}):
        return
    text = f"{host} is of run {deployment}, made after the backup that this controller was restored from; {what}"
    found = _image(site, image, said)
    error = ErrorText(code=UNSURE, message=text, hint=f"`metalimmu reimage {host}` proves it", at=time.time())

    def change(now: HostRecord) -> dict[str, object]:
        fields: dict[str, object] = {"proof": Proof.unproven, "error": error}
        if isinstance(said, CheckIn) and now.state in (State.active, State.enrolled):
            fields["state"] = State.deploying  # it serves nobody: guards must not count it
        if found is not None and now.digest != found[1]:
            fields |= {
                "image": found[0],
                "digest": found[1],
                "previous_image": now.image,
                "previous_digest": now.digest,
            }
        return fields

    site.store.update_host(host, change)
    site.store.add_event(host, "after-backup", text, data={"deployment": deployment, "image": image})
    logger.warning("%s", text)


def _image(site: OpenSite, ref: str, said: SystemReport | CheckIn | None) -> tuple[str, str] | None:
    """The image that it says it runs, where the catalogue has the very same build."""
    if not ref or not isinstance(said, SystemReport):
        return None
    try:
        image = site.catalogue.get(ref)
    except MetalimmuError:
        return None
    return (ref, image.digest) if image.manifest.build_id and image.manifest.build_id == said.build_id else None


class Aftermath:
    """Proves hosts again as they report, in a thread of the worker, as long as any is in doubt."""

    def __init__(self, site: OpenSite, stop: threading.Event) -> None:
        self._site = site
        self._stop = stop
        self._tried: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Does nothing for a store that was never restored."""
        mark = self._site.store.restored()
        if mark is not None:
            self._thread = threading.Thread(target=self._watch, args=(mark,), name="aftermath", daemon=True)
            self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _watch(self, mark: Restored) -> None:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="aftermath") as pool:
            while not self._stop.is_set():
                try:
                    if not self.look(mark, pool):
                        return
                except MetalimmuError as exc:
                    logger.warning("hosts in doubt: %s (%s)", exc.message, exc.hint)
                self._stop.wait(LOOK)

    def look(self, mark: Restored, pool: ThreadPoolExecutor) -> int:
        """Prove those that have reported; returns how many were in doubt."""
        doubted = [h for h in self._site.store.hosts().values() if in_doubt(h)]
        now = time.monotonic()
        ready = [(h, d) for h in doubted if now >= self._tried.get(h.name, 0.0) and (d := self._reported(h, mark))]
        for host, _ in ready:
            self._tried[host.name] = now + _AGAIN
        list(pool.map(lambda pair: self._prove(*pair), ready))
        return len(doubted)

    def _reported(self, host: HostRecord, mark: Restored) -> DeploymentRecord | None:
        """The deployment that its proof rests on, once its system has spoken since the restore."""
        lease = self._site.store.lease(host.name)
        if lease is not None and lease.run is not None:
            return None  # its run says what it is
        try:
            d = self._site.store.deployment(str(host.proof_evidence.get("run", "")))
        except NotFound:
            return None
        good = d.system_ok and not d.system_why and (d.system_at or 0.0) > mark.at and d.digest == host.digest
        return d if good else None

    def _prove(self, host: HostRecord, d: DeploymentRecord) -> None:
        from dataclasses import asdict

        from metalimmu.service.proof import bmc_says

        if self._stop.is_set():
            return
        store = self._site.store
        try:
            evidence = {
                **bmc_says(self._site, self._site.spec(host.name)),
                "system": asdict(d.system) if d.system else None,
            }
        except StepFailed as exc:
            logger.warning("%s reports, and its BMC does not agree: %s", host.name, exc.message)
            return
        except MetalimmuError as exc:
            logger.info("%s reports; its BMC could not be asked: %s", host.name, exc.message)
            return
        again = {**host.proof_evidence, "again": {**evidence, "asked_by": "restore", "at": time.time()}}

        def change(now: HostRecord) -> dict[str, object]:
            if not in_doubt(now) or now.digest != d.digest:
                return {}
            return {"proof": Proof.proven, "proof_evidence": again, "proven_at": time.time(), "error": None}

        if store.update_host(host.name, change).proof is Proof.proven:
            store.add_event(
                host.name, "proven", f"{host.name} reported after the restore and still runs {host.image}", data=again
            )


def in_doubt(host: HostRecord) -> bool:
    return host.proof is Proof.unproven and host.error is not None and host.error.code == UNSURE
