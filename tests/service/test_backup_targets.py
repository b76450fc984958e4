"""Backups again and again: folders, S3, retention, failures."""

from __future__ import annotations

import datetime as dt
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rack import Rack
from s3_server import ACCESS, REGION, S3, SECRET

from metalimmu.desired.backup import Backup
from metalimmu.engine.lock import WorkerLock
from metalimmu.errors import BackupError, SecretError, UsageError
from metalimmu.main import run
from metalimmu.service.backup import s3, schedule, seal
from metalimmu.service.backup.make import Protection
from metalimmu.service.backup.schedule import Repeating
from metalimmu.service.backup.targets import file_name, prune, target
from metalimmu.service.site import OpenSite
from metalimmu.store.facts import BACKUP

WORDS = "correct horse battery staple"
KEYS = s3.Keys(ACCESS, SECRET)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(seal._SCRYPT, "n", 1 << 10)


@pytest.fixture
def server() -> Iterator[S3]:
    with S3() as server:
        yield server


@pytest.fixture
def site(tmp_path: Path) -> Iterator[OpenSite]:
    site = OpenSite(Rack(tmp_path).site)
    yield site
    site.close()


@pytest.fixture
def bucket(server: S3) -> s3.Bucket:
    return s3.Bucket("backups", KEYS, endpoint=server.endpoint, region=REGION)


def configured(site: OpenSite, **backup: object) -> None:
    path = site.folder / "site.yaml"
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(document | {"backup": backup}))
    site.reload()


def to_s3(server: S3, site: OpenSite, **more: object) -> dict[str, object]:
    secret = site.folder / "s3.secret"
    secret.write_text(f"{ACCESS}:{SECRET}\n")
    secret.chmod(0o600)
    phrase = site.folder / "phrase"
    phrase.write_text(WORDS)
    phrase.chmod(0o600)
    return {
        "to": "s3://backups/ams 1/x",
        "endpoint": server.endpoint,
        "region": REGION,
        "credentials": "file:s3.secret",
        "passphrase": "file:phrase",
        **more,
    }


# the signature -------------------------------------------------------------------------------------------------

