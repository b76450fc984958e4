"""The backup file: what is in it, and what is refused of it."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from rack import Rack

import metalimmu
from metalimmu.boot import tls
from metalimmu.boot.tokens import SiteKey
from metalimmu.engine.lock import WorkerLock
from metalimmu.errors import BackupError, SecretError, StoreError, UsageError
from metalimmu.lifecycle import Proof
from metalimmu.service.backup import archive, seal
from metalimmu.service.backup import restore as module
from metalimmu.service.backup.make import Protection, backup
from metalimmu.service.backup.restore import Report, Secrets, restore
from metalimmu.service.backup.seal import SEGMENT, BackupKey
from metalimmu.service.planning import plan_host
from metalimmu.service.runs import submit
from metalimmu.service.site import RESTORING, OpenSite
from metalimmu.service.worker import Worker

WORDS = "correct horse battery staple"
SECRET, OPEN = Protection(passphrase=WORDS), Secrets(passphrase=WORDS)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second for each passphrase is for guessers."""
    monkeypatch.setitem(seal._SCRYPT, "n", 1 << 10)


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return Rack(tmp_path, hosts=2)


@pytest.fixture
def site(rack: Rack) -> Iterator[OpenSite]:
    site = OpenSite(rack.site)
    tls.ensure(site.state / "tls", site.docs.site.urls.machines)
    submit(site, plan_host(site, "node-1"))
    site.store.update_host("node-2", proof=Proof.proven, image="web@1")
    yield site
    site.close()


@pytest.fixture
def elsewhere(rack: Rack, site: OpenSite) -> Iterator[OpenSite]:
    """The documents in another folder, without any state."""
    folder = rack.folder / "elsewhere"
    shutil.copytree(rack.site, folder, ignore=shutil.ignore_patterns(".metalimmu*"))
    made = OpenSite(folder)
    yield made
    made.close()


