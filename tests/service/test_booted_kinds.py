"""Installers, live systems and ISOs on fake BMCs, with simulated machines that boot what their media really say."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from drive import reimage
from rack import Rack

from metalimmu.bmc.fake_machines import FileMachine
from metalimmu.desired.types import Network
from metalimmu.errors import BmcUnsupported, ImageError, NotFound, UsageError
from metalimmu.images.add import store
from metalimmu.images.boot_media import SLOTS
from metalimmu.images.catalogue import Catalogue
from metalimmu.images.kinds import add_iso
from metalimmu.service.kinds import Boots, kernel_arguments
from metalimmu.service.planning import plan_host, rollback_image
from metalimmu.service.proof import prove
from metalimmu.service.site import OpenSite
from metalimmu.store.records import RunRecord, RunStatus
from metalimmu.wire.manifest import CHUNK, Bootable, Manifest, Part

SHORT = {
    "power": "3s", "media": "3s", "check_in": "6s", "stall": "2s", "phone_home": "4s", "bmc": "4s", "install": "5s", "report_again": "2s",
}  # fmt: skip
KERNEL, INITRD = 1_000_000, 500_000


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return Rack(tmp_path, limits=SHORT)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def power_up(rack: Rack, stack: ExitStack, **faults: Any) -> Any:
    return rack.power_up(stack, pace=0.2, faults={"node-1": faults})["node-1"]


def bootable(rack: Rack, ref: str, kind: str, *, squashfs: bool = False, **fields: str) -> str:
    """As images.kinds makes it, without the tools: parts one after the other."""
    import io

    sizes = {"kernel": KERNEL, "initrd": INITRD, **SLOTS, **({"squashfs": 300_000} if squashfs else {})}
    parts, at = [], 4096
    for name, size in sizes.items():
        parts.append(Part(name, at, size))
        at += size
    catalogue = Catalogue(rack.site / ".metalimmu" / "images")
    content = b"K" * at + ref.encode() + bytes(CHUNK)
    chunks, size = store(io.BytesIO(content), catalogue.chunks)
    boots = Bootable(tuple(parts), "MI-TEST", **fields)
    catalogue.publish(ref, Manifest(kind, "x86_64", size, chunks, boots=boots), {}, {})
    return ref


def iso(rack: Rack, ref: str) -> str:
    """The smallest ISO 9660 file that firmware would boot, and some more bytes."""
    file = rack.folder / f"{ref}.iso"
    blocks = bytearray(2048 * 1200)
    blocks[16 * 2048 : 16 * 2048 + 7] = b"\x01CD001\x01"
    struct.pack_into("<I", blocks, 16 * 2048 + 80, 1200)
    blocks[17 * 2048 : 17 * 2048 + 30] = b"\x00CD001\x01EL TORITO SPECIFICATION"
    struct.pack_into("<I", blocks, 17 * 2048 + 71, 19)
    entries = b"\x01\xef" + bytes(28) + b"\x55\xaa" + b"\x88" + bytes(31)
    blocks[19 * 2048 : 19 * 2048 + len(entries)] = entries
    file.write_bytes(blocks)
    add_iso(Catalogue(rack.site / ".metalimmu" / "images"), file, ref)
    return ref


def role(rack: Rack, **fields: Any) -> None:
    rack.write("roles/web.yaml", {"image": "web@1", "ramdisk": "fake", **fields})


def opened(rack: Rack) -> OpenSite:
    return OpenSite(rack.site)


def steps(rack: Rack, run: RunRecord) -> dict[str, str]:
    return {s.name: s.summary for s in opened(rack).store.steps(run.id)}


# installers


def test_an_installer_installs_says_so_and_its_system_phones_home(rack: Rack, stack: ExitStack) -> None:
    machine = power_up(rack, stack)
    role(rack, image=bootable(rack, "debian@12", "installer", answers="preseed"), arguments="console=ttyS1")
    plan = plan_host(opened(rack), "node-1")
    assert [s.name for s in plan.steps] == [
        "preflight", "media", "insert", "override", "power", "fetch", "install", "eject", "boot", "report", "prove",
    ]  # fmt: skip
    assert plan.boots == 2
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error
    host = opened(rack).store.host("node-1")
    assert (host.state, host.proof, host.image, host.efi_entries) == ("active", "proven", "debian@12", ())
    d = opened(rack).store.deployments(host="node-1")[0]
    assert list(d.fetched) == ["preseed.cfg", "begin", "root-disk", "at partitioning", "phone-home"]
    assert d.fetches == 1
    assert d.ended
    proof = host.proof_evidence
    assert proof["kind"] == "installer"
    assert proof["finished"] == d.finished
    assert "serial S0001" in proof["system"]["note"]
    assert machine.machine().media["Cd"].image is None
    assert machine.machine().boot.enabled == "Disabled"
    assert machine.machine().generation == 1 + 2
    told = next(line for line in machine.log if line.startswith("an installer, told"))
    assert "console=ttyS1" in told.split()
    assert "hostname=node-1" in told.split()


def test_disk_then_installer_then_back(rack: Rack, stack: ExitStack) -> None:
    machine = power_up(rack, stack)
    assert reimage(rack.site).status is RunStatus.succeeded
    run = reimage(rack.site, image=bootable(rack, "debian@12", "installer", answers="kickstart"))
    assert run.status is RunStatus.succeeded, run.error
    site = opened(rack)
    assert rollback_image(site, "node-1") == "web@1"
    machine.installed = None
    back = reimage(rack.site, image="web@1", verb="rollback")
    assert back.status is RunStatus.succeeded, back.error
    assert opened(rack).store.deployment(back.id).assignment.previous_digest is None  # an installer is on no disk


def test_another_machine_must_not_install(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack, wrong_serial="S9999")
    role(rack, image=bootable(rack, "debian@12", "installer", answers="preseed"))
    run = reimage(rack.site)
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert run.error.code == "IdentityMismatch"
    assert "its serial is S9999, expected S0001" in run.error.message
    assert opened(rack).store.host("node-1").quarantine is not None


@pytest.mark.parametrize(
    ("faults", "step", "says"),
    [
        ({"installer_dumb": ""}, "fetch", "has not asked for its answers"),
        ({"installer_fails": "no disk fits"}, "install", "the installer says: no disk fits"),
        ({"installer_hangs": ""}, "install", "was last heard at 'partitioning'"),
        ({"no_report": ""}, "report", "has not reported"),
        ({"phone_home_serial": "S7"}, "report", "its serial is S7, expected S0001"),
    ],
)
def test_what_goes_wrong_with_an_installer(
    rack: Rack, stack: ExitStack, faults: dict[str, str], step: str, says: str
) -> None:
    power_up(rack, stack, **faults)
    role(rack, image=bootable(rack, "debian@12", "installer", answers="preseed"))
    run = reimage(rack.site)
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert says in run.error.message
    host = opened(rack).store.host("node-1")
    assert host.quarantine is not None
    assert host.quarantine.reason.startswith(step)
    assert (host.state, host.image) == ("enrolled", None)
    now = rack.machine("node-1")
    assert (now.media["Cd"].image, now.boot.enabled) == (None, "Disabled")


def test_an_installer_that_runs_from_its_media_keeps_them_until_its_system_is_up(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    ref = bootable(rack, "ubuntu@24", "installer", squashfs=True, answers="autoinstall")
    plan = plan_host(opened(rack), "node-1", image=ref)
    names = [s.name for s in plan.steps]
    assert names[names.index("install") :] == ["install", "clear", "boot", "report", "eject", "prove"]
    run = reimage(rack.site, image=ref)
    assert run.status is RunStatus.succeeded, run.error
    assert rack.machine("node-1").media["Cd"].image is None


# live systems


LIVE = "boot=live metalimmu.image={{ image }} metalimmu.host={{ name }}"


def test_a_live_system_in_memory_is_proven_by_its_own_report(rack: Rack, stack: ExitStack) -> None:
    machine = power_up(rack, stack)
    role(rack, image=bootable(rack, "rescue@1", "live", arguments=f"{LIVE} toram", squashfs=True))
    plan = plan_host(opened(rack), "node-1")
    assert plan.boots == 1
    assert any("in memory only" in w for w in plan.warnings)
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error
    host = opened(rack).store.host("node-1")
    assert (host.state, host.proof, host.image) == ("active", "proven", "rescue@1")
    assert host.proof_evidence["system"]["image_id"] == "rescue"
    assert machine.machine().media["Cd"].image is None
    assert "proven at rescue@1" in prove(opened(rack), "node-1")


def test_a_live_system_from_its_media_is_served_until_the_next_run(rack: Rack, stack: ExitStack) -> None:
    machine = power_up(rack, stack)
    role(rack, image=bootable(rack, "rescue@1", "live", arguments=LIVE, squashfs=True))
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error
    assert "eject" not in steps(rack, run)
    assert machine.machine().media["Cd"].image
    assert opened(rack).store.deployment(run.id).ended is None
    assert opened(rack).store.host("node-1").proof_evidence["media_ejected"] is False
    again = reimage(rack.site, image="web@1")
    assert again.status is RunStatus.succeeded, again.error
    assert opened(rack).store.deployment(run.id).ended is not None
    assert machine.machine().media["Cd"].image is None


def test_a_live_system_of_another_version_is_not_it(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    role(rack, image=bootable(rack, "rescue@1", "live", arguments="metalimmu.image=rescue@0"))
    run = reimage(rack.site)
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert "it is rescue@0, expected rescue@1" in run.error.message


# ISOs


def test_a_vendors_iso_is_served_as_it_is_and_done_when_its_machine_is_off(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack, iso_off="")
    role(rack, image=iso(rack, "firmware@1"), proof={"by": "none"})
    plan = plan_host(opened(rack), "node-1")
    assert [s.name for s in plan.steps][-4:] == ["read", "quiet", "eject", "prove"]
    assert any("its vendor made it do" in w for w in plan.warnings)
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error
    assert "switched itself off" in steps(rack, run)["quiet"]
    host = opened(rack).store.host("node-1")
    assert (host.state, host.proof, host.image) == ("active", "unproven", "firmware@1")
    assert opened(rack).store.deployment(run.id).media_bytes >= 2048 * 1200


def test_an_iso_that_goes_on_is_done_when_it_is_read_no_more(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    role(rack, image=iso(rack, "firmware@1"), proof={"by": "none"})
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error
    assert "nothing was read for 2 s" in steps(rack, run)["quiet"]
    assert rack.machine("node-1").media["Cd"].image is None


def test_an_iso_cannot_report(rack: Rack) -> None:
    role(rack, image=iso(rack, "firmware@1"))
    with pytest.raises(ImageError, match="cannot know where to report"):
        plan_host(opened(rack), "node-1")


# plans


def test_what_does_not_render_is_found_when_it_is_planned(rack: Rack) -> None:
    role(rack, image=bootable(rack, "debian@12", "installer", answers="preseed"), arguments="a={{ vars.speed }}")
    with pytest.raises(Exception, match=r"vars\.speed"):
        plan_host(opened(rack), "node-1")
    role(rack, image="debian@12", arguments="a={{ vars.speed }}", vars={"speed": "it's fast"})
    with pytest.raises(ImageError, match="command line"):
        plan_host(opened(rack), "node-1")


def test_a_system_that_phoned_home_cannot_be_asked_again(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    role(rack, image=bootable(rack, "debian@12", "installer", answers="preseed"))
    assert reimage(rack.site).status is RunStatus.succeeded
    with pytest.raises(UsageError, match="cannot be asked again"):
        prove(opened(rack), "node-1")


def test_no_ramdisk_is_needed(rack: Rack) -> None:
    role(rack, image=bootable(rack, "debian@12", "installer", answers="preseed"), ramdisk="none-built")
    assert plan_host(opened(rack), "node-1").steps


# the same from the network


def boots(rack: Rack, ref: str, **spec: Any) -> Boots:
    role(rack, image=ref, **spec)
    plan = plan_host(opened(rack), "node-1")
    return Boots(opened(rack).catalogue, plan, "http://10.1.0.5/i/secret/", {"meta-data": "x\n"} if plan.image.kind == "live" else {})  # fmt: skip


def test_an_installer_from_the_network(rack: Rack) -> None:
    ref = bootable(rack, "debian@12", "installer", answers="preseed", arguments="quiet")
    made = boots(rack, ref, arguments="console=ttyS0")
    netboot = made.netboot("http://10.1.0.5/m/secret")
    assert (netboot.kernel, netboot.initrds) == ("vmlinuz", ("initrd", "slot.cpio"))
    words = netboot.args.split()
    assert words[0] == "quiet"
    assert words[-1] == "console=ttyS0"
    assert "url=http://10.1.0.5/i/secret/preseed.cfg" in words
    assert made.netboot_file("vmlinuz").size == KERNEL
    assert made.netboot_file("initrd").pread(0, 4) == b"KKKK"
    assert b"debian-installer-startup.d/S31metalimmu\0" in made.netboot_file("slot.cpio").pread(0, 4096)
    for name in ("root.squashfs", "boot.iso", "slot.cfg"):
        with pytest.raises(NotFound):
            made.netboot_file(name)


def test_a_live_system_from_the_network_brings_its_seed_and_knows_its_squashfs(rack: Rack) -> None:
    ref = bootable(rack, "rescue@1", "live", squashfs=True, arguments="toram{% if squashfs %} fetch={{ squashfs }}{% endif %}")  # fmt: skip
    made = boots(rack, ref)
    netboot = made.netboot("http://10.1.0.5/m/secret")
    assert netboot.args == "toram fetch=http://10.1.0.5/m/secret/root.squashfs"
    assert netboot.initrds == ("initrd", "slot.cpio")
    assert b"metalimmu/seed/meta-data\0" in made.netboot_file("slot.cpio").pread(0, 4096)
    assert made.netboot_file("root.squashfs").size == 300_000
    media = made.media()
    assert b"linux /boot/vmlinuz 'toram'\ninitrd /boot/initrd /boot/slot.cpio\n" in media.pread(0, media.size)


def test_an_iso_does_not_boot_from_the_network(rack: Rack) -> None:
    role(rack, image=iso(rack, "firmware@1"), proof={"by": "none"}, boot="pxe")
    with pytest.raises(BmcUnsupported, match="a whole ISO"):
        plan_host(opened(rack), "node-1")


@pytest.mark.parametrize(
    ("kind", "method", "fields"),
    [("installer", "pxe", {"answers": "preseed"}), ("live", "uefi-http", {"arguments": "metalimmu.image={{ image }}"})],
)
def test_a_whole_run_over_the_network(rack: Rack, stack: ExitStack, kind: str, method: str, fields: dict[str, str]) -> None:  # fmt: skip
    machine = power_up(rack, stack)
    urls = opened(rack).docs.site.urls
    FileMachine(rack.state("node-1")).update(
        lambda m: msgspec.structs.replace(m, netboot=urls.bmc, targets=("None", "Cd", "Pxe", "UefiHttp"))
    )
    role(rack, image=bootable(rack, "other@1", kind, **fields), boot=method)
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, (run.error, machine.log)
    host = opened(rack).store.host("node-1")
    assert (host.proof, host.image) == ("proven", "other@1")
    assert "withdraw" in steps(rack, run)
    assert machine.machine().boot.enabled == "Disabled"
    assert any(line.startswith("from the network: vmlinuz initrd") for line in machine.log)


STATIC = {
    "preseed": (
        "auto=true priority=critical url=http://c/i/x/preseed.cfg hostname=node-1 domain=example.net DEBIAN_FRONTEND=text interface=auto"
        " BOOTIF=01-52-54-00-00-00-01 netcfg/disable_autoconfig=true netcfg/get_ipaddress=10.1.12.7 netcfg/get_netmask=255.255.255.0"
        " netcfg/get_gateway=10.1.12.1 netcfg/get_nameservers=10.1.0.53 netcfg/confirm_static=true"
    ),
    "kickstart": (
        "inst.ks=http://c/i/x/ks.cfg inst.text inst.nosave=all ip=10.1.12.7::10.1.12.1:255.255.255.0:node-1:52:54:00:00:00:01:none"
        " nameserver=10.1.0.53 nameserver=10.2.0.53"
    ),
    "autoinstall": (
        "autoinstall ds=nocloud-net;s=http://c/i/x/ ip=10.1.12.7::10.1.12.1:255.255.255.0:node-1::off:10.1.0.53:10.2.0.53"
    ),
    "esxi": "ks=http://c/i/x/ks.cfg ip=10.1.12.7 netmask=255.255.255.0 gateway=10.1.12.1 nameserver=10.1.0.53",
}
DHCP = {
    "preseed": "auto=true priority=critical url=http://c/i/x/preseed.cfg hostname=node-1 domain=local DEBIAN_FRONTEND=text interface=auto",
    "kickstart": "inst.ks=http://c/i/x/ks.cfg inst.text inst.nosave=all ip=dhcp",
    "autoinstall": "autoinstall ds=nocloud-net;s=http://c/i/x/ ip=dhcp",
    "esxi": "ks=http://c/i/x/ks.cfg",
}


@pytest.mark.parametrize("family", list(DHCP))
def test_what_makes_an_installer_ask(rack: Rack, family: str) -> None:
    spec = opened(rack).spec("node-1")
    made = Bootable((), "MI-1", "", family)
    assert " ".join(kernel_arguments(spec, made, answers_at="http://c/i/x/")) == DHCP[family]
    network = Network(address="10.1.12.7/24", gateway="10.1.12.1", dns=["10.1.0.53", "10.2.0.53"])
    spec = msgspec.structs.replace(spec, name="node-1.example.net", network=network)
    assert " ".join(kernel_arguments(spec, made, answers_at="http://c/i/x/")) == STATIC[family]


def test_an_installer_that_fetches_by_tls_is_told_not_to_mind_the_certificate(rack: Rack) -> None:
    spec = opened(rack).spec("node-1")
    for family, word in (
        ("preseed", "debian-installer/allow_unauthenticated_ssl=true"),
        ("kickstart", "inst.noverifyssl"),
    ):
        assert word in kernel_arguments(spec, Bootable((), "MI-1", "", family), answers_at="https://c/i/x/")
