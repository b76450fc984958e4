"""The benchmarks run, quick and small: what they say about speed is not asked here, that they still work is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from benchmarks.__main__ import MODULES  # noqa: E402
from benchmarks.vm_clock import BARE_FAILED  # noqa: E402
from benchmarks.vm_rig import BARE_SAID  # noqa: E402


@pytest.mark.parametrize(
    "name",
    [
        "cli_start",
        "site_load",
        "fakes_100",
        "image_store",
        "agent_write",
        "scan_cpu",
        "scan_fleet",
        "boot_scripts",
        "boot_fanout",
    ],
)
def test_a_cheap_benchmark_works_and_both_sides_agree(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--quick", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = (json.loads(p.read_text()) for p in tmp_path.glob("*.json"))
    assert report["quick"]
    assert not report["broken"]
    assert report["results"]
    for result in report["results"]:
        assert result["name"] in done.stdout
        assert result["equal"] is not False
        assert all(value >= 0 for value in result["ours"])
    assert any(result["equal"] is True for result in report["results"])


def test_every_module_with_a_benchmark_is_run() -> None:
    written = {p.stem for p in (ROOT / "benchmarks").glob("*.py") if "\ndef run() -> list[Result]:" in p.read_text()}
    assert sorted(written) == sorted(MODULES)


def test_an_unknown_benchmark_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "vm_nothing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "vm_nothing" in done.stderr
    assert "fakes_100" in done.stderr


def test_the_bare_script_is_a_shell_script_that_says_what_is_read() -> None:
    script = ROOT / "benchmarks" / "bare-init"
    subprocess.run([shutil.which("sh") or "/bin/sh", "-n", script], check=True, timeout=30)
    text = script.read_text()
    (line,) = (row.strip() for row in text.splitlines() if row.strip().startswith('say "begun'))
    shown = line.removeprefix('say "').rstrip('"').replace("$begun", "1.5").replace("$written", "20.25")
    shown = "bare: " + shown.replace("$read", "31.0").replace("$seen", "a" * 64)
    found = BARE_SAID.search(shown.encode())
    assert found
    assert [float(found[i]) for i in (1, 2, 3)] == [1.5, 20.25, 31.0]
    assert BARE_FAILED in b"bare: " + text.split('fail() { say "', 1)[1].encode()
