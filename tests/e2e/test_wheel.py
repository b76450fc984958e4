"""The wheel, installed alone elsewhere, starts a lab and reimages a machine: no checkout, no PYTHONPATH, another working directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import metalimmu
from metalimmu import paths
from metalimmu.cli.lab import artifacts

pytestmark = pytest.mark.e2e

CHECKOUT = Path(metalimmu.__file__).parent.parent


def run(*command: object, env: dict[str, str] | None = None, cwd: Path | None = None, seconds: float = 400) -> str:
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env=env,
        cwd=cwd or Path("/"),
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}:\n{said}"
    return said


def locked(folder: Path) -> Path:
    """The lock as constraints. Without its hashes: with them pip wants one of our own wheel too."""
    pins = re.findall(
        r"^[a-zA-Z0-9][^\s;]*==[^\s;\\]+(?: ;[^\\\n]*)?", (CHECKOUT / "requirements.lock").read_text(), re.MULTILINE
    )
    assert len(pins) > 30, pins
    path = folder / "constraints.txt"
    path.write_text("\n".join(pins) + "\n")
    return path


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Nothing of the checkout's: no PYTHONPATH, no virtual environment."""
    return {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "METALIMMU", "XDG", "COV"))
    }


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """`metalimmu` of a fresh virtual environment with the wheel and its extra `lab`."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "wheel", "--no-deps", "-w", folder, CHECKOUT, env=environment)
    (wheel,) = folder.glob("metalimmu-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", env=environment)
    python = folder / "venv" / "bin" / "python"
    run(
        *pip, "--python", python, "install", "-c", locked(folder), f"metalimmu[lab] @ {wheel.as_uri()}", env=environment
    )
    return folder / "venv" / "bin" / "metalimmu"


def test_the_wheel_alone_runs_a_lab_and_a_reimage(
    program: Path, environment: dict[str, str], artefacts, tmp_path: Path
) -> None:
    env = environment | {"XDG_STATE_HOME": str(tmp_path / "state"), "METALIMMU_CACHE": str(tmp_path / "cache")}
    # What the checkout has built is current for the wheel too: it carries the same ramdisk scripts and agent.
    cache = tmp_path / "cache" / artifacts()[0].parent.relative_to(paths.cache())
    cache.mkdir(parents=True)
    (cache / "images").symlink_to(artefacts.images)
    (cache / "ramdisk").symlink_to(artefacts.ramdisks)

    assert metalimmu.__version__ in run(program, "--version", env=env)
    where = run(
        program.parent / "python",
        "-c",
        "import metalimmu, metalimmu_emulator as e; print(metalimmu.__file__, e.__file__)",
        env=env,
    )
    assert where.count(str(program.parent.parent)) == 2, where
    run(program, "init", tmp_path / "site", env=env)
    run(program, "--site", tmp_path / "site", "check", env=env)

    said = run(program, "lab", "up", "--firmware", "bios", "--memory", "512", "--name", "wheel", env=env)
    try:
        assert "building" not in said
        site = tmp_path / "state" / "metalimmu" / "lab" / "wheel" / "site"
        assert f"metalimmu --site {site} reimage node-1" in said
        assert "tiny@1: proven" in run(program, "--site", site, "reimage", "node-1", "--yes", env=env)
    finally:
        run(program, "lab", "down", "--name", "wheel", env=env)
    assert not site.parent.exists()
