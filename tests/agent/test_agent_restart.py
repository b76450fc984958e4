"""The agent as a process: killed in mid-write and started again; and what it may import."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from agent_rig import TOKEN, put, until
from test_agent_run import check_disk

import metalimmu
from metalimmu.wire import codec

REPO = Path(metalimmu.__file__).resolve().parent.parent


@pytest.fixture
def process(fake, root, tmp_path):
    """Starts `python -m metalimmu.agent` on the fake machine."""
    boot = tmp_path / "run/boot.json"
    put(boot, codec.encode(fake.boot))
    running: list[subprocess.Popen] = []

    def start() -> subprocess.Popen:
        args = [sys.executable, "-m", "metalimmu.agent", "--boot", str(boot), "--root", str(root.root)]
        running.append(subprocess.Popen(args, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return running[-1]

    yield start
    for p in running:
        p.kill()
        p.wait(10)
        p.stdout.close()


@pytest.mark.parametrize("restart", ["machine", "process"])
def test_killed_in_mid_write_and_started_again(fake, disk, process, tmp_path, restart):
    fake.slow = 0.2
    first = process()
    until(lambda: sum(fake.asked.values()) > 6, 30)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    assert not any(disk.read_bytes()[:512]), "a half-written disk does not boot"
    fetched = sum(fake.asked.values())
    fake.slow = 0
    if restart == "machine":  # the controller has seen progress, so it names this image as what the disk holds
        fake.assignment = replace(fake.assignment, previous_digest=fake.image.digest, fence=8)
        (tmp_path / "run/begun").unlink()
    second = process()
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output
    check_disk(fake, disk)
    report = fake.reports[0]
    assert report.kept_chunks >= fetched - 4
    assert report.kept_chunks > 0
    assert report.resumed == 1
    assert report.fetched_chunks + report.kept_chunks <= len(fake.image.manifest.chunks)
    assert TOKEN not in output
    assert "go: restarting" in output


def test_killed_while_it_waits_for_go_and_started_again(fake, disk, process):
    fake.orders = lambda p: fake.give_orders(None)
    first = process()
    until(lambda: fake.reports, 60)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    state = disk.read_bytes()
    fake.orders = None
    fake.assignment = replace(fake.assignment, stage="wait")
    second = process()
    second.communicate(timeout=60)
    assert second.returncode == 0
    assert disk.read_bytes() == state
    assert len(fake.reports) == 1


def test_the_newest_fence_outlives_the_process(fake, disk, process, tmp_path):
    process().communicate(timeout=60)
    assert (tmp_path / "run/fence").read_text() == "7"
    fake.assignment = replace(fake.assignment, fence=5)
    older = process()
    until(lambda: len(fake.check_ins) > 1, 30)
    assert fake.check_ins[-1].fence == 7
    assert "fence 5 ignored" in older.stdout.readline()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "usage:"),
        (["--boot"], 2, "usage:"),
        (["--boot", "x", "--evil", "y"], 2, "usage:"),
        (["--boot", "/nonexistent/boot.json"], 1, "not made for a machine"),
    ],
)
def test_wrong_arguments(arguments, status, words):
    args = [sys.executable, "-m", "metalimmu.agent", *arguments]
    done = subprocess.run(args, cwd=REPO, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert words in done.stdout + done.stderr


ALONE = """
import sys, types
sys.path.insert(0, sys.argv[1])
class NoMore:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top == "metalimmu" and (name == top or name.split(".")[1] in ("agent", "wire", "errors")):
            return None
        if top in sys.stdlib_module_names:
            return None
        raise ImportError(f"the agent imports {name}")
sys.meta_path.insert(0, NoMore())
import importlib, pkgutil, metalimmu.agent
for module in pkgutil.iter_modules(metalimmu.agent.__path__):
    importlib.import_module(f"metalimmu.agent.{module.name}")
print(len([m for m in sys.modules if m.startswith("metalimmu.agent.")]))
"""


def test_every_module_loads_without_site_packages():
    """The ramdisk has Debian's Python, python3-zstandard, and of metalimmu only agent, wire and errors."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, str(REPO)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(list((REPO / "metalimmu/agent").glob("*.py"))) - 1


def test_the_only_import_from_outside_is_zstandard():
    found = set()
    for file in (REPO / "metalimmu/agent").glob("*.py"):
        for line in file.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                found.add(words[1].partition(".")[0])
    assert found - set(sys.stdlib_module_names) == {"metalimmu", "zstandard"}
