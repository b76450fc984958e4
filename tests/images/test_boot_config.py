"""A config that is pushed to a machine that runs: the Debian image's own units, cloud-init once more, the real boot service."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import image_builds as built
import msgspec
import pytest
import yaml
from image_controller import write_seed
from image_vm import HOW_IT_IS, all_is_well, booted
from rack import Rack, free_port

from metalimmu.images.chunks import reassemble
from metalimmu.lifecycle import Proof, State
from metalimmu.plan.types import Word
from metalimmu.service import pushes
from metalimmu.service.configs import Configs
from metalimmu.service.deploy import BootSide
from metalimmu.service.planning import plan_host
from metalimmu.service.runs import record_of
from metalimmu.service.site import OpenSite
from metalimmu.service.worker import Worker
from metalimmu.wire.messages import CheckIn, Identity

pytestmark = pytest.mark.e2e

SERIAL, UUID = "S0001", "00000000-0000-4000-8000-000000000001"
SMBIOS = ("-smbios", f"type=1,serial={SERIAL},uuid={UUID}")
USER = """\
#cloud-config
hostname: r12-u07
write_files:
  - {path: /etc/peers, content: "{{ vars.peers }} {{ secret('file:token') }}\\n", permissions: "0600"}
runcmd:
  - [sh, -c, 'echo "PEERS $(cat /etc/peers) KEY $(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d" " -f2) KEYS" > /dev/ttyS0']
"""


def site_of(folder: Path) -> tuple[Rack, OpenSite]:
    """One host with the Debian image; the guest sees this machine as 10.0.2.2 (QEMU's user networking)."""
    rack = Rack(folder, images=("web@1",))
    port = free_port()
    document = yaml.safe_load((rack.site / "site.yaml").read_text())
    document["urls"] |= {"machines": f"https://10.0.2.2:{port}"}
    document |= {"listen": {"machines": f"127.0.0.1:{port}"}, "images": str(built.catalogue().root)}
    document["limits"] |= {"report_again": "2s", "apply": "10m"}
    rack.write("site.yaml", document)
    (rack.site / "templates").mkdir()
    (rack.site / "templates/user.j2").write_text(USER + HOW_IT_IS)
    (rack.site / "token").write_text("planted-token")
    (rack.site / "token").chmod(0o600)
    role(rack, "one")
    host = yaml.safe_load((rack.site / "hosts/rack.yaml").read_text())
    host[0] |= {"nics": ["52:54:00:12:34:56"]}
    rack.write("hosts/rack.yaml", host)
    return rack, OpenSite(rack.site)


def role(rack: Rack, peers: str) -> None:
    config = {"user-data": "user.j2"}
    rack.write("roles/web.yaml", {"image": "debian@1", "ramdisk": "fake", "config": config, "vars": {"peers": peers}})


def deployed(site: OpenSite, boot: BootSide) -> dict[str, str]:
    """As after a reimage: what is on the seed. The ramdisk's part has tests of its own."""
    run = "r-20261120-vm01"
    plan = plan_host(site, "node-1")
    site.store.add_run(record_of(plan, run, {}))
    boot.create(run, plan, 1)
    checked_in = CheckIn(Identity(SERIAL, UUID), "x86_64", "bios", "ramdisk", "test")
    d = site.store.update_deployment(run, check_in=checked_in, boot_ids=("ramdisk",), read_back_ok=True, stage="wait")
    fields: dict[str, Any] = {"proof_evidence": {"run": run}, "image": plan.image.ref, "digest": plan.image.digest}
    site.store.update_host("node-1", state=State.deploying)
    site.store.update_host("node-1", state=State.active, proof=Proof.proven, **fields)
    return {f.path: f.content for f in boot.config(d).files}


@pytest.mark.timeout(2400)
def test_a_push_changes_a_machine_that_runs_and_is_proven_by_its_digest(tmp_path: Path) -> None:
    package, version = built.older_package()
    store, image = built.image("debian@1", "debian", packages=(f"{package}={version}",))
    rack, site = site_of(tmp_path / "rack")
    disk = tmp_path / "disk.raw"
    reassemble(image.manifest, store.chunks, disk)
    with disk.open("r+b") as file:
        file.truncate(3 << 30)  # a machine's disk is larger
    assert image.manifest.seed is not None
    files = deployed(site, BootSide(site))
    write_seed(disk, image.manifest.seed, tmp_path, files)
    worker = Worker(site, runs=False)
    try:
        assert worker.try_start()
        with booted(disk, tmp_path, firmware="bios", extra=SMBIOS, memory=1024) as machine:
            first = machine.wait_for(" END", seconds=900)
            all_is_well(first, "r12-u07")
            _until(lambda: bool(site.store.deployment("r-20261120-vm01").host_key), 300)
            before = site.store.deployment("r-20261120-vm01")
            assert before.system_ok
            assert before.config_seen == before.config_digest, "the digest over the files on the real seed"

            role(rack, "two")
            now = OpenSite(rack.site)
            finding, changes = Configs(now).compare(now.spec("node-1"))
            assert finding.word is Word.differs
            assert [c.path for c in changes] == ["user-data"]
            ended = list(pushes.roll(now, ["node-1"], listening=worker.try_start))
            text = machine.text()
            assert [e.state for e in ended] == ["applied"], (ended, text[-3000:])
            text = machine.wait_for("PEERS two", seconds=30)
            after = site.store.deployment("r-20261120-vm01")
            assert after.config_seen == after.config_digest != before.config_digest
            assert Configs(now).finding(now.spec("node-1")).word is Word.match
            _until(lambda: (site.store.deployment("r-20261120-vm01").system_at or 0) > time.time() - 3, 60)
            assert site.store.deployment("r-20261120-vm01").system_why == ""

            # A command that fails: the old files are back, and the machine says so.
            document = yaml.safe_load((rack.site / "roles/web.yaml").read_text())
            rack.write(
                "roles/web.yaml", document | {"vars": {"peers": "three"}, "apply": "/bin/cat /etc/shadow-planted"}
            )
            now = OpenSite(rack.site)
            (bad,) = pushes.roll(now, ["node-1"], listening=worker.try_start)
            assert bad.state == "failed"
            assert "/bin/cat /etc/shadow-planted ended with 1" in bad.why
            last = site.store.deployment("r-20261120-vm01")
            assert last.config_seen == last.config_digest == after.config_digest
    finally:
        worker.stop()
    keys = set(re.findall(r"KEY (SHA256:\S+) KEYS", text))
    assert len(keys) == 1, "SSH host keys stay"
    assert "PEERS one planted-token" in first
    kept = b"".join(p.read_bytes() for p in (rack.site / ".metalimmu").rglob("*") if p.is_file())
    assert b"planted-token" not in kept
    assert msgspec.json.encode(last.push).count(b"planted-token") == 0


def _until(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)
