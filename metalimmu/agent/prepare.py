"""What comes before the image, and after: burn-in, salvage, erase."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path

from metalimmu.agent import salvage
from metalimmu.agent.block import Device
from metalimmu.agent.client import Controller, Refused
from metalimmu.agent.disks import reader, signatures
from metalimmu.agent.erase import erase, ways
from metalimmu.agent.fetch import Source
from metalimmu.agent.link import Link, Lost, Stopped, patiently
from metalimmu.agent.mirror import Mirror
from metalimmu.agent.select import Roles
from metalimmu.errors import AgentError, SalvageFailed
from metalimmu.wire.messages import Disk, Salvage

MakeSource = Callable[[threading.Event], Source]


@contextmanager
def opened(roles: Roles) -> Iterator[tuple[Device, dict[str, Device]]]:
    """The root, which may be two disks, and by path the disks that it is made of."""
    with ExitStack() as stack:
        members = {d.path: stack.enter_context(Device(d.path, d.logical_sector)) for d in roles.written}
        root = next(iter(members.values())) if roles.mirror is None else Mirror(tuple(members.values()))
        yield root, members


def save_files(
    wanted: Salvage, disk: Disk, controller: Controller, link: Link, mount: salvage.Mount = salvage.mounted
) -> list[str]:
    """A line per file system. Raises SalvageFailed when they are required and cannot be had; Lost, Stopped."""
    link.phase("salvage")
    room = wanted.limit
    found, told = salvage.volumes(disk, signatures(disk, reader(disk.path)))
    files = 0
    for volume in found:
        taken = salvage.Taken()
        try:
            with mount(volume.device, volume.type, volume.options) as folder:
                taken = _send(wanted, volume, folder, room, controller, link)
        except (Lost, Stopped):
            raise
        except AgentError as exc:
            line = f"{volume.device} ({volume.type}): not saved: {exc.message}"
            if wanted.required:
                raise SalvageFailed(line) from exc
        else:
            line = taken.told(volume)
        room -= taken.bytes
        files += taken.files
        told.append(line)
        link.log(f"salvage: {line}")
    if wanted.required and not files:
        raise SalvageFailed(f"no file to save was found on {disk.path}: {'; '.join(told) or 'no file system'}")
    return told or [f"{disk.path}: no file system to save files from"]


def _send(
    wanted: Salvage, volume: salvage.Volume, folder: Path, room: int, controller: Controller, link: Link
) -> salvage.Taken:
    taken = salvage.Taken()

    def content() -> Iterator[bytes]:
        nonlocal taken
        taken = salvage.Taken()  # each try begins anew
        for part in salvage.compressed(salvage.archive(folder, wanted, taken, room, link)):
            link.advance(len(part))
            yield part

    try:
        patiently(lambda: controller.salvage(volume.name, content), link)
    except Refused as exc:
        if exc.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise SalvageFailed(f"the controller takes no more: {exc.message}") from exc
        raise
    return taken


def check_erasable(roles: Roles, members: Mapping[str, Device]) -> None:
    """Raises EraseFailed when a disk cannot be erased as asked: before anything is."""
    for rule, disks in roles.erase:
        for disk in disks:
            with _open(disk, members) as device:
                ways(device, disk, rule.how)


def erase_disks(roles: Roles, when: str, members: Mapping[str, Device], link: Link) -> list[str]:
    """A line per disk."""
    told = []
    for rule, disks in roles.erase:
        if rule.when != when:
            continue
        for disk in disks:
            with _open(disk, members) as device:
                told.append(erase(device, disk, rule.how, link))
            link.log(f"erased {told[-1]}")
    return told


@contextmanager
def _open(disk: Disk, members: Mapping[str, Device]) -> Iterator[Device]:
    if disk.path in members:
        yield members[disk.path]
    else:
        with Device(disk.path, disk.logical_sector) as device:
            yield device