AWS = s3.Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
HOST = "https://examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("method", "url", "headers", "payload", "signature"),
    [
        (
            "GET",
            f"{HOST}/test.txt",
            {"Range": "bytes=0-9"},
            s3.EMPTY,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            f"{HOST}/test%24file.text",
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            f"{HOST}/?lifecycle",
            {},
            s3.EMPTY,
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            f"{HOST}/?max-keys=2&prefix=J",
            {},
            s3.EMPTY,
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_the_examples_of_aws(method: str, url: str, headers: dict[str, str], payload: str, signature: str) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html"""
    at = dt.datetime(2013, 5, 24, tzinfo=dt.UTC)
    found = s3.signed(method, url, headers, payload, AWS, "us-east-1", at)
    assert found["authorization"].endswith(f"Signature={signature}")


def test_temporary_credentials_are_signed_too() -> None:
    keys = s3.Keys("a", "b", token="session")
    found = s3.signed("GET", f"{HOST}/", {}, s3.EMPTY, keys, "us-east-1", dt.datetime.now(dt.UTC))
    assert found["x-amz-security-token"] == "session"
    assert "x-amz-security-token" in found["authorization"]


# the bucket ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a", "a b/ü+$&=?/c.tar", "x" * 300])
def test_objects_go_and_come_back(bucket: s3.Bucket, server: S3, tmp_path: Path, key: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content" * 1000)
    bucket.put(key, file)
    assert server.objects == {key: file.read_bytes()}
    with bucket.get(key) as stream:
        assert stream.read() == file.read_bytes()
    assert list(bucket.list(key[:1])) == [(key, 7000)]
    bucket.delete(key)
    bucket.delete(key)
    assert server.objects == {}


def test_a_large_file_goes_in_parts(
    bucket: s3.Bucket, server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART", 1000)
    file = tmp_path / "file"
    file.write_bytes(bytes(range(250)) * 10)
    bucket.put("k", file)
    assert server.objects == {"k": file.read_bytes()}
    assert [s for s in server.seen if s.startswith("PUT")] == ["PUT k partNumber uploadId"] * 3
    server.objects.clear()
    server.seen.clear()
    server.failures = [(200, "x")]  # no upload id
    with pytest.raises(BackupError):
        bucket.put("k", file)
    server.failures = []
    put = s3.Bucket._ask

    def breaking(self: s3.Bucket, method: str, *args: object, **more: object) -> object:
        if method == "PUT" and len([s for s in server.seen if s.startswith("PUT")]) == 1:
            raise BackupError("the network is gone")
        return put(self, method, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(s3.Bucket, "_ask", breaking)
    with pytest.raises(BackupError, match="the network is gone"):
        bucket.put("k", file)
    assert (server.objects, server.uploads) == ({}, {}), "parts are left behind"


@pytest.mark.parametrize(
    ("keys", "region", "name", "words", "hint"),
    [
        (s3.Keys(ACCESS, "other"), REGION, "backups", "SignatureDoesNotMatch", "the secret"),
        (s3.Keys("other", SECRET), REGION, "backups", "InvalidAccessKeyId", "not known"),
        (KEYS, "us-east-1", "backups", "AuthorizationHeaderMalformed", "backup.region"),
        (KEYS, REGION, "other", "NoSuchBucket", "make the bucket"),
    ],
)
def test_what_is_refused_says_why(
    server: S3, tmp_path: Path, keys: s3.Keys, region: str, name: str, words: str, hint: str
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(BackupError) as raised:
        s3.Bucket(name, keys, endpoint=server.endpoint, region=region).put("k", tmp_path / "file")
    assert words in raised.value.message
    assert hint in raised.value.hint
    assert SECRET not in str(raised.value)


def test_nobody_answers(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(BackupError, match=r"127\.0\.0\.1:1"):
        s3.Bucket("backups", KEYS, endpoint="http://127.0.0.1:1").put("k", tmp_path / "file")


def test_an_answer_with_entities_is_not_read(bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><ListBucketResult>&a;</ListBucketResult>'
    import requests

    monkeypatch.setattr(requests.Response, "content", bomb)
    with pytest.raises(BackupError, match="no XML"):
        list(bucket.list(""))


# places --------------------------------------------------------------------------------------------------------


def test_only_our_own_old_ones_are_removed(tmp_path: Path) -> None:
    to = target(Backup(to=tmp_path.as_uri()), tmp_path)
    ours = [file_name("ams1", 1e9 + i) for i in range(5)]
    others = ["ams1-x.metalimmu.tar", "ams10-20010909T014640Z.metalimmu.tar", "notes.txt", file_name("ams1-b", 5.0)]
    for name in (*ours, *others):
        (tmp_path / name).write_bytes(b"")
    assert prune(to, "ams1", 2) == ours[:3]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*ours[3:], *others])
    assert prune(to, "ams1", 2) == []


@pytest.mark.parametrize("to", ["s3://", "file://relative", "ftp://x/y", "/a/path"])
def test_what_is_no_place(site: OpenSite, to: str) -> None:
    with pytest.raises(UsageError):
        target(schedule.settings(site, to=to, every=None, keep=None), site.folder)


def test_credentials_by_reference_or_from_the_environment(site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SecretError, match="no credentials"):
        target(Backup(to="s3://bucket"), site.folder)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    target(Backup(to="s3://bucket"), site.folder)


# again and again -----------------------------------------------------------------------------------------------


def test_to_s3_and_back(site: OpenSite, server: S3, capsys: pytest.CaptureFixture[str]) -> None:
    configured(site, **to_s3(server, site, keep=2))
    args = ["--site", str(site.folder)]
    site.store.update_host("node-1", image="web@2")
    for _ in range(3):
        assert run([*args, "backup", "-o", "json"]) == 0
        time.sleep(1.01)  # names are by the second
    assert len(server.objects) == 2
    assert all(re.fullmatch(r"ams 1/x/rack-\d{8}T\d{6}Z\.metalimmu\.tar", k) for k in server.objects)
    last = site.store.fact(BACKUP)
    assert last is not None
    assert max(server.objects).endswith(str(last["name"]))
    assert not list((site.state / "backup-outgoing").iterdir())
    site.store.update_host("node-1", image="web@1")
    capsys.readouterr()
    assert run([*args, "restore", "s3://backups/ams 1/x/", "--force"]) == 0
    said = capsys.readouterr().out
    assert "restored rack as of" in said
    assert "lies in" in said
    site.close()
    again = OpenSite(site.folder)
    assert again.store.host("node-1").image == "web@2"
    again.close()


def test_a_failure_is_remembered_and_tried_again(site: OpenSite, server: S3) -> None:
    configured(site, **to_s3(server, site))
    repeating = Repeating(site, threading.Event(), lambda: schedule.of_documents(site))
    server.failures = [(503, "SlowDown")]
    repeating.tick()
    failed = site.store.fact(BACKUP)
    assert failed is not None
    assert "503 SlowDown" in failed["error"]
    assert server.objects == {}
    repeating.tick()
    assert server.objects == {}, "not at once"
    repeating._not_before = 0.0
    repeating.tick()
    assert len(server.objects) == 1
    good = site.store.fact(BACKUP)
    assert good is not None
    assert "error" not in good
    assert [e.text.split(":")[0] for e in site.store.history() if e.kind == "backup"] == [
        "the backup failed",
        "backups are made again",
    ]
    repeating.tick()
    assert len(server.objects) == 1, "an hour has not passed"


def test_waits_grow_and_a_fault_ends_nothing(site: OpenSite, server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(site, **to_s3(server, site))
    stop = threading.Event()
    repeating = Repeating(site, stop, lambda: schedule.of_documents(site))
    waits = []
    for _ in range(9):
        server.failures = [(500, "InternalError")]
        repeating._not_before = 0.0
        waits.append(repeating._wait)
        repeating.tick()
    assert waits[:4] == [30.0, 60.0, 120.0, 240.0]
    assert max(waits) <= 3600.0

    def broken() -> None:
        stop.set()
        raise ValueError("a fault of ours")

    repeating._wanted = broken
    repeating.run()


def test_no_document_no_backup(site: OpenSite) -> None:
    Repeating(site, threading.Event(), lambda: schedule.of_documents(site)).tick()
    assert site.store.fact(BACKUP) is None


def test_one_at_a_time(site: OpenSite, tmp_path: Path) -> None:
    lock = WorkerLock(site.state / "backup.lock")
    assert lock.take()
    with pytest.raises(BackupError, match="makes a backup just now"):
        schedule.once(site, Backup(to=(tmp_path / "b").as_uri()), Protection(passphrase=WORDS))
    lock.release()


def test_an_older_document_of_a_passphrase(site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(schedule.PASSPHRASE, raising=False)
    with pytest.raises(UsageError):
        schedule.protection(site)
    monkeypatch.setenv(schedule.PASSPHRASE, WORDS)
    assert schedule.protection(site).passphrase == WORDS
    configured(site, to="file:///x", age="age1abc")
    assert schedule.protection(site).recipient == "age1abc"


def test_what_a_person_types(site: OpenSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--site", str(site.folder)]
    assert run([*args, "backup"]) == 2
    assert run([*args, "backup", str(tmp_path / "b.tar")]) == 2
    assert "--passphrase-ref" in capsys.readouterr().err
    phrase = tmp_path / "phrase"
    phrase.write_text(WORDS)
    phrase.chmod(0o600)
    good = ["--passphrase-ref", f"file:{phrase}"]
    assert run([*args, "backup", str(tmp_path / "b.tar"), "--to", "file:///x", *good]) == 2
    assert run([*args, "backup", str(tmp_path / "b.tar"), "--keep", "3", *good]) == 2
    assert run([*args, "backup", str(tmp_path / "b.tar"), *good]) == 0
    assert "by reference: keep the image store" in capsys.readouterr().out
    assert run([*args, "backup", "--to", (tmp_path / "many").as_uri(), "--keep", "1", *good]) == 0
    assert len(list((tmp_path / "many").iterdir())) == 1
    assert run([*args, "restore", str(tmp_path / "b.tar"), *good]) == 1
    assert "--force moves it aside" in capsys.readouterr().err
    assert run([*args, "restore", str(tmp_path / "none.tar"), *good]) == 1
    assert run([*args, "restore", str(tmp_path / "b.tar"), "--force", *good]) == 0
