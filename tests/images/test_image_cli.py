from __future__ import annotations

import json
from pathlib import Path

import pytest
from image_files import disk

from metalimmu.main import run


@pytest.fixture
def store(tmp_path: Path) -> list[str]:
    return ["--images", str(tmp_path / "store")]


def _json(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_the_life_of_an_image(tmp_path: Path, store: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    one, two = disk(tmp_path / "one", "xy.z"), disk(tmp_path / "two", "xw.z")
    assert run(["image", "add", str(one), "web@1", *store]) == 0
    assert run(["image", "add", str(two), "web@2", *store]) == 0
    capsys.readouterr()
    assert run(["image", "list", "-o", "name", *store]) == 0
    assert capsys.readouterr().out.split() == ["web@1", "web@2"]
    assert run(["image", "list", "-o", "json", *store]) == 0
    listed = _json(capsys)
    assert [i["size"] for i in listed] == [one.stat().st_size, two.stat().st_size]
    assert all(len(str(i["digest"])) == len("sha256:") + 64 for i in listed), "programs need all of it"
    assert run(["image", "list", *store]) == 0
    assert "MiB" in capsys.readouterr().out
    assert run(["image", "diff", "web@1", "web@2", "-o", "json", *store]) == 0
    found = _json(capsys)[0]
    assert (found["changed_chunks"], found["fetch_chunks"], found["same_chunks"]) == (1, 1, 3)
    assert run(["image", "verify", *store]) == 0
    assert "2 images are whole: 4 chunks" in capsys.readouterr().out
    assert run(["image", "revoke", "web@1", "--reason", "CVE-2026-1", *store]) == 0
    capsys.readouterr()
    assert run(["image", "show", "web@1", "-o", "json", *store]) == 0
    shown = json.loads(capsys.readouterr().out)[0]
    assert shown["revoked"] == "CVE-2026-1"
    assert shown["provenance"]["source"] == {"file": "one", "format": "raw"}
    assert run(["image", "rm", "web@1", *store]) == 0
    assert run(["image", "gc", "--dry-run", *store]) == 0
    assert run(["image", "gc", *store]) == 0
    said = capsys.readouterr().out
    assert "would free 1 chunks" in said
    assert "freed 1 chunks" in said
    assert run(["image", "show", "web@2", *store]) == 0
    assert "web@2" in capsys.readouterr().out


def test_other_content_is_refused_and_the_same_is_not(
    tmp_path: Path, store: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["image", "add", str(disk(tmp_path / "one", "x")), "web@1", *store]) == 0
    assert run(["image", "add", str(tmp_path / "one"), "web@1", *store]) == 0
    assert run(["image", "add", str(disk(tmp_path / "two", "y")), "web@1", *store]) == 1
    said = capsys.readouterr().err
    assert "web@1 exists with sha256:" in said
    assert "new version" in said


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["add", "/nowhere/disk.raw", "web@1"], 1, "is no file"),
        (["show", "web@1"], 2, "no image web@1"),
        (["show", "../x@1"], 2, "no image reference"),
        (["verify", "web@9"], 2, "no image web@9"),
        (["build", "fedora", "--as", "x@1"], 2, "no recipe fedora"),
        (["build", "tiny"], 2, "no name and version"),
        (["build", "tiny", "--as", "x@1", "--base", "none@1"], 2, "no image none@1"),
        (["build", "tiny", "--as", "x@1", "--size", "huge"], 2, "size"),
    ],
)
def test_mistakes_say_what_to_do(
    store: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert run(["image", *arguments, *store]) == status
    said = capsys.readouterr().err
    assert message in said
    assert "hint:" in said


def test_without_a_store_a_site_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["image", "list"]) == 2
    assert "site.yaml" in capsys.readouterr().err


def test_what_the_site_needs_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "site"
    assert run(["init", str(site)]) == 0
    at = ["--site", str(site)]
    assert run(["image", "add", str(disk(tmp_path / "one", "x")), "web@1", *at]) == 0
    for path in (site / "roles").glob("*.yaml"):
        path.unlink()
    for path in (site / "hosts").glob("*"):
        path.unlink()
    (site / "roles" / "web.yaml").write_text("image: web@1\n")
    capsys.readouterr()
    assert run(["image", "rm", "web@1", *at]) == 1
    assert "role web wants it" in capsys.readouterr().err
    assert run(["image", "show", "web@1", *at]) == 0
    assert "role web wants it" in capsys.readouterr().out
    assert run(["image", "revoke", "web@1", "--reason", "old", *at]) == 0
    assert "role web wants it" in capsys.readouterr().out
    (site / "roles" / "web.yaml").unlink()
    assert run(["image", "rm", "web@1", *at]) == 0
