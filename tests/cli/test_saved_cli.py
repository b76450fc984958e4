"""plan --out, approve and apply as an operator types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from saved_site import SavedSite

from metalimmu.main import run


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def fleet(tmp_path: Path, stack: ExitStack) -> SavedSite:
    return SavedSite(tmp_path, stack, 2)


class Typed:
    def __init__(self, fleet: SavedSite, capsys: pytest.CaptureFixture[str]) -> None:
        self.fleet = fleet
        self.capsys = capsys

    def __call__(self, *words: object, status: int = 0) -> str:
        """What was printed, standard output then standard error."""
        self.capsys.readouterr()
        got = run([*map(str, words), "--site", str(self.fleet.rack.site)])
        said = self.capsys.readouterr()
        assert got == status, said
        return said.out + said.err

    def alone(self, *words: object) -> str:
        """In a process of its own: it becomes the worker."""
        argv = [sys.executable, "-m", "metalimmu", *map(str, words), "--site", str(self.fleet.rack.site)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done
        return done.stdout


@pytest.fixture
def typed(fleet: SavedSite, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(fleet, capsys)


def test_from_plan_to_proof(typed: Typed) -> None:
    fleet = typed.fleet
    fleet.power_up()
    said = typed("plan", "-l", "pool=web", "--out", fleet.file, "--reason", "the new version")
    assert "2 hosts in 2 waves" in said
    assert f"written: {fleet.file}, valid until" in said
    assert f"`metalimmu apply {fleet.file}` carries it out" in said
    digest = next(line for line in said.splitlines() if line.startswith("sha256:"))
    assert digest in typed("plan", "--file", fleet.file)
    said = typed("apply", fleet.file, "--check")
    assert "everything is as it was planned" in said
    said = typed("apply", fleet.file, "--confirm", 3, status=1)
    assert "2 hosts will be erased, and --confirm says 3" in said
    said = typed.alone("apply", fleet.file, "--confirm", 2)
    assert "rollout o-" in said
    assert [fleet.site.store.host(n).proof for n in fleet.rack.names] == ["proven", "proven"]
    said = typed("apply", fleet.file, "--confirm", 2, status=1)
    assert "was applied at" in said
    assert "a plan is carried out once" in said


def test_one_host_and_yes(tmp_path: Path, stack: ExitStack, capsys: pytest.CaptureFixture[str]) -> None:
    typed = Typed(SavedSite(tmp_path, stack, 1), capsys)
    typed.fleet.power_up()
    typed("plan", "node-1", "--out", typed.fleet.file)
    said = typed.alone("apply", typed.fleet.file, "--yes")
    assert "run r-" in said
    assert typed.fleet.site.store.host("node-1").proof == "proven"


def test_the_question_is_the_number_of_hosts(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    typed("plan", "-l", "pool=web", "--out", typed.fleet.file)
    monkeypatch.setattr(click, "prompt", lambda *_a, **_k: "yes")
    assert "nothing was changed" in typed("apply", typed.fleet.file, status=1)
    assert typed.fleet.site.store.rollouts.find() == []


def test_differences_are_said_line_by_line(typed: Typed) -> None:
    typed("plan", "-l", "pool=web", "--out", typed.fleet.file)
    typed.fleet.machine("node-1", serial="S9999")
    typed.fleet.machine("node-2", power="Off")
    said = typed("apply", typed.fleet.file, "--yes", status=1)
    assert "no longer fits 2 of 2 hosts: nothing was done" in said
    assert "  node-1: identity.serial: planned S0001, now S9999\n" in said
    assert "  node-2: steps.power.requests: planned POST" in said


def test_approve(typed: Typed) -> None:
    fleet = typed.fleet
    fleet.rack.write("pools/web.yaml", {"approvals": 1})
    said = typed("reimage", "node-1", "--yes", status=1)
    assert "pool web wants a saved plan, signed by its author and 1 other" in said
    assert "metalimmu approve FILE" in said
    said = typed("plan", "-l", "pool=web", "--out", fleet.file, "--key", fleet.keys["alice"])
    assert "1 missing: `metalimmu approve" in said
    said = typed("apply", fleet.file, "--yes", status=1)
    assert "it was signed by alice@example.org" in said
    said = typed("approve", fleet.file, "--key", fleet.keys["alice"], "--yes")
    assert "you have signed this plan before" in said
    said = typed("approve", fleet.file, "--key", fleet.keys["bob"], "--yes")
    assert "signed by bob@example.org" in said
    assert "it has all signatures that pool web wants" in said
    assert "signed by alice@example.org, bob@example.org" in typed("apply", fleet.file, "--check")


def test_a_plan_whose_author_has_not_signed(typed: Typed) -> None:
    fleet = typed.fleet
    fleet.rack.write("pools/web.yaml", {"approvals": 1})
    said = typed("plan", "-l", "pool=web", "--out", fleet.file)
    assert "2 missing, its author's among them" in said
    typed("approve", fleet.file, "--key", fleet.keys["bob"], "--yes")
    said = typed("apply", fleet.file, "--yes", status=1)
    assert "who made it, has not signed" in said


def test_approve_asks_and_shows_what_is_signed(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    typed("plan", "-l", "pool=web", "--out", typed.fleet.file)
    asked: list[str] = []

    def no(text: str, **_more: Any) -> bool:
        asked.append(text)
        raise click.Abort

    monkeypatch.setattr(click, "confirm", no)
    said = typed("approve", typed.fleet.file, "--key", typed.fleet.keys["bob"], status=1)
    assert "web@1  sha256:" in said
    assert "node-2" in said
    assert asked[0].startswith("\nSign sha256:")
    assert not typed.fleet.file.with_name("fleet.plan.approvals").exists()


def test_a_stranger_a_broken_file_an_old_plan(typed: Typed, tmp_path: Path) -> None:
    from signing import key

    typed("plan", "-l", "pool=web", "--out", typed.fleet.file, "--expires", "1m")
    said = typed("approve", typed.fleet.file, "--key", key(tmp_path / "keys", "mallory"), "--yes", status=1)
    assert "this signature would not count" in said
    data = typed.fleet.file.read_text()
    typed.fleet.file.write_text(data.replace('"reimage"', '"rollback"'))
    for command in ("apply", "approve"):
        assert "was changed after it was made" in typed(command, typed.fleet.file, status=1)
    typed.fleet.file.write_text(data[:-100])
    assert "cut off" in typed("apply", typed.fleet.file, status=1)
    assert "no plan" in typed("apply", tmp_path / "nothing", status=1)


def test_a_saved_plan_is_read_without_asking_anybody(typed: Typed) -> None:
    fleet = typed.fleet
    typed("plan", "-l", "pool=web", "--out", fleet.file)
    for name in fleet.rack.names:
        fleet.rack.state(name).unlink()
    assert "node-1" in typed("plan", "--file", fleet.file, "-o", "name")
    said = typed("plan", "--file", fleet.file, "node-2")
    assert "reimage node-2" in said
    assert "InsertMedia" in said
    [row] = json.loads(typed("plan", "--file", fleet.file, "node-2", "-o", "json"))
    assert row["host"] == "node-2"
    rows = json.loads(typed("plan", "--file", fleet.file, "-o", "json"))
    assert [r["host"] for r in rows] == ["node-1", "node-2"]
    assert "has no host node-9" in typed("plan", "--file", fleet.file, "node-9", status=2)


def test_from_memory(typed: Typed) -> None:
    fleet = typed.fleet
    assert "was never looked at" in typed("plan", "-l", "pool=web", "--from-memory")
    typed("plan", "-l", "pool=web")
    for name in fleet.rack.names:
        fleet.rack.state(name).unlink()
    assert "2 hosts in 2 waves" in typed("plan", "-l", "pool=web", "--from-memory")
    assert "from memory: node-1 was looked at 20" in typed("plan", "node-1", "--from-memory")
    said = typed("plan", "-l", "pool=web", "--from-memory", "--out", fleet.file)
    assert "from memory: the oldest look is of 20" in said
    assert "`apply` looks at every host again" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--auto-rollback",), "--auto-rollback says something of a saved plan"),
        (("--expires", "1h"), "--expires says something"),
        (("--out", "x", "--expires", "soon"), "'soon' is no time above 0"),
        (("--out", "x", "--expires", "0s"), "'0s' is no time above 0"),
        (("--out", "x", "--key", "nowhere"), "no key nowhere"),
    ],
)
def test_options_that_mean_nothing(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in typed("plan", "node-1", *words, status=2)
    assert not (tmp_path / "x").exists()


def test_a_rollback_is_planned_too(typed: Typed) -> None:
    fleet = typed.fleet
    fleet.power_up()
    for ref in ("web@1", "web@2"):
        typed.alone("reimage", "node-1", "--yes", "--image", ref)
    said = typed("plan", "node-1", "--rollback", "--out", fleet.file)
    assert "rollback in rack" in said
    typed.alone("apply", fleet.file, "--yes")
    assert fleet.site.store.host("node-1").image == "web@1"


def test_refused_hosts(typed: Typed) -> None:
    fleet = typed.fleet
    fleet.edit("hosts/rack.yaml", "serial: S0002", "serial: S0002\n  protected: true")
    said = typed("plan", "-l", "pool=web", "--out", fleet.file, status=1)
    assert "node-2 is protected" in said
    assert "--skip-refused" in said
    said = typed("plan", "-l", "pool=web", "--out", fleet.file, "--skip-refused")
    assert "REFUSED: is protected" in said
    assert "1 hosts in 1 waves" in said
