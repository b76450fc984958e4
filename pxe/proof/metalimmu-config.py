#!/usr/bin/python3
"""Fetch a newer run-time config from the controller, apply it, and prove it; or go back to the one before.

Part of images that metalimmu builds, beside metalimmu-proof.py, whose functions it uses. systemd starts it when the
controller has answered a report that there is a newer config, and at each boot, in case the machine stopped in the middle.

1. Fetch it over the pinned TLS, signed for with the machine's own key; take nothing that is older than what is applied.
2. Remember the files of now, then write the new ones to the seed: the next boot finds them too.
3. Apply: the role's command, in the folder of the new files, or else cloud-init once more.
4. Report the digest over the seed's files. A machine that cannot reach its controller any more after the change, or whose
   command fails, gets its old files back, applies those, and says why.

Exit status 0 unless something was fetched and not applied.
"""

import base64
import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE_LIMIT = 16 << 20  # bytes
CONFIRM = 180.0  # seconds in which the controller must be reached after the change
TAIL = 1500  # characters of a command's output that are told
BUSY = 10  # times that a seed is tried which is just being read
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
BROKEN = (OSError, http.client.HTTPException, ValueError)

# https://docs.cloud-init.io/en/22.4.2/howto/rerun_cloud_init.html. The instance stays the same, and keeps its SSH host
# keys (ssh_deletekeys is off in these images).
CLOUD_INIT = (
    ("cloud-init", "clean"),
    ("cloud-init", "init", "--local"),
    ("netplan", "apply"),
    ("cloud-init", "init"),
    ("cloud-init", "modules", "--mode=config"),
    ("cloud-init", "modules", "--mode=final"),
)


