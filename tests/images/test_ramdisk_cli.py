"""`metalimmu ramdisk`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from test_ramdisk import described

from metalimmu.cli.ramdisk import ramdisk
from metalimmu.errors import NotFound, UsageError


def run(*args: object) -> str:
    done = CliRunner().invoke(ramdisk, [str(a) for a in args], catch_exceptions=True)
    if done.exception:
        raise done.exception
    return done.output


def test_list(tmp_path):
    described(tmp_path / "lab", sizes={"iso": 5, "kernel": 8 << 20})
    described(tmp_path / "generic", flavour="generic", agent_digest="0" * 64)
    rows = json.loads(run("list", "--dir", tmp_path, "-o", "json"))
    assert [(r["flavour"], r["current"]) for r in rows] == [("generic", False), ("lab", True)]
    assert rows[1]["kernel_mib"] == 8.0
    table = run("list", "--dir", tmp_path).splitlines()
    assert table[0].split()[:2] == ["FLAVOUR", "KERNEL"]
    assert len(table) == 3


def test_show_names_the_missing_firmware(tmp_path):
    described(tmp_path / "lab")
    shown = run("show", "lab", "--dir", tmp_path)
    assert "a/b.fw (c)" in shown
    assert "packages" not in shown
    assert "packages" in run("show", "lab", "--dir", tmp_path, "-o", "wide")
    assert json.loads(run("show", "lab", "--dir", tmp_path, "-o", "json"))[0]["slot_size"] == 65536


def test_show_of_none(tmp_path):
    with pytest.raises(NotFound, match="no ramdisk in"):
        run("show", "lab", "--dir", tmp_path)


def test_build_refuses_arm64(tmp_path):
    with pytest.raises(UsageError, match="arm64"):
        run("build", "--arch", "arm64", "--dir", tmp_path)


def test_without_a_site_or_a_folder_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METALIMMU_SITE", raising=False)
    with pytest.raises(UsageError, match=r"no site\.yaml"):
        run("list")