def put_back(site: OpenSite, path: Path, given: Secrets = OPEN, **options: bool) -> Report:
    with path.open("rb") as file:
        return restore(site, file, path.name, given, **options)


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The same tar with other members."""
    found = members(path)
    change(found)
    out = path.with_name("changed.tar")
    with tarfile.open(out, "w") as tar:
        for name, data in found.items():
            archive.put_bytes(tar, name, data)
    return out


def manifest(change: dict[str, object]) -> Callable[[dict[str, bytes]], None]:
    def apply(found: dict[str, bytes]) -> None:
        found["manifest.json"] = json.dumps(json.loads(found["manifest.json"]) | change).encode()

    return apply


def nothing_changed(site: OpenSite) -> None:
    left = [p.name for p in site.state.iterdir()]
    assert left in ([], ["images"]), left


# what is in it -------------------------------------------------------------------------------------------------


def test_a_backup_is_private_named_and_complete(site: OpenSite, tmp_path: Path) -> None:
    made = backup(site, tmp_path / "b.tar", SECRET)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir() if "b.tar" in p.name] == ["b.tar"]
    found = members(made.path)
    assert next(iter(found)) == "manifest.json"
    said = json.loads(found["manifest.json"])
    assert (said["format"], said["site"], said["metalimmu"]) == (1, "rack", metalimmu.__version__)
    assert (said["counts"]["hosts"], said["counts"]["runs"]) == (1, 1)
    assert [(r["host"], r["status"]) for r in said["under_way"]] == [("node-1", "queued")]
    assert {m["name"] for m in said["members"]} == set(found) - {"manifest.json"}
    assert [m["name"] for m in said["members"] if m["sealed"]] == [
        "store.sqlite.zst",
        "tls/site.key",
        "tls/controller.key",
        "tls/controller.pem",
    ]
    assert {"documents/images.lock", "catalogue/web/1/manifest.json", "chunks.txt.zst"} <= set(found)
    assert not [n for n in found if n.startswith("chunks/")]
    key = (site.state / "tls" / "site.key").read_bytes()
    assert not any(key in data for data in found.values())


def test_chunks_and_ramdisks_come_along_when_asked_for(site: OpenSite, tmp_path: Path) -> None:
    found = members(backup(site, tmp_path / "b.tar", SECRET, chunks="include").path)
    assert {Path(n).stem for n in found if n.startswith("chunks/")} == site.catalogue.referenced()
    assert {"ramdisk/fake/boot.iso", "ramdisk/fake/ramdisk.json"} <= set(found)


def test_a_backup_that_cannot_be_written_leaves_nothing(
    site: OpenSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = backup(site, tmp_path / "b.tar", SECRET).path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "put_file", full)
    with pytest.raises(BackupError) as raised:
        backup(site, tmp_path / "b.tar", SECRET)
    assert "No space left" in raised.value.message
    assert "df " in raised.value.hint
    assert (tmp_path / "b.tar").read_bytes() == before, "the older one is there still"
    assert [p.name for p in tmp_path.iterdir() if "b.tar" in p.name] == ["b.tar"]


def test_protection_is_one_thing(tmp_path: Path) -> None:
    for wrong in ({}, {"passphrase": "x", "recipient": "age1"}, {"passphrase": "x", "without_keys": True}):
        with pytest.raises(UsageError) as raised:
            Protection(**wrong)  # type: ignore[arg-type]
        assert "--passphrase-ref" in raised.value.hint


# encryption ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT])
def test_what_was_sealed_comes_back(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    key, sealed, plain = BackupKey.new(), io.BytesIO(), io.BytesIO()
    key.seal(io.BytesIO(data), sealed, "name")
    key.unseal(io.BytesIO(sealed.getvalue()), plain, "name")
    assert plain.getvalue() == data


def test_no_segment_can_be_cut_moved_or_renamed() -> None:
    key, out = BackupKey.new(), io.BytesIO()
    key.seal(io.BytesIO(b"a" * (3 * SEGMENT)), out, "name")
    whole, block = out.getvalue(), SEGMENT + 16
    head, parts = whole[:24], [whole[24 + i * block : 24 + (i + 1) * block] for i in range(3)]
    bad = [whole[: 24 + n * block] for n in range(3)] + [whole[:-1], whole[:10], b""]
    bad += [head + parts[1] + parts[0] + parts[2], head + parts[0] + parts[2], whole + b"x"]
    bad.append(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])
    for each in bad:
        with pytest.raises(BackupError):
            key.unseal(io.BytesIO(each), io.BytesIO(), "name")
    for other, name in ((key, "other"), (BackupKey.new(), "name")):
        with pytest.raises(BackupError):
            other.unseal(io.BytesIO(whole), io.BytesIO(), name)


def test_a_header_that_asks_for_all_memory_is_refused() -> None:
    header = BackupKey.new().wrap(passphrase=WORDS)
    for change in ({"n": 1 << 40}, {"r": 1 << 20}, {"p": 99}, {"n": 0}, {"salt": "?"}, {"n": "x"}):
        with pytest.raises(BackupError):
            BackupKey.unwrap(header | change, passphrase=WORDS)
    del header["nonce"]
    with pytest.raises(BackupError):
        BackupKey.unwrap(header, passphrase=WORDS)


def test_an_age_key(site: OpenSite, elsewhere: OpenSite, tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    subprocess.run(["age-keygen", "-o", str(identity)], check=True, capture_output=True)
    recipient = next(line.split()[-1] for line in identity.read_text().splitlines() if "public key" in line)
    made = backup(site, tmp_path / "b.tar", Protection(recipient=recipient))
    with pytest.raises(SecretError, match="age key"):
        put_back(elsewhere, made.path, Secrets(passphrase=WORDS))
    other = tmp_path / "other"
    subprocess.run(["age-keygen", "-o", str(other)], check=True, capture_output=True)
    with pytest.raises(SecretError, match="age failed"):
        put_back(elsewhere, made.path, Secrets(identity=other))
    nothing_changed(elsewhere)
    put_back(elsewhere, made.path, Secrets(identity=identity))
    assert elsewhere.store.host("node-2").image == "web@1"


# what comes back -----------------------------------------------------------------------------------------------


def test_all_of_it_is_put_back(site: OpenSite, elsewhere: OpenSite, tmp_path: Path) -> None:
    (site.folder / "holds.yaml").write_text("[]\n")
    (site.folder / "allowed_signers").write_text("ops@example.org ssh-ed25519 AAAA\n")
    made = backup(site, tmp_path / "b.tar", SECRET, chunks="include")
    report = put_back(elsewhere, made.path)
    assert (report.aside, report.missing_chunks, report.missing_ramdisks) == (None, [], [])
    assert report.written == ["allowed_signers", "holds.yaml"]
    assert report.documents == []
    assert (report.doubted, [r["host"] for r in report.going_on]) == (1, ["node-1"])
    for name in ("site.key", "controller.key", "controller.pem"):
        old, new = site.state / "tls" / name, elsewhere.state / "tls" / name
        assert old.read_bytes() == new.read_bytes()
        assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert stat.S_IMODE((elsewhere.state / "store.sqlite").stat().st_mode) == 0o600
    assert elsewhere.store.runs() == site.store.runs()
    assert {i.digest for i in elsewhere.catalogue.images()} == {i.digest for i in site.catalogue.images()}
    for sha in site.catalogue.referenced():
        assert elsewhere.catalogue.chunks.read(sha) == site.catalogue.chunks.read(sha)
    assert not [p for p in elsewhere.state.iterdir() if p.name.startswith(".restore") or p.name == RESTORING]


def test_what_is_missing_or_other_is_said(site: OpenSite, elsewhere: OpenSite, tmp_path: Path) -> None:
    (site.folder / "allowed_signers").write_text("ops@example.org ssh-ed25519 AAAA\n")
    made = backup(site, tmp_path / "b.tar", SECRET)
    (elsewhere.folder / "allowed_signers").write_text("")  # the signer was removed: stays so
    (elsewhere.folder / "images.lock").write_text("web@1: sha256:" + "0" * 64 + "\n")
    (elsewhere.folder / "roles" / "new.yaml").write_text("image: web@1\nramdisk: fake\n")
    site.catalogue.revoke("web@2", "bad")
    report = put_back(elsewhere, made.path)
    assert sorted(report.missing_chunks) == sorted(site.catalogue.referenced())
    assert report.missing_ramdisks == ["fake: not here"]
    assert report.documents == ["changed allowed_signers", "changed images.lock", "new roles/new.yaml"]
    assert report.written == ["allowed_signers.restored", "images.lock.restored"]
    assert (elsewhere.folder / "allowed_signers").read_text() == ""


def test_hold_leaves_every_run_to_a_person(site: OpenSite, elsewhere: OpenSite, tmp_path: Path) -> None:
    report = put_back(elsewhere, backup(site, tmp_path / "b.tar", SECRET).path, hold=True)
    assert [r["status"] for r in report.going_on] == ["interrupted"]
    assert [r.status for r in elsewhere.store.runs()] == ["interrupted"]


def test_a_living_state_is_not_overwritten(site: OpenSite, tmp_path: Path) -> None:
    made = backup(site, tmp_path / "b.tar", SECRET)
    with pytest.raises(BackupError, match=r"has a controller.s state already: store\.sqlite") as raised:
        put_back(site, made.path)
    assert "--force" in raised.value.hint
    site.store.update_host("node-2", image="web@2")
    lock = WorkerLock(site.state / "worker.lock")
    assert lock.take()
    with pytest.raises(BackupError, match="a controller lives in"):
        put_back(site, made.path, force=True)
    lock.release()
    assert site.store.host("node-2").image == "web@2"
    report = put_back(site, made.path, force=True)
    assert OpenSite(site.folder).store.host("node-2").image == "web@1"
    assert report.aside is not None
    with closing(sqlite3.connect(report.aside / "store.sqlite")) as conn:
        assert conn.execute("SELECT image FROM hosts WHERE name = 'node-2'").fetchone() == ("web@2",)
    assert (report.aside / "tls" / "site.key").exists()
    assert site.catalogue.get("web@1"), "images stay where they are"


def test_who_waited_with_the_old_store_open_does_not_go_on_with_it(site: OpenSite, tmp_path: Path) -> None:
    made = backup(site, tmp_path / "b.tar", SECRET)
    waiting = OpenSite(site.folder)
    assert waiting.store.host("node-2").image == "web@1"
    waiting.check_store()
    put_back(site, made.path, force=True)
    with pytest.raises(StoreError, match="was restored from a backup while this process had it open"):
        Worker(waiting).try_start()
    lock = WorkerLock(site.state / "worker.lock")
    assert lock.take(), "it keeps the lock"
    lock.release()
    waiting.close()


def test_a_restore_that_was_killed_is_seen_and_done_again(
    site: OpenSite, elsewhere: OpenSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = backup(site, tmp_path / "b.tar", SECRET)
    move = archive.move_beside
    calls = 0

    def dying(path: Path, folder: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:  # the store has its place, the rest has not
            raise KeyboardInterrupt
        move(path, folder)

    monkeypatch.setattr(archive, "move_beside", dying)
    with pytest.raises(KeyboardInterrupt):
        put_back(elsewhere, made.path)
    monkeypatch.setattr(archive, "move_beside", move)
    with pytest.raises(StoreError, match="half restored"):
        _ = elsewhere.store
    put_back(elsewhere, made.path)
    assert elsewhere.store.host("node-2").image == "web@1"


def test_without_keys(site: OpenSite, elsewhere: OpenSite, tmp_path: Path) -> None:
    made = backup(site, tmp_path / "b.tar", Protection(without_keys=True))
    assert not [n for n in members(made.path) if n.startswith("tls/")]
    with pytest.raises(SecretError, match="no keys"):
        put_back(elsewhere, made.path, Secrets())
    SiteKey.at(elsewhere.state / "tls" / "site.key")
    with pytest.raises(BackupError, match="the site key is"):
        put_back(elsewhere, made.path, Secrets(), force=True)
    shutil.rmtree(elsewhere.state / "tls")
    shutil.copytree(site.state / "tls", elsewhere.state / "tls")
    put_back(elsewhere, made.path, Secrets(), force=True)
    assert elsewhere.store.host("node-2").image == "web@1"
    assert (elsewhere.state / "tls" / "site.key").exists()


# what is refused -----------------------------------------------------------------------------------------------


def test_cut_short_anywhere(site: OpenSite, elsewhere: OpenSite, tmp_path: Path) -> None:
    whole = backup(site, tmp_path / "b.tar", SECRET, chunks="include").path.read_bytes()
    with tarfile.open(tmp_path / "b.tar") as tar:
        ends = [m.offset_data + m.size for m in tar]
    cuts = {0, 100, 512, *(e - 1 for e in ends), *(e // 512 * 512 for e in ends[:-1]), len(whole) // 2}
    for cut in sorted(cuts):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(BackupError):
            put_back(elsewhere, tmp_path / "cut.tar")
        nothing_changed(elsewhere)


def test_changed_anywhere(site: OpenSite, elsewhere: OpenSite, tmp_path: Path) -> None:
    made = backup(site, tmp_path / "b.tar", SECRET, chunks="include")
    for name in members(made.path):

        def flip(found: dict[str, bytes], name: str = name) -> None:
            data = bytearray(found[name])
            data[len(data) // 2] ^= 1
            found[name] = bytes(data)

        with pytest.raises(BackupError):
            put_back(elsewhere, rewritten(made.path, flip))
        nothing_changed(elsewhere)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"site": "other"}, "is of site 'other'"),
        ({"format": 2, "metalimmu": "9.9"}, "made by metalimmu 9.9, which is newer"),
        ({"migrations": ["m001_hosts", "m999_future"], "metalimmu": "9.9"}, "its store has m999_future"),
        ({"kind": "something"}, "is no backup of metalimmu"),
        ({"counts": {}}, "its manifest was changed"),
        ({"members": []}, "its manifest was changed"),
        ({"encryption": None}, "is encrypted, and its manifest does not say how"),
    ],
)
def test_a_manifest_that_is_not_ours(
    site: OpenSite, elsewhere: OpenSite, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    made = backup(site, tmp_path / "b.tar", SECRET)
    with pytest.raises(BackupError) as raised:
        put_back(elsewhere, rewritten(made.path, manifest(change)))
    assert words in raised.value.message
    if "metalimmu" in change:
        assert "pip install 'metalimmu>=9.9'" in raised.value.hint
    nothing_changed(elsewhere)


def test_members_that_no_backup_of_ours_has(site: OpenSite, elsewhere: OpenSite, tmp_path: Path) -> None:
    made = backup(site, tmp_path / "b.tar", SECRET)
    for name in ("../evil", "/etc/evil", "a//b", "extra", "chunks/../../x.zst"):
        with pytest.raises(BackupError):
            put_back(elsewhere, rewritten(made.path, lambda found, name=name: found.update({name: b"x"})))  # type: ignore[misc]
    link = tmp_path / "link.tar"
    shutil.copy(made.path, link)
    with tarfile.open(link, "a") as tar:
        info = tarfile.TarInfo("tls/site.key")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(BackupError):
        put_back(elsewhere, link)
    nothing_changed(elsewhere)


def test_the_wrong_passphrase_or_none(site: OpenSite, elsewhere: OpenSite, tmp_path: Path) -> None:
    made = backup(site, tmp_path / "b.tar", SECRET)
    with pytest.raises(SecretError, match="not that of this backup"):
        put_back(elsewhere, made.path, Secrets(passphrase="guess"))
    with pytest.raises(SecretError, match="encrypted with a passphrase"):
        put_back(elsewhere, made.path, Secrets())
    nothing_changed(elsewhere)


def test_no_backup_at_all(elsewhere: OpenSite, tmp_path: Path) -> None:
    for data in (b"", b"hello", b"\0" * 2000, json.dumps({"format": 1}).encode()):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(BackupError):
            put_back(elsewhere, tmp_path / "x")
    with tarfile.open(tmp_path / "x", "w") as tar:
        archive.put_bytes(tar, "README", b"x")
    with pytest.raises(BackupError, match="begins with README"):
        put_back(elsewhere, tmp_path / "x")


def test_a_chunk_that_is_another(site: OpenSite, elsewhere: OpenSite, tmp_path: Path) -> None:
    made = backup(site, tmp_path / "b.tar", SECRET, chunks="include")

    def exchange(found: dict[str, bytes]) -> None:
        names = [n for n in found if n.startswith("chunks/")]
        found[names[0]] = found[names[1]]

    with pytest.raises(BackupError, match="has another content"):
        put_back(elsewhere, rewritten(made.path, exchange))


def test_what_the_module_needs_of_a_manifest() -> None:
    """Fields of an older manifest may be missing only where they have a default."""
    needed = {f.name for f in msgspec.structs.fields(archive.Manifest) if f.required}
    assert needed == {"format", "metalimmu", "site", "at", "hostname", "key_id", "pin", "migrations"}
    assert module.KEYS == ("site.key", "controller.key", "controller.pem")
