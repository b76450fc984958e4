"""One deployment on one disk: from an assignment to a report. Nothing is written before all checks have passed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from metalimmu.agent import commit, disks, efi, foreign, guard, identify, layout, prepare, seed
from metalimmu.agent.block import Device
from metalimmu.agent.burnin import BurnInTest
from metalimmu.agent.client import Controller
from metalimmu.agent.fetch import Breaks, Source
from metalimmu.agent.image import ImageReader
from metalimmu.agent.link import Link, Lost, Stopped, patiently
from metalimmu.agent.machine import Machine
from metalimmu.agent.mirror import Mirror, array_name
from metalimmu.agent.readback import read_back
from metalimmu.agent.salvage import Mount, mounted
from metalimmu.agent.select import KEPT, Roles, select
from metalimmu.agent.sysfs import text
from metalimmu.agent.write import Writer
from metalimmu.errors import AgentError, DiskUnsuitable
from metalimmu.wire.codec import WireError
from metalimmu.wire.manifest import Manifest, read_back_digest
from metalimmu.wire.messages import Assignment, Boot, Disk, Report


@dataclass
class Deployment:
    """What is kept of a write that broke off, for when the same image is asked for again."""

    boot: Boot
    machine: Machine
    controller: Controller
    breaks: Breaks
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    disks: tuple[Disk, ...] = ()
    link: Link = field(init=False)
    begun: Path | None = None  # holds the stage and image that were begun in this boot; outlives the process
    writer: Writer | None = None
    finished: tuple[str, Report] | None = None  # digest and what was reported
    burned_in: dict[str, float] = field(default_factory=dict)
    salvaged: list[str] = field(default_factory=list)
    mount: Mount = mounted  # of the old system's file systems; tests hand in another

    def __post_init__(self) -> None:
        stage, _, digest = (text(self.begun) if self.begun else "").partition(" ")
        self._begun = stage, digest

    def run(self, assignment: Assignment, link: Link) -> Report:
        """Raises AgentError of many kinds; Lost and Stopped end it without a fault."""
        self.link = link
        if self.finished and self.finished[0] == assignment.digest:
            return self.finished[1]
        self.link.phase("identify")
        evidence = identify.confirm(identify.identity(self.machine.root), assignment)
        self.link.log(f"this is {assignment.host or 'the machine'}: {', '.join(evidence)}")
        manifest = self._manifest(assignment.digest)
        self._fits_machine(manifest, assignment)
        roles = self._choose(assignment, manifest)
        files = seed.files(patiently(self.controller.config, self.link))
        if not self._stage(assignment):
            self._before(roles, manifest, assignment)
        with prepare.opened(roles) as (device, members):
            try:
                report = self._on_disk(device, members, roles, manifest, files, assignment)
            except (Lost, Stopped):
                raise  # it may go on where it was
            except BaseException:
                self.writer = None  # nothing that was done before is believed: a second try looks at the disk again
                raise
        self.finished = (assignment.digest, report)
        return report

    def _stage(self, assignment: Assignment) -> str:
        """How far an earlier try came with the disks: empty, nothing was done to them; `erase`, there is nothing left to
        save; `write`, nor to erase.
        """
        if "write" in (assignment.begun, self._begun_stage(assignment)):
            return "write"
        return assignment.begun or self._begun_stage(assignment)

    def _begun_stage(self, assignment: Assignment) -> str:
        return self._begun[0] if self._begun[1] == assignment.digest else ""

    def _before(self, roles: Roles, manifest: Manifest, assignment: Assignment) -> None:
        """Nothing is written here. What was done already is not done again when this agent was interrupted."""
        if assignment.burn_in and not self.burned_in:
            with self._timed("burn-in"):
                test = BurnInTest(self.machine.root, assignment.burn_in, self.link)
                self.burned_in = test.run(roles.root, manifest, lambda halt: self._source(assignment, halt))
        if assignment.salvage and not self.salvaged:
            with self._timed("salvage"):
                self.salvaged = prepare.save_files(
                    assignment.salvage, roles.root, self.controller, self.link, self.mount
                )

    def _on_disk(
        self,
        device: Device,
        members: dict[str, Device],
        roles: Roles,
        manifest: Manifest,
        files: dict[str, bytes],
        assignment: Assignment,
    ) -> Report:
        stage, erased = self._stage(assignment), list[str]()
        if stage != "write":
            prepare.check_erasable(roles, members)
        previous = self._previous(manifest, assignment)
        writer = self._writer(device, manifest, assignment)
        source = self._source(assignment, self.link.stop)
        try:
            image = ImageReader(writer, source, device, self.link, previous)
            head = image.chunk(0)
            places = layout.plan(head, manifest, device.size, need_seed=bool(files))
            content = seed.fat(files, places.seed.length, device.sector) if places.seed else b""
            self._clear_foreign(members, roles, image, assignment)
            # The first write to the disk is here.
            if roles.erase and stage != "write":
                self._begin("erase", manifest.digest)
                with self._timed("erase"):
                    erased += prepare.erase_disks(roles, "before", members, self.link)
            self._begin("write", manifest.digest)
            self.link.phase("zero")
            if isinstance(device, Mirror):
                device.forget()
            writer.take_boot_away()
            with self._timed("zero"):
                writer.zero()
            self.link.log(f"writing {assignment.image} to {' and '.join(map(disks.describe_line, roles.written))}")
            with self._timed("write"):
                writer.write(previous, assignment.parallel)
            self.link.log(self._told(writer))
            with self._timed("read-back"):
                seen = read_back(device, manifest, self.link, source)
            self.writer = None  # from here on the disk is no longer the image alone
            if isinstance(device, Mirror):
                device.bind(assignment.deployment, array_name(assignment.host), time.time())
            with self._timed("config"):
                seen[0] = commit.commit(device, manifest, places, head=head, content=content, link=self.link)
        finally:
            source.close()
        if roles.erase:
            with self._timed("erase-after"):
                erased += prepare.erase_disks(roles, "after", members, self.link)
        entries = self._boot_entries(places.esp, manifest, assignment)
        if not device.direct:
            self.notes.append(f"{device.path} has no O_DIRECT: read back after dropping its pages from the cache")
        resumed = self.breaks.count + bool(writer.interrupted and writer.counts.kept_chunks)
        return Report(
            disk=roles.root,
            digest=manifest.digest,
            read_back=read_back_digest(seen),
            boot_id=identify.boot_id(self.machine.root),
            chunks=len(manifest.chunks),
            fetched_chunks=writer.counts.fetched_chunks,
            fetched_bytes=writer.counts.fetched_bytes,
            kept_chunks=writer.counts.kept_chunks,
            zero_bytes=writer.counts.zero_bytes,
            seconds={k: round(v, 3) for k, v in self.seconds.items()},
            config_digest=seed.digest(files),
            efi_entries=tuple(entries),
            resumed=resumed,
            notes=tuple(dict.fromkeys(self.notes)),
            changed=places.changed(),
            mirror=roles.mirror,
            kept=tuple(d.path for d in roles.kept),
            erased=tuple(erased),
            salvaged=tuple(self.salvaged),
            burn_in=self.burned_in,
        )

    def _manifest(self, digest: str) -> Manifest:
        data = patiently(lambda: self.controller.manifest(digest), self.link)
        try:
            return Manifest.decode(data)
        except WireError as exc:
            raise AgentError(f"the image's manifest cannot be used: {exc}", hint="add the image again") from exc

    def _previous(self, manifest: Manifest, assignment: Assignment) -> Manifest | None:
        """What the disk is thought to hold. A guess that is wrong costs time, never content."""
        if self._stage(assignment) == "write" or manifest.digest == assignment.previous_digest:
            return manifest
        if not assignment.previous_digest:
            return None
        try:
            return self._manifest(assignment.previous_digest)
        except (Stopped, Lost):
            raise
        except AgentError as exc:
            self.link.log(f"no delta: the previous image's manifest is not to be had: {exc.message}")
            return None

    def _begin(self, stage: str, digest: str) -> None:
        self._begun = stage, digest
        if self.begun:
            self.begun.write_text(f"{stage} {digest}", encoding="ascii")

    def _writer(self, device: Device, manifest: Manifest, assignment: Assignment) -> Writer:
        def source(halt: threading.Event) -> Source:
            return self._source(assignment, halt)

        old = self.writer
        if old and old.device.path == device.path and old.manifest == manifest:
            old.device, old.source, old.link = device, source, self.link
            return old
        self.writer = Writer(device, manifest, self.link, source)
        return self.writer

    def _source(self, assignment: Assignment, halt: threading.Event) -> Source:
        return Source(assignment.chunk_base, self.boot.token, self.boot.pin, halt, self.breaks)

    def _fits_machine(self, manifest: Manifest, assignment: Assignment) -> None:
        hint = "give the host's role an image that is made for this machine"
        if manifest.architecture != self.machine.architecture:
            raise AgentError(
                f"{assignment.image} is for {manifest.architecture}, the machine is {self.machine.architecture}",
                hint=hint,
            )
        if manifest.firmware and self.machine.firmware not in manifest.firmware:
            raise AgentError(
                f"{assignment.image} boots with {' or '.join(manifest.firmware)}, the machine booted with "
                f"{self.machine.firmware}",
                hint=hint,
            )
        if manifest.kind != "disk":
            raise AgentError(
                f"{assignment.image} is of kind {manifest.kind}, which is not written to a disk", hint=hint
            )

    def _choose(self, assignment: Assignment, manifest: Manifest) -> Roles:
        """From here on disks that are to be kept cannot be written by anything on this machine."""
        hints = [assignment.root_disk, *assignment.keep, *((assignment.mirror,) if assignment.mirror else ())]
        hints += [rule.disk for rule in assignment.erase if rule.disk]
        looks = max(map(disks.patience, hints))
        self.disks = disks.settled(self.machine.root, self.disks, looks=looks, every=self.machine.disks_every)
        roles = select(self.disks, assignment)
        guard.keep((d.path for d in roles.kept), self.machine.root)
        self.disks = roles.all
        if roles.kept:
            self.link.log(f"kept, not to be written: {', '.join(disks.describe_line(d) for d in roles.kept)}")
        if roles.root.logical_sector != manifest.sector_size:
            raise DiskUnsuitable(
                f"{roles.root.path} has logical sectors of {roles.root.logical_sector} bytes, the image of "
                f"{manifest.sector_size}"
            )
        return roles

    def _clear_foreign(
        self, members: dict[str, Device], roles: Roles, image: ImageReader, assignment: Assignment
    ) -> None:
        written = {d.path for d in roles.written}
        second = any(d.signatures for d in roles.all if d.path not in written and d.unusable in ("", KEPT))
        found = foreign.find(roles, image.identifiers() if second else (), array_name(assignment.host))
        foreign.refuse(found, wipe=assignment.wipe_signatures)
        if found:
            self.link.phase("zero")  # no longer only looking
        for line in foreign.wipe(found, members):
            self.link.log(line)
            self.notes.append(line)

    def _boot_entries(self, esp: efi.Esp | None, manifest: Manifest, assignment: Assignment) -> list[str]:
        if self.machine.firmware != "uefi":
            return []
        if esp is None:
            self.notes.append("the image has no EFI system partition: no UEFI boot entry was made")
            return []
        path = efi.hard_drive_path(esp, manifest.efi_loader)
        label = assignment.efi_label or f"metalimmu {assignment.image}"
        variables = efi.Variables(self.machine.efivars)
        entries, problems = efi.put_first(variables, label, path, assignment.own_efi_entries)
        for line in problems:
            self.link.log(line)
        self.notes += problems
        return entries

    def _told(self, writer: Writer) -> str:
        c, took = writer.counts, self.seconds.get("write", 0.0)
        return (
            f"written: {c.fetched_chunks} chunks fetched ({c.fetched_bytes / 1e6:.1f} MB over the network), "
            f"{c.kept_chunks} kept, {c.zero_bytes / 1e6:.1f} MB zeros, {took:.1f} s"
        )

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - began
