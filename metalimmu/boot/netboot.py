"""Who boots what from the network: offers and their scripts, kept ready in memory, since a whole rack may ask at once.

Answering reads no file and no store. The offers are looked at every second, in a thread, and a script is rendered when
its offer appears, which is before its machine is started.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from metalimmu import log
from metalimmu.boot import scripts, select
from metalimmu.boot.desk import Desk
from metalimmu.boot.ports import Asked, Deployment, Offered, Sighting
from metalimmu.boot.scripts import Job, Loader
from metalimmu.errors import BootLoop, MetalimmuError
from metalimmu.wire.messages import Failure

FRESH = 2.5  # seconds that the offers are believed; a machine takes longer to come up, or to restart
RECENT = 0.2  # seconds between two looks for machines that are not known
MAX_BOOTS = 5
_SIGHTINGS = 2000  # machines between two writes; more are somebody's game
_CONFLICTS = 60.0  # seconds between two warnings about the same machine

logger = log.get("boot")


@dataclass(frozen=True)
class Question:
    """What a boot loader says of its machine; empty: it does not say."""

    loader: Loader
    mac: str = ""
    uuid: str = ""
    serial: str = ""
    vendor: str = ""
    product: str = ""
    platform: str = ""
    architecture: str = ""
    address: str = ""


@dataclass
class _Ready:
    offer: select.Offer
    key: tuple[int, float]  # fence, offered: another one is another boot
    asked: int
    texts: dict[Loader, bytes]
    keys: set[str]
    trouble: str = ""


class Netboot:
    """Lives in the boot service's loop."""

    def __init__(self, desk: Desk, url: str, *, max_boots: int = MAX_BOOTS) -> None:
        """`url`: where machines reach us in the clear."""
        self._desk = desk
        self.url = url.rstrip("/")
        self._most = max_boots
        self._ready: dict[str, _Ready] = {}
        self._index: dict[str, list[_Ready]] = {}
        self._at = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        self._sightings: dict[str, Sighting] = {}
        self._asked: list[Asked] = []
        self._warned: dict[str, float] = {}
        self.start: dict[Loader, bytes] = {"ipxe": b"", "grub": b""}
        self._disk: dict[Loader, bytes] = {"ipxe": b"", "grub": b""}
        for loader in self.start:
            self.start[loader] = scripts.start(loader, self.url).encode()
            self._disk[loader] = scripts.disk(loader).encode()

    async def answer(self, question: Question) -> bytes:
        """The script or config. Raises MetalimmuError when what is offered cannot be read: the loader asks again."""
        found = self.quick(question)
        if found is None:
            await self.look()
            found = self._answer(question)
        return found

    def quick(self, question: Question) -> bytes | None:
        """The same at once; None: the offers must be looked at first."""
        age = time.monotonic() - self._at
        if age > FRESH:
            return None
        if age > RECENT:  # one whom we do not know may have been offered a boot since
            machine = select.asker(question.mac, question.uuid, question.serial)
            if not self._candidates(machine):
                return None
        return self._answer(question)

    async def look(self) -> None:
        """See what is offered now. Raises MetalimmuError."""
        await asyncio.shield(self._looking or self._begin_look())

    async def flush(self) -> None:
        """Write who was seen and who asked."""
        asked, self._asked = self._asked, []
        if asked:
            try:
                await self._desk.call(self._desk.deployments.asked, asked)
            except MetalimmuError as exc:
                self._asked = [*asked, *self._asked][-_SIGHTINGS:]
                logger.warning("that %d machines asked for their boot is not written yet: %s", len(asked), exc)
            for each in {a.deployment for a in asked}:
                self._desk.changes.notify(each)
        sightings, self._sightings = self._sightings, {}
        if sightings:
            try:
                await self._desk.call(self._desk.deployments.sighted, list(sightings.values()))
            except MetalimmuError as exc:
                logger.warning("%d machines that asked for a boot are not recorded: %s", len(sightings), exc)

    async def settle(self) -> None:
        """Nothing is left under way."""
        await asyncio.gather(*([self._looking] if self._looking else []), *self._stopping, return_exceptions=True)

    def _begin_look(self) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._look())
        self._looking = task
        task.add_done_callback(self._looked)
        return task

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.warning("the offers cannot be read: %s", exc)

    async def _look(self) -> None:
        at = time.monotonic()
        before = self._ready
        self._ready = await self._desk.call(self._read, before)
        if [id(r) for r in self._ready.values()] != [id(r) for r in before.values()]:
            self._index = {}
            for each in self._ready.values():
                for key in each.keys:
                    self._index.setdefault(key, []).append(each)
        self._at = at

    def _read(self, before: Mapping[str, _Ready]) -> dict[str, _Ready]:
        """In a thread."""
        found: dict[str, _Ready] = {}
        for offered in self._desk.deployments.offers():
            old = before.get(offered.deployment)
            if old is not None and old.key == (offered.fence, offered.offered) and not old.trouble:
                old.asked = max(old.asked, offered.asked)  # ours may not be written yet
                found[offered.deployment] = old
            else:
                found[offered.deployment] = self._rendered(offered)
        return found

    def _rendered(self, offered: Offered) -> _Ready:
        nics = tuple(n.lower() for n in offered.nics)
        offer = select.Offer(offered.deployment, offered.host, nics, offered.uuid, offered.serial, offered.fence)
        ready = _Ready(offer, (offered.fence, offered.offered), offered.asked, {}, select.offer_keys(offer))
        try:
            netboot = self._desk.content.netboot(self._desk.deployments.deployment(offered.deployment))
            path = self._desk.file_path(offered.deployment)
            job = Job(offered.host, offered.image, offered.deployment, path, netboot)
            for loader in self.start:
                ready.texts[loader] = scripts.boot(loader, self.url, job).encode()
        except MetalimmuError as exc:
            ready.trouble = f"{exc} ({exc.hint})"
            logger.warning("%s cannot boot from the network: %s", offered.host, ready.trouble)
        return ready

    def _answer(self, question: Question) -> bytes:
        machine = select.asker(question.mac, question.uuid, question.serial)
        choice = select.choose(machine, self._candidates(machine))
        if choice.offer is None:
            self._nobody(machine, question, choice)
            return self._disk[question.loader]
        ready = self._ready[choice.offer.deployment]
        text = ready.texts.get(question.loader)
        if text is None:
            self._asked_for(ready, f"asked for a boot and got none: {log.redact(ready.trouble)}")
            return self._disk[question.loader]
        ready.asked += 1
        if ready.asked > self._most:
            self._stop(ready)
            return self._disk[question.loader]
        by = f"{question.loader} {_word(question.platform)} {question.address}"
        self._asked_for(ready, f"boot script given ({ready.asked} of at most {self._most}): {choice.why}, {by}")
        return text

    def _asked_for(self, ready: _Ready, line: str) -> None:
        offer = ready.offer
        self._asked.append(Asked(offer.deployment, offer.host, self._desk.now(), line))

    def _candidates(self, machine: select.Asker) -> list[select.Offer]:
        """All that agree in anything; the others do not count."""
        return list(
            {r.offer.deployment: r.offer for key in select.keys(machine) for r in self._index.get(key, ())}.values()
        )

    def _nobody(self, machine: select.Asker, question: Question, choice: select.Choice) -> None:
        now = self._desk.now()
        if choice.conflict and now - self._warned.get(machine.mac, 0.0) > _CONFLICTS:
            if len(self._warned) > _SIGHTINGS:
                self._warned.clear()
            self._warned[machine.mac] = now
            logger.warning("%s %s asked for a boot and gets none: %s", machine.mac, machine.serial, choice.why)
        key = machine.mac or machine.serial or machine.uuid
        if not key:
            return
        seen = self._sightings.get(key)
        if seen is not None:
            self._sightings[key] = replace(seen, times=seen.times + 1, last_seen=now, why=choice.why)
        elif len(self._sightings) < _SIGHTINGS:
            firmware = {"efi": "uefi", "pcbios": "bios"}.get(
                question.platform, "uefi" if question.loader == "grub" else ""
            )
            self._sightings[key] = Sighting(
                mac=machine.mac or key,
                uuid=machine.uuid,
                serial=_word(machine.serial),
                vendor=_word(question.vendor),
                product=_word(question.product),
                firmware=firmware,
                architecture=_word(question.architecture),
                via=question.loader,
                address=question.address,
                why=choice.why,
                last_seen=now,
            )

    def _stop(self, ready: _Ready) -> None:
        """It boots the network again and again: its run fails, and puts it in quarantine."""
        failure = looped(ready.offer.host, ready.asked, self._most)
        self._ready.pop(ready.offer.deployment, None)
        for key in ready.keys:
            self._index[key] = [r for r in self._index.get(key, ()) if r is not ready]
        logger.warning("%s", failure.message)
        task = asyncio.get_running_loop().create_task(self._fail(ready.offer.deployment, failure))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _fail(self, deployment: str, failure: Failure) -> None:
        desk = self._desk
        try:
            await desk.call(
                desk.deployments.update_deployment,
                deployment,
                lambda now: stopped(now, failure),
            )
        except MetalimmuError as exc:
            logger.warning("a machine that boots in a loop cannot be stopped yet: %s (%s)", exc, exc.hint)
            return
        desk.changes.notify(deployment)


def looped(host: str, asked: int, most: int) -> Failure:
    """Of a machine that asked what to boot more often than it may in one deployment."""
    said = BootLoop(
        f"{host} boots the network in a loop: it asked for its boot script more than {most} times in one deployment"
    )
    return Failure(said.code, said.message, said.hint, evidence={"asked": str(asked), "limit": str(most)})


def stopped(now: Deployment, failure: Failure) -> dict[str, Any]:
    """What changes in its record: the run fails by it, and puts the host in quarantine."""
    return {} if now.failure or now.ended else {"failure": failure, "stop": failure.message}


def _word(text: str) -> str:
    """Said by a stranger, shown on a terminal."""
    return "".join(c for c in text if c.isprintable())[:100]
