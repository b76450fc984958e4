"""Images that are booted and not written by our agent, on virtual machines: Debian's installer, a live system, an ISO."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import e2e_rig
import image_builds
import pytest
from e2e_rig import Rig, failed

from metalimmu.images import boot_media, debian, iso, kinds, ramdisk_base
from metalimmu.images.catalogue import Catalogue
from metalimmu.wire import cpio
from metalimmu_emulator.lab import Lab

pytestmark = pytest.mark.e2e

NODE = "node-1"
LIVE_INIT = Path(__file__).with_name("live-init")
Up = Callable[..., Rig]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return Catalogue(tmp_path_factory.mktemp("kinds") / "images")


@pytest.fixture
def up(catalogue: Catalogue, tmp_path: Path) -> Iterator[Up]:
    """A lab that needs no ramdisk of ours, and no image but those of this module."""
    with ExitStack() as stack:

        def up(**shape: Any) -> Rig:
            wanted = {"disk_size": 256 << 20, "memory": 512, **shape}
            lab = Lab.up(tmp_path / "lab", images=catalogue.root, ramdisks=tmp_path / "no-ramdisks", **wanted)
            return stack.enter_context(e2e_rig.rig(lab))

        yield up


def test_debians_installer_boots_asks_for_its_answers_and_says_who_it_is(up: Up, catalogue: Catalogue) -> None:
    """It would fetch its packages for a quarter of an hour: what is proven here ends before a disk is touched."""
    installer = image_builds.installer()
    kinds.add_bootable(
        catalogue,
        installer / "linux",
        "debian-installer@12",
        kind="installer",
        initrd=installer / "initrd.gz",
        answers="preseed",
    )
    rig = up(firmware="bios", memory=1024)
    rig.limits(check_in="15m")  # forty megabytes of it are unpacked by an emulated CPU
    rig.role(image="debian-installer@12", arguments="console=ttyS0,115200 ipv6.disable=1 TERM=dumb")
    rig.host_document(network={"address": "10.0.2.15/24", "gateway": "10.0.2.2", "dns": ["10.0.2.3"]})
    command = rig.start("reimage", NODE, "--yes")
    rig.until(
        lambda: "begin" in (d.fetched if (d := rig.deployment()) else {}), "the installer to say who it is", seconds=900
    )
    d = rig.deployed()
    assert d.fetched["preseed.cfg"] < d.fetched["begin"]
    assert (d.fetches, d.refusal, d.failure) == (1, None, None)
    assert d.media_bytes > (installer / "initrd.gz").stat().st_size
    rig.until(lambda: rig.step() == "install", "the run to see it")
    run = rig.last_run()
    assert run is not None
    assert "was cancelled" in failed(rig("run", "cancel", run.id, status=1))
    command.end(1)
    host = rig.host()
    assert (host.image, host.proof) == (None, "unproven")  # it may have touched the disk: nothing is known of it
    assert host.quarantine is not None
    assert rig.bmc()[1:] == ("", "")


def test_a_live_system_from_its_media_then_an_iso_that_switches_the_machine_off(up: Up, catalogue: Catalogue, tmp_path: Path) -> None:  # fmt: skip
    live(catalogue, tmp_path, "rescue@1")
    vendors_iso(catalogue, tmp_path, "vendor@1")
    rig = up(firmware="uefi")
    rig.role(image="rescue@1", firmware="uefi", arguments="console=ttyS0,115200 loglevel=4")
    assert "rescue@1: proven" in rig("reimage", NODE, "--yes")
    host = rig.host()
    assert (host.state, host.proof, host.image) == ("active", "proven", "rescue@1")
    said = host.proof_evidence["system"]
    assert (said["image_id"], said["image_version"], said["serial"]) == ("rescue", "1", rig.lab.server(NODE).serial)
    assert "live: the squashfs is there" in rig.console()
    assert rig.bmc()[2]  # it runs from them
    assert rig.deployed().ended is None
    assert "proven at rescue@1" in rig("prove", NODE)

    rig.role(image="vendor@1", proof={"by": "none"})
    said = rig("reimage", NODE, "--yes")
    assert "switched itself off" in said
    host = rig.host()
    assert (host.state, host.proof, host.image) == ("active", "unproven", "vendor@1")
    assert rig.bmc() == ("Off", "", "")


def live(catalogue: Catalogue, work: Path, ref: str) -> None:
    """Kernel, drivers and squashfs as our ramdisk's, and a first program of its own."""
    inputs = ramdisk_base.Inputs(ramdisk_base.flavour("lab"), debian.mirror(None))
    base = ramdisk_base.prepare(inputs, refresh=False, say=print)
    initrd = work / "live-initrd"
    console = [cpio.directory("dev"), cpio.character_device("dev/console", 5, 1)]
    own = cpio.pack([*console, cpio.file("init", LIVE_INIT.read_bytes(), 0o755)])
    initrd.write_bytes(own + base.file("initrd").read_bytes())
    kinds.add_bootable(
        catalogue,
        base.file("vmlinuz"),
        ref,
        kind="live",
        initrd=initrd,
        squashfs=base.file("root.squashfs"),
        arguments="live.media={{ label }}",
    )


def vendors_iso(catalogue: Catalogue, work: Path, ref: str) -> None:
    kit = boot_media.kit()
    folder = work / "vendor"
    folder.mkdir()
    config = "echo a firmware update\nsleep 2\nhalt\n"
    file = work / "vendor.iso"
    iso.write(file, {}, config, kit.loaders, label="VENDOR_1", epoch=boot_media.EPOCH, tools=kit.tools, work=folder)
    kinds.add_iso(catalogue, file, ref)
