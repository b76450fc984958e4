"""`metalimmu lab`: what a person types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from metalimmu.cli import lab as command
from metalimmu.errors import LabError, NotFound, UsageError
from metalimmu_emulator import console
from metalimmu_emulator.lab import Lab

pytestmark = pytest.mark.emulator


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("METALIMMU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "ensure_artifacts", lambda *_: None)  # minutes of downloads; tested below

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(command.lab, arguments)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    yield invoke
    for folder in (tmp_path / "state" / "metalimmu" / "lab").glob("*/lab.json"):
        Lab(folder.parent).down()


def test_up_status_console_down(run, tmp_path: Path) -> None:
    said = run("up", "--servers", "2", "--firmware", "bios", "--name", "mine", "--memory", "256").output
    site = tmp_path / "state" / "metalimmu" / "lab" / "mine" / "site"
    assert f"metalimmu --site {site} reimage node-1" in said
    assert (site / "site.yaml").is_file()
    rows = json.loads(run("status", "--name", "mine", "-o", "json").output)
    assert [(r["name"], r["power"]) for r in rows] == [("node-1", "Off"), ("node-2", "Off")]
    assert run("console", "node-1", "--name", "mine").output == "", "never powered on"
    Lab(site.parent).console("node-1").write_bytes(b"\x1b[2J\x1b[01;01HGRUB\r\nwelcome\x1b[0m\n")
    assert run("console", "node-1", "--name", "mine").output == "GRUB\nwelcome\n"
    with pytest.raises(NotFound, match="no server node-7"):
        run("console", "node-7", "--name", "mine")
    assert "lab mine is gone" in run("down", "--name", "mine").output
    assert not site.parent.exists()
    with pytest.raises(NotFound, match="there is no lab"):
        run("status", "--name", "mine")


def test_status_says_when_the_supervisor_has_died(run, tmp_path: Path) -> None:
    from metalimmu_emulator.processes import end

    run("up", "--firmware", "bios")
    process = Lab(tmp_path / "state" / "metalimmu" / "lab" / "default").supervisor()
    assert process
    end(process, grace=10)
    with pytest.raises(LabError, match="supervisor has died"):
        run("status")


def test_a_name_cannot_leave_its_folder(run) -> None:
    with pytest.raises(UsageError, match="no lab name"):
        run("down", "--name", "../../etc")


class Built:
    """Stands in for the builders: notes what was asked for, and has it from then on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from metalimmu.images import build, catalogue, ramdisk

        self.asked: list[tuple[str, ...]] = []
        self.images: set[str] = set()
        self.current: bool | None = None  # None: no ramdisk
        monkeypatch.setattr(ramdisk, "load", self.load)
        monkeypatch.setattr(ramdisk, "build", self.ramdisk)
        monkeypatch.setattr(build, "build", self.image)
        monkeypatch.setattr(catalogue.Catalogue, "get", lambda _, ref: self.get(ref))

    def load(self, folder: Path) -> SimpleNamespace:
        if self.current is None:
            raise NotFound(f"no ramdisk in {folder}")
        return SimpleNamespace(current=self.current)

    def ramdisk(self, flavour: str, _out: Path, *, mirror: str | None) -> None:
        self.asked.append((flavour, str(mirror)))
        self.current = True

    def image(self, recipe: str, ref: str, _catalogue: object, *, base: str | None, mirror: str | None) -> None:
        self.asked.append((recipe, ref, str(base), str(mirror)))
        self.images.add(ref)

    def get(self, ref: str) -> None:
        if ref not in self.images:
            raise NotFound(ref)


def test_ramdisk_and_images_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(monkeypatch)
    made = lambda: command.ensure_artifacts(tmp_path / "images", tmp_path / "ramdisk", "lab", "http://mirror")  # noqa: E731
    made()
    images = [("tiny", "tiny@1", "None", "http://mirror"), ("tiny", "tiny@2", "tiny@1", "http://mirror")]
    assert built.asked == [("lab", "http://mirror"), *images]
    built.asked.clear()
    made()
    assert built.asked == []
    built.current = False  # the agent has changed
    built.images.remove("tiny@2")
    made()
    assert built.asked == [("lab", "http://mirror"), images[1]]


def test_a_console_is_followed_until_its_lab_goes(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(b"one\r\n\x1b[")
    lines = console.read(path, follow=True, poll=0.01)
    assert next(lines) == "one\n"
    with path.open("ab") as file:
        file.write(b"32mtwo\n")
    assert next(lines) == "two\n", "a code cut in two is still a code"
    path.unlink()
    assert list(lines) == []
