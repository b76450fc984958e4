from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from metalimmu.desired import edit
from metalimmu.desired.edit import pin, remove_hold, write_hold
from metalimmu.desired.load import load
from metalimmu.desired.types import Hold
from metalimmu.errors import ImageExists, SiteError, UsageError

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def hold(host: str, image: str = "web@1", reason: str = "slow: see #12") -> Hold:
    return Hold(host=host, image=image, reason=reason, since="2026-11-03", by="me")


def site(make_site: Any) -> Path:
    hosts = "".join(f"- {{name: {n}, bmc: 'ipmi://10.0.0.{i}'}}\n" for i, n in enumerate("abc", 1))
    folder: Path = make_site({"hosts/a.yaml": hosts})
    return folder


def test_holds(make_site: Any) -> None:
    folder = site(make_site)
    write_hold(folder, hold("b"))
    write_hold(folder, hold("a", reason="2.10"))
    write_hold(folder, hold("b", "web@2"))
    assert load(folder).holds == {"a": hold("a", reason="2.10"), "b": hold("b", "web@2")}
    text = (folder / "holds.yaml").read_text()
    assert text == (
        "# Hosts kept at another image than their role says. Written by `metalimmu rollback --hold`; commit it.\n"
        "- host: a\n  image: web@1\n  reason: '2.10'\n  since: '2026-11-03'\n  by: me\n"
        "- host: b\n  image: web@2\n  reason: 'slow: see #12'\n  since: '2026-11-03'\n  by: me\n"
    )
    assert remove_hold(folder, "a") == hold("a", reason="2.10")
    assert remove_hold(folder, "a") is None
    assert load(folder).holds == {"b": hold("b", "web@2")}
    assert remove_hold(folder, "b") is not None
    assert load(folder).holds == {}
    assert remove_hold(folder, "b") is None


def test_comments_at_the_top_and_the_mode_stay(make_site: Any) -> None:
    folder = site(make_site)
    path = folder / "images.lock"
    path.write_text("# ours\n# really\nweb@1: " + ONE + "\n")
    path.chmod(0o640)
    assert pin(folder, "db@1", TWO) is True
    assert path.read_text() == f"# ours\n# really\ndb@1: {TWO}\nweb@1: {ONE}\n"
    assert path.stat().st_mode & 0o777 == 0o640


def test_pin(make_site: Any) -> None:
    folder = site(make_site)
    assert pin(folder, "web@1", ONE) is True
    before = (folder / "images.lock").stat()
    assert pin(folder, "web@1", ONE) is False
    assert (folder / "images.lock").stat().st_ino == before.st_ino
    with pytest.raises(ImageExists, match=f"pins web@1 to {ONE}"):
        pin(folder, "web@1", TWO)
    assert load(folder).lock == {"web@1": ONE}
    assert (folder / "images.lock").read_text().startswith("# name@version: digest.")


@pytest.mark.parametrize(("ref", "digest"), [("web", ONE), ("web@1", "sha256:1"), ("web@1", "1" * 64)])
def test_pin_refuses_what_load_would(ref: str, digest: str, make_site: Any) -> None:
    folder = site(make_site)
    with pytest.raises(UsageError):
        pin(folder, ref, digest)
    assert not (folder / "images.lock").exists()


def test_a_broken_file_is_not_overwritten(make_site: Any) -> None:
    folder = site(make_site)
    for name, text in (("holds.yaml", "- {host: a\n"), ("images.lock", "web@1: 5\n")):
        (folder / name).write_text(text)
    with pytest.raises(SiteError) as caught:
        write_hold(folder, hold("b"))
    assert caught.value.problems[0].startswith("holds.yaml:2: expected valid YAML")
    with pytest.raises(SiteError) as caught:
        pin(folder, "web@2", TWO)
    assert caught.value.problems[0].startswith("images.lock:1: web@1: expected a digest")
    assert (folder / "holds.yaml").read_text() == "- {host: a\n"


def test_a_failure_leaves_the_old_file(make_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = site(make_site)
    write_hold(folder, hold("a"))
    before = (folder / "holds.yaml").read_text()

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_hold(folder, hold("b"))
    assert (folder / "holds.yaml").read_text() == before
    assert sorted(p.name for p in folder.iterdir()) == ["holds.yaml", "hosts", "site.yaml"]


def test_a_link_stays_a_link(make_site: Any, tmp_path: Path) -> None:
    folder = site(make_site)
    real = tmp_path / "elsewhere.yaml"
    real.write_text("")
    (folder / "holds.yaml").symlink_to(real)
    edit.write_hold(folder, hold("a"))
    assert (folder / "holds.yaml").is_symlink()
    assert "host: a" in real.read_text()


def _pin_many(folder: Path, name: str) -> None:
    for i in range(20):
        pin(folder, f"{name}@{i}", ONE)


def test_two_processes_at_once_lose_nothing(make_site: Any) -> None:
    folder = site(make_site)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_pin_many, args=(folder, name)) for name in ("x", "y")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(load(folder).lock) == 40
