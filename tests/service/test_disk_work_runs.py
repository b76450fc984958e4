"""Runs that test, save and erase, on simulated machines: what the store, the state folder and a person have of it."""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from drive import reimage
from rack import Rack

from metalimmu.bmc.fake_machines import FileMachine
from metalimmu.cli import cli
from metalimmu.errors import NotFound, SalvageFailed, UsageError
from metalimmu.service import salvages
from metalimmu.service.site import OpenSite
from metalimmu.store.records import RunRecord, RunStatus
from metalimmu.store.salvages import SalvageRecord
from metalimmu_emulator.simulated import inject

LIMITS = {"power": "3s", "media": "3s", "check_in": "20s", "stall": "10s", "phone_home": "20s", "bmc": "4s"}


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    made = Rack(tmp_path, limits=LIMITS)
    role = {
        "image": "web@1",
        "ramdisk": "fake",
        "erase": [{"disk": "root", "how": "zero"}],
        "salvage": {"paths": ["/var/log"], "limit": "1MB"},
    }
    made.write("roles/web.yaml", role)
    made.write("pools/new.yaml", {"burn_in": {"cpu": "1s"}})
    hosts = made.site / "hosts/rack.yaml"
    hosts.write_text(hosts.read_text() + "  pool: new\n")
    return made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def steps(rack: Rack, run: RunRecord) -> dict[str, Any]:
    return {s.name: s for s in OpenSite(rack.site).store.steps(run.id)}


def run_cli(rack: Rack, *args: str) -> str:
    done = CliRunner().invoke(cli, ["--site", str(rack.site), *args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_new_machine_is_tested_and_what_it_held_is_saved_when_it_is_reimaged(rack: Rack, stack: ExitStack) -> None:
    rack.power_up(stack, pace=0.2)
    first = reimage(rack.site)
    assert first.status is RunStatus.succeeded, first.error
    done = steps(rack, first)
    assert list(done)[5:10] == ["check-in", "burn-in", "salvage", "erase", "write"]
    report = done["verify"].evidence["report"]
    assert report["burn_in"]["cpu"] == 1e9
    assert tuple(report["erased"]) == ("/dev/vda: zeros",)
    site = OpenSite(rack.site)
    assert site.store.salvages() == []

    second = reimage(rack.site, image="web@2")
    assert second.status is RunStatus.succeeded, second.error
    done = steps(rack, second)
    assert "burn-in" not in done, "it is no longer new"
    assert done["verify"].evidence["report"]["kept_chunks"] == 0, "all was erased"
    (record,) = site.store.salvages(host="node-1")
    assert (record.run, record.name, record.image) == (second.id, "vda2", "web@1")
    assert done["salvage"].evidence["archives"] == {"vda2": record.sha256}
    assert [e.kind for e in site.store.history("node-1", run=second.id, kind="salvage")] == ["salvage"]
    lies = salvages.path(site, record)
    assert stat.S_IMODE(lies.stat().st_mode) == 0o600
    assert lies.stat().st_size == record.bytes

    listed = run_cli(rack, "salvage", "list", "-o", "json")
    assert '"volume": "vda2"' in listed
    assert "/var/log/messages" in run_cli(rack, "salvage", "show", "node-1")
    out = rack.folder / "out"
    run_cli(rack, "salvage", "get", "node-1", "--extract", "--out", str(out))
    assert (out / "node-1/vda2/var/log/messages").read_text().startswith("the last words of sha256:")
    copied = run_cli(rack, "salvage", "get", "node-1", "--run", second.id, "--out", str(out)).strip()
    assert Path(copied).read_bytes() == lies.read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        salvages.take(site, record, out)
    run_cli(rack, "salvage", "rm", "node-1", "--yes")
    assert not lies.exists()
    assert "nothing was salvaged" in run_cli(rack, "salvage", "list")
    site.close()


@pytest.mark.parametrize(
    ("fault", "code", "image"), [("burn-in-fails", "BurnInFailed", "web@1"), ("erase-fails", "EraseFailed", None)]
)
def test_a_machine_that_fails_before_it_is_written_still_has_its_system(
    rack: Rack, stack: ExitStack, fault: str, code: str, image: str | None
) -> None:
    rack.write("pools/new.yaml", {"burn_in": {"when": "always"}})
    rack.power_up(stack, pace=0.2)
    first = reimage(rack.site)
    assert first.status is RunStatus.succeeded, first.error
    inject(FileMachine(rack.state("node-1")), fault, code)
    second = reimage(rack.site, image="web@2")
    assert second.status is RunStatus.failed
    assert second.error is not None
    assert second.error.code == code
    host = OpenSite(rack.site).store.host("node-1")
    assert host.quarantine is not None
    assert host.image == image, "only a disk that may have been written is no longer what it was"


class TestArchives:
    @pytest.fixture
    def site(self, rack: Rack) -> Iterator[OpenSite]:
        opened = OpenSite(rack.site)
        yield opened
        opened.close()

    def record(self, site: OpenSite, content: bytes) -> SalvageRecord:
        record = SalvageRecord(host="node-1", run="r1", name="sda2", at=1.0)
        path = salvages.path(site, record)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        site.store.salvaged(record)
        return record

    def test_one_that_is_damaged_says_so(self, site: OpenSite) -> None:
        with pytest.raises(SalvageFailed, match="is damaged"):
            list(salvages.files(site, self.record(site, b"no zstd")))

    def test_one_that_was_removed_by_hand(self, site: OpenSite) -> None:
        record = self.record(site, b"")
        salvages.path(site, record).unlink()
        with pytest.raises(NotFound, match="is gone"):
            list(salvages.files(site, record))
        salvages.remove(site, record)
        with pytest.raises(NotFound, match="nothing was salvaged"):
            salvages.find(site, "node-1")

    def test_a_wicked_one_puts_nothing_outside(self, site: OpenSite, tmp_path: Path) -> None:
        import io

        import zstandard

        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for name, kind, link in (
                ("../evil", tarfile.REGTYPE, ""),
                ("/abs", tarfile.REGTYPE, ""),
                ("dev", tarfile.CHRTYPE, ""),
                ("out", tarfile.SYMTYPE, "/etc"),
                ("out/passwd", tarfile.REGTYPE, ""),
                ("var/log/good", tarfile.REGTYPE, ""),
            ):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname, entry.size, entry.mode = kind, link, 0, 0o6777
                tar.addfile(entry)
        record = self.record(site, zstandard.ZstdCompressor().compress(raw.getvalue()))
        out = tmp_path / "a/b"
        salvages.extract(site, record, out)
        assert not (tmp_path / "a/evil").exists()
        assert (out / "var/log/good").is_file()
        assert not (out / "var/log/good").stat().st_mode & 0o6000
        assert {p.name for p in (tmp_path / "a").iterdir()} == {"b"}

    def test_a_controller_without_room_takes_nothing(self, site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
        from types import SimpleNamespace

        from metalimmu.wire.messages import Salvage

        monkeypatch.setattr(salvages.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
        deployment = SimpleNamespace(host="node-1", id="r9", assignment=SimpleNamespace(salvage=Salvage((), 10**6)))
        with pytest.raises(SalvageFailed, match="MiB to spare"):
            salvages.Incoming(site, deployment, "sda2")
