"""The job as Ansible does it: `community.general.redfish_info` with forks=50, in a virtual environment of its own.

ansible-core and the collection come from PyPI (the collection is a folder of the package `ansible`; the rest of its 500 MB
is not unpacked) and are kept in the cache folder. Ansible is no dependency of anything.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from benchmarks import scan_server as server
from benchmarks.scan_job import answer, compared
from metalimmu import paths

CORE, COLLECTIONS = "2.19.14", "12.3.0"
FORKS = 50
PLAYBOOK = """\
- hosts: all
  connection: local
  gather_facts: false
  vars:
    ansible_python_interpreter: {python}
  module_defaults:
    community.general.redfish_info: &login
      baseuri: "{{{{ inventory_hostname }}}}:{port}"
      username: {user}
      password: {password}
      timeout: 60
  tasks:
    - community.general.redfish_info: {{category: Systems, command: GetBiosAttributes}}
    - community.general.redfish_info: {{category: Update, command: GetFirmwareInventory}}
"""
LINE = re.compile(r"^(127[.\d]+) \| (\w+) => (\{.*\})$", re.MULTILINE)


def environment() -> Path:
    """The folder of the virtual environment. Raises CalledProcessError where there is no PyPI."""
    folder = paths.cache() / "benchmarks" / f"ansible-{CORE}-{COLLECTIONS}"
    done = folder / "complete"
    if done.exists():
        return folder
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", f"ansible-core=={CORE}"], check=True)
    with tempfile.TemporaryDirectory() as fetched:
        subprocess.run([*pip, "download", "--no-deps", "--dest", fetched, f"ansible=={COLLECTIONS}"], check=True)
        (wheel,) = Path(fetched).glob("ansible-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            parts = [n for n in archive.namelist() if n.startswith("ansible_collections/community/general/")]
            archive.extractall(folder, parts)
    done.touch()
    return folder


def measure(port: int, count: int) -> dict[str, Any]:
    """CPU and wall seconds of reading `count` BMCs, what Ansible takes to start not counted, and the answers."""
    few = 1
    start, _ = _play(port, range(few))
    both, found = _play(port, range(count + few))
    return {
        "cpu": max(both[0] - start[0], 0.0),
        "wall": max(both[1] - start[1], 0.0),
        "answers": {str(n): a for n, a in found.items() if n < count},
    }


def _play(port: int, numbers: range) -> tuple[tuple[float, float], dict[int, str]]:
    folder = environment()
    with tempfile.TemporaryDirectory() as work:
        playbook, inventory, output = (Path(work) / n for n in ("play.yaml", "hosts.ini", "out.txt"))
        python = folder / "bin" / "python"
        text = PLAYBOOK.format(port=port, user=server.USER, password=server.PASSWORD, python=python)
        playbook.write_text(text)
        inventory.write_text("".join(f"{server.address(n)}\n" for n in numbers))
        environ = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(folder),
            "ANSIBLE_STDOUT_CALLBACK": "oneline",
            "ANSIBLE_HOME": str(Path(work) / "home"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }
        argv = [
            str(folder / "bin" / "ansible-playbook"),
            "-v",
            "-i",
            str(inventory),
            "--forks",
            str(FORKS),
            str(playbook),
        ]
        began = time.monotonic()
        with output.open("wb") as out:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environ
            )
            _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said = output.read_text(errors="replace")
        if process.returncode:
            raise RuntimeError(f"ansible-playbook ended with {process.returncode}: {said[-1500:]}")
        return (used.ru_utime + used.ru_stime, wall), _answers(said)


def _answers(said: str) -> dict[int, str]:
    attributes: dict[int, dict[str, Any]] = {}
    firmware: dict[int, dict[str, str]] = {}
    for address, _, text in LINE.findall(said):
        number, facts = server.number(address), json.loads(text)["redfish_facts"]
        if "bios_attribute" in facts:
            attributes[number] = facts["bios_attribute"]["entries"][0][1]
        else:
            firmware[number] = {e["Name"]: e["Version"] for e in facts["firmware"]["entries"]}
    return {n: answer(compared(attributes[n], firmware[n])) for n in attributes}
