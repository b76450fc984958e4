"""What the ramdisk's builder refuses, keeps and says; the building itself is in test_ramdisk_boot."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from metalimmu import paths
from metalimmu.errors import ImageError, NotFound, ToolError, UsageError
from metalimmu.images import ramdisk, ramdisk_base
from metalimmu.images.ramdisk import Ramdisk

DATA = paths.data("pxe") / "ramdisk"


def described(folder: Path, **changes: object) -> Path:
    """A folder as `build` leaves it."""
    facts = Ramdisk(
        flavour="lab",
        label="MI-00000000",
        architecture="x86_64",
        kernel="6.1.0",
        backports=False,
        agent_version="0.1.0",
        agent_digest=ramdisk.agent_digest(),
        slot_offset=4096,
        slot_size=65536,
        sha256="0" * 64,
        sizes={"iso": 5},
        mirror="http://mirror.example/debian",
        modules=1,
        builtin=(),
        missing_modules=(),
        missing_firmware=("a/b.fw (c)",),
        packages=(),
    )
    raw = {k: v for k, v in dataclasses.asdict(facts).items() if k != "folder"} | changes
    folder.mkdir(parents=True)
    (folder / "ramdisk.json").write_text(json.dumps(raw))
    (folder / "boot.iso").write_bytes(b"12345")
    return folder


def test_load_gives_back_what_build_wrote(tmp_path):
    found = ramdisk.load(described(tmp_path / "lab"))
    assert found.iso == tmp_path / "lab/boot.iso"
    assert found.missing_firmware == ("a/b.fw (c)",)
    assert found.slot_size == 65536
    assert found.current


def test_one_of_a_version_that_could_not_boot_the_network_is_a_ramdisk_all_the_same(tmp_path):
    folder = described(tmp_path / "lab")
    raw = json.loads((folder / "ramdisk.json").read_text())
    del raw["parts"]
    (folder / "ramdisk.json").write_text(json.dumps(raw))
    assert ramdisk.load(folder).parts == {}


def test_a_ramdisk_with_another_agent_is_not_current(tmp_path):
    assert not ramdisk.load(described(tmp_path / "lab", agent_digest="1" * 64)).current


def test_load_of_nothing_says_how_to_build(tmp_path):
    with pytest.raises(NotFound) as caught:
        ramdisk.load(tmp_path)
    assert "ramdisk build" in caught.value.hint


def test_load_refuses_an_iso_of_another_size(tmp_path):
    folder = described(tmp_path / "lab")
    (folder / "boot.iso").write_bytes(b"123")
    with pytest.raises(ImageError, match=r"has 3 bytes, its ramdisk.json says 5"):
        ramdisk.load(folder)


def test_load_refuses_a_description_of_another_version(tmp_path):
    with pytest.raises(ImageError, match="another version"):
        ramdisk.load(described(tmp_path / "lab", new_field=1))


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_load_refuses_a_damaged_description(tmp_path, text):
    folder = described(tmp_path / "lab")
    (folder / "ramdisk.json").write_text(text)
    with pytest.raises(ImageError):
        ramdisk.load(folder)


def test_list_built(tmp_path):
    described(tmp_path / "lab")
    described(tmp_path / "generic", flavour="generic")
    assert [r.flavour for r in ramdisk.list_built(tmp_path)] == ["generic", "lab"]
    assert ramdisk.list_built(tmp_path / "nothing") == []


@pytest.mark.parametrize("architecture", ["arm64", "aarch64"])
def test_arm64_is_refused_before_anything_is_done(tmp_path, architecture):
    with pytest.raises(UsageError, match=f"no ramdisk for {architecture} yet"):
        ramdisk.build("lab", tmp_path / "out", architecture=architecture)
    assert not (tmp_path / "out").exists()


def test_an_unknown_flavour_is_refused_with_those_that_exist(tmp_path):
    with pytest.raises(UsageError, match="no ramdisk flavour 'huge'") as caught:
        ramdisk.build("huge", tmp_path / "out")
    assert "generic, lab" in caught.value.hint


def test_a_firmware_folder_must_be_one(tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        ramdisk.build("lab", tmp_path / "out", firmware_dir=tmp_path / "none")


def test_a_target_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("METALIMMU_CACHE", str(tmp_path / "cache"))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ToolError, match=r"cannot build the ramdisk: .*/out") as caught:
        ramdisk.build("lab", tmp_path / "out", mirror="http://mirror.invalid/debian")
    assert "make room" in caught.value.hint


# --- inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ramdisk_base.flavours())
def test_flavours_name_their_kernel_and_modules_once(name):
    flavour = ramdisk_base.flavour(name)
    assert flavour.kernel.startswith("linux-image-")
    assert {"squashfs", "overlay", "isofs", "loop", "sr_mod"} <= set(flavour.media)
    names = [*flavour.media, *flavour.needed, *flavour.wanted]
    assert len(names) == len({n.replace("-", "_") for n in names})


def test_generic_has_the_drivers_that_real_servers_need():
    flavour = ramdisk_base.flavour("generic")
    assert {
        "nvme",
        "megaraid_sas",
        "mpt3sas",
        "hpsa",
        "smartpqi",
        "ice",
        "i40e",
        "ixgbe",
        "igb",
        "mlx5_core",
        "bnxt_en",
    } <= set(flavour.needed)
    assert {"ahci", "usb-storage", "virtio_blk"} <= set(flavour.media)


def test_the_key_of_a_base_depends_on_all_inputs(tmp_path):
    lab, generic = ramdisk_base.flavour("lab"), ramdisk_base.flavour("generic")
    (tmp_path / "a.fw").write_text("1")

    def keys() -> list[str]:
        return [
            ramdisk_base.Inputs(lab, "http://a").key(),
            ramdisk_base.Inputs(generic, "http://a").key(),
            ramdisk_base.Inputs(lab, "http://b").key(),
            ramdisk_base.Inputs(lab, "http://a", backports=True).key(),
            ramdisk_base.Inputs(lab, "http://a", firmware_dir=tmp_path).key(),
        ]

    before = keys()
    assert len(set(before)) == len(before)
    assert keys() == before
    (tmp_path / "a.fw").write_text("2")
    assert [a == b for a, b in zip(before, keys(), strict=True)] == [True, True, True, True, False]


def test_the_agents_digest_follows_its_files(tmp_path, monkeypatch):
    data = tmp_path / "pxe"
    shutil.copytree(DATA, data / "ramdisk")
    monkeypatch.setattr(ramdisk.paths, "data", lambda name: tmp_path / name)
    before = ramdisk.agent_digest()
    with (data / "ramdisk/init").open("a") as file:
        file.write("# more\n")
    assert ramdisk.agent_digest() != before


# --- scripts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["init", "initrd-init", "lease"])
def test_scripts_are_good_shell(name):
    subprocess.run(["sh", "-n", DATA / name], check=True, capture_output=True)


def test_nothing_opens_a_port_or_a_shell():
    for name in ("init", "initrd-init", "lease", "network.py"):
        text = (DATA / name).read_text()
        assert not re.search(
            r"\b(getty|sshd|dropbear|telnetd|inetd|nc -l|login|askfirst|exec sh)\b", text.replace("No login", "")
        )


def test_grub_boots_without_asking():
    text = (DATA / "grub.cfg").read_text()
    assert set(re.findall(r"@[A-Z]+@", text)) == {"@LABEL@", "@VERSION@", "@FLAVOUR@"}
    assert "set timeout=0" in text
    assert f"initrd /boot/initrd /{ramdisk.SLOT}" in text
    assert text.count("console=ttyS") == 1  # Linux fails at the first of two that is not there


def test_lease_script_writes_what_the_server_said(tmp_path):
    script = tmp_path / "lease"
    script.write_text((DATA / "lease").read_text().replace("/run/metalimmu", str(tmp_path)))
    env = {
        "PATH": "/usr/bin:/bin", "interface": "eth0", "ip": "10.1.2.3", "mask": "20", "router": "10.1.0.1 10.1.0.2",
        "dns": "10.1.0.3 10.1.0.4", "domain": "example.org", "mtu": "9000",
    }  # fmt: skip
    subprocess.run(["sh", script, "bound"], env=env, check=True)
    assert (tmp_path / "lease.eth0").read_text() == (
        "address=10.1.2.3/20\ngateway=10.1.0.1\ndns=10.1.0.3 10.1.0.4\ndomain=example.org\nmtu=9000\n"
    )
    subprocess.run(["sh", script, "deconfig"], env={"PATH": "/usr/bin:/bin", "interface": "eth1"}, check=True)
    assert not (tmp_path / "lease.eth1").exists()