def _proof() -> Any:
    sys.dont_write_bytecode = True  # an image stays as it was built
    spec = importlib.util.spec_from_file_location("metalimmu_proof", Path(__file__).with_name("metalimmu-proof.py"))
    if spec is None or spec.loader is None:
        raise ImportError("metalimmu-proof.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


proof = _proof()


def say(text: str) -> None:
    print(f"metalimmu-config: {text}", flush=True)


class NotApplied(Exception):
    """Why; for the controller too."""


class Memory:
    """What outlives a reboot, for root alone: the serial that is applied, the files before a change, the last failure."""

    def __init__(self, root: Path) -> None:
        self.folder = root / proof.STATE

    def read(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / name).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Whole or not at all, also when the power goes."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = self.folder / f".{name}"
        scratch.unlink(missing_ok=True)
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(value, out)
            out.flush()
            os.fsync(out.fileno())
        scratch.rename(self.folder / name)
        _sync(self.folder)

    def forget(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    @property
    def applied(self) -> int:
        serial = self.read("applied.json").get("serial")
        return serial if isinstance(serial, int) else 0


class Unit:
    """`root` and `work` (private, in memory, gone afterwards) are handed in by tests; so is `confirm`, in seconds."""

    def __init__(self, root: Path, work: Path, *, confirm: float = CONFIRM) -> None:
        self.root, self.work, self.confirm = root, work, confirm
        self.memory = Memory(root)
        self.hidden: list[str] = []  # secrets of the package

    def run(self, *, wanted: bool) -> int:
        undo = self.memory.read("undo.json")
        if undo and undo["serial"] == self.memory.applied:
            self.memory.forget("undo.json")
        elif undo:
            self.go_back(undo, "the machine stopped before the new config was proven")
        if not wanted:
            return 0
        settings = proof.find_settings(self.root)
        try:
            said = proof.post(settings, self.report(settings))
        except BROKEN as exc:
            say(f"the controller does not answer: {exc}")
            return 0  # metalimmu-proof asks for us again
        offer = said.get("config")
        if not isinstance(offer, dict) or not isinstance(offer.get("serial"), int):
            return 0
        return self.take(settings, offer["serial"])

    def report(self, settings: dict[str, str]) -> dict[str, object]:
        found: dict[str, object] = proof.system_report(
            self.root, settings.get("config_digest", ""), proof.public_key(self.root)
        )
        return found

    def take(self, settings: dict[str, str], serial: int) -> int:
        if serial <= self.memory.applied:
            why = f"config {serial} is not newer than {self.memory.applied}, which is applied: push it again"
            return self.failed(serial, why)
        try:
            package = self.fetch(settings, serial)
        except BROKEN as exc:
            say(f"config {serial} was not fetched: {exc}")
            return 1
        except NotApplied as exc:
            return self.failed(serial, str(exc))
        before = self.seed()
        undo = {"serial": serial, "files": _packed(before), "apply": package["apply"], "limit": package["limit"]}
        self.memory.write("undo.json", undo)
        try:
            self.write_seed(package["content"])
            self.apply(package["content"], package["apply"], package["limit"], serial)
            self.proven()
        except (NotApplied, OSError, subprocess.SubprocessError) as exc:
            return self.go_back(undo, self.masked(str(exc)))
        self.memory.write("applied.json", {"serial": serial})
        self.memory.forget("failed.json")
        self.memory.forget("undo.json")
        say(f"config {serial} is applied, digest {package['digest']}")
        return 0

    def fetch(self, settings: dict[str, str], serial: int) -> dict[str, Any]:
        """Checked. Raises what BROKEN lists, NotApplied."""
        said = {"serial": serial, "signature": self.signature(f"metalimmu config {serial}\n".encode())}
        got = proof.ask(settings, "/v1/system/config", said, PACKAGE_LIMIT)
        if not isinstance(got, dict) or got.get("serial") != serial:
            raise ValueError("the answer is no config")
        try:
            content = {str(f["path"]): str(f["content"]).encode() for f in got["files"]}
            apply = [str(word) for word in got["apply"]]
            limit = float(got["limit"])
            self.hidden = [str(s) for s in got.get("secrets", ())]
            digest = str(got["digest"])
        except (KeyError, TypeError, ValueError) as exc:
            raise NotApplied(f"the config cannot be read: {type(exc).__name__}") from None
        names = {name.lower() for name in content}  # FAT does not tell Name from name
        if len(names) != len(got["files"]) or not all(NAME.match(name) for name in content):
            raise NotApplied("the config has unusable file names")
        if proof.digest({k: v for k, v in content.items() if k != proof.SETTINGS}) != digest:
            raise NotApplied("the config does not have the digest that it came with")
        if proof.SETTINGS not in content:
            raise NotApplied("the config does not say where the controller is")
        return {"content": content, "apply": apply, "limit": limit, "digest": digest}

    def signature(self, claim: bytes) -> str:
        path = self.work / "claim"
        path.write_bytes(claim)
        key = str(self.root / proof.STATE / "host.key")
        try:
            signed = proof.openssl("pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", str(path))
        except subprocess.SubprocessError as exc:
            raise ValueError(f"openssl does not sign: {exc}") from exc
        return base64.b64encode(signed).decode()

    # the seed

    @contextlib.contextmanager
    def mounted(self, mode: str) -> Iterator[Path]:
        """Raises NotApplied."""
        device = proof.seed_device(self.root)
        if not device:
            raise NotApplied("the seed is gone")
        place = self.work / "seed"
        place.mkdir(exist_ok=True)
        command = ["mount", "-t", "vfat", "-o", f"{mode},nosuid,nodev,noexec", device, str(place)]
        for n in range(BUSY):
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode == 0:
                break
            if n + 1 == BUSY:
                raise NotApplied(f"the seed cannot be mounted: {done.stderr.strip()}")
            time.sleep(1)  # metalimmu-proof reads it just now
        try:
            yield place
        finally:
            subprocess.run(["umount", str(place)], check=False, capture_output=True, timeout=60)

    def seed(self) -> dict[str, bytes]:
        with self.mounted("ro") as folder:
            return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}

    def write_seed(self, content: dict[str, bytes]) -> None:
        """File by file under another name first; metalimmu.json, which says that the rest is there, last."""
        with self.mounted("rw") as folder:
            for name in sorted(content, key=lambda n: (n == proof.SETTINGS, n)):
                scratch = folder / "new.tmp"
                with scratch.open("wb") as out:
                    out.write(content[name])
                    out.flush()
                    os.fsync(out.fileno())
                scratch.replace(folder / name)
            for path in list(folder.iterdir()):
                if path.is_file() and path.name not in content:
                    path.unlink()
            _sync(folder)

    # the change

    def apply(self, content: dict[str, bytes], command: list[str], limit: float, serial: int) -> None:
        """Raises NotApplied."""
        folder = self.work / "files"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        for name, data in content.items():
            if name != proof.SETTINGS:
                (folder / name).write_bytes(data)
        deadline = time.monotonic() + limit
        if command:
            self.call(command, folder, deadline, serial)
            return
        if shutil.which("cloud-init") is None:
            raise NotApplied("there is no cloud-init here, and the role has no `apply:`")
        for step in CLOUD_INIT:
            if shutil.which(step[0]) is not None:
                self.call(list(step), folder, deadline, serial)

    def call(self, command: list[str], folder: Path, deadline: float, serial: int) -> None:
        own = {"METALIMMU_CONFIG": str(folder), "METALIMMU_CONFIG_SERIAL": str(serial)}
        env = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "HOME": "/root",
            "LANG": "C.UTF-8",
            **own,
        }
        output = self.work / "output"
        with output.open("wb") as out:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            except OSError as exc:
                raise NotApplied(f"{command[0]}: {exc.strerror or exc}") from exc
            try:
                status = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise NotApplied(f"{' '.join(command)} was not done in time{self.told(output)}") from None
        if status != 0:
            raise NotApplied(f"{' '.join(command)} ended with {status}{self.told(output)}")

    def told(self, output: Path) -> str:
        text = self.masked(output.read_text(encoding="utf-8", errors="replace")).strip()
        return f":\n{text[-TAIL:]}" if text else ""

    def masked(self, text: str) -> str:
        """Without the config's secrets: what we say is kept."""
        for secret in sorted(self.hidden, key=len, reverse=True):
            for part in (secret, json.dumps(secret)[1:-1], *(line for line in secret.splitlines() if len(line) > 7)):
                text = text.replace(part, "***") if part else text
        return text

    def proven(self) -> None:
        """By the word that the controller hears with the new config. Raises NotApplied."""
        deadline, problem = time.monotonic() + self.confirm, "?"
        while time.monotonic() < deadline:
            settings = proof.find_settings(self.root, tries=2)
            try:
                if settings:
                    proof.post(settings, self.report(settings))
                    return
                problem = "the seed has no settings"
            except BROKEN as exc:
                problem = str(exc) or type(exc).__name__
            time.sleep(min(2.0, self.confirm / 5))
        raise NotApplied(f"the controller was not reached within {self.confirm:.0f} s after the change: {problem}")

    def go_back(self, undo: dict[str, Any], why: str) -> int:
        """To the files of before; the undo stays until they are applied."""
        say(f"config {undo['serial']} is not applied, going back: {why}")
        files = {name: base64.b64decode(data) for name, data in undo["files"].items()}
        try:
            self.write_seed(files)
            self.apply(files, list(undo["apply"]), float(undo["limit"]), int(undo["serial"]))
        except (NotApplied, OSError, subprocess.SubprocessError) as exc:
            why += f"; and what was there before could not be applied again: {self.masked(str(exc))}"
        self.memory.forget("undo.json")
        return self.failed(int(undo["serial"]), why)

    def failed(self, serial: int, why: str) -> int:
        say(f"config {serial}: {why}")
        self.memory.write("failed.json", {"serial": serial, "why": why})
        settings = proof.find_settings(self.root, tries=2)
        with contextlib.suppress(*BROKEN):  # metalimmu-proof says it again
            proof.post(settings, self.report(settings))
        return 1


def _packed(files: dict[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(data).decode() for name, data in files.items()}


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def main() -> int:
    root = Path("/")
    flag = root / proof.WANTED
    wanted = flag.exists()
    flag.unlink(missing_ok=True)
    work = Path(os.environ.get("RUNTIME_DIRECTORY") or "/run/metalimmu-config")
    work.mkdir(exist_ok=True, mode=0o700)
    return Unit(root, work).run(wanted=wanted)


if __name__ == "__main__":
    sys.exit(main())
