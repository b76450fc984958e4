"""A lab of virtual machines as a person uses it: the command line in processes of its own, the store to look at, faults to switch on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
import zstandard

from metalimmu.plan.reimage import MEDIA_URL
from metalimmu.service.site import OpenSite
from metalimmu.store.protocol import Store
from metalimmu.store.records import DeploymentRecord, HostRecord, Outcome, RunRecord
from metalimmu.wire.manifest import CHUNK, Extent
from metalimmu_emulator.lab import Lab
from metalimmu_emulator.qmp import QmpClient, QmpError

PATIENCE = 400.0  # seconds for whatever ends in half a minute on a quiet machine
CONSOLE_LINES = 40
SYSTEM = re.compile("tiny [a-z]+@")  # what the images say when they are up
RAMDISK = " on kernel "  # and the ramdisk: "metalimmu ramdisk VERSION on kernel VERSION"; the boot menu says the first words too
ACTIVE: list[Rig] = []  # whose consoles a failed test shows

T = TypeVar("T")


class Command:
    """One `metalimmu` that runs; its output goes to files."""

    def __init__(self, site: Path, args: tuple[str, ...], log: Path) -> None:
        self.args, self._log, self._waited_for = args, log, False
        with log.open("wb") as out, log.with_suffix(".err").open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "metalimmu", "--site", str(site), *args],
                cwd="/",
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def text(self) -> str:
        """Both: what a person reads."""
        return self.out + self._log.with_suffix(".err").read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        assert self.running, self._words(f"ended with {self._process.returncode} before {number.name}")
        self._process.send_signal(number)

    def end(self, status: int = 0, *, seconds: float = PATIENCE) -> str:
        """Wait for its end, with this status; returns what it said."""
        self._waited_for = True
        try:
            found = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(self._words(f"did not end within {seconds:g} s")) from None
        assert found == status, self._words(f"ended with {found}, not {status}")
        return self.text

    def must_not_have_failed(self) -> None:
        """While a test waits for something else."""
        if not self.running and not self._waited_for:
            assert self._process.returncode == 0, self._words(f"ended with {self._process.returncode}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def _words(self, what: str) -> str:
        return f"metalimmu {' '.join(self.args)}: {what}\n{self.text}"


class Rig:
    """`rig("reimage", "node-1", "--yes")` is what a person types; the rest is for looking and for breaking things."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._opened = OpenSite(lab.site)
        self._commands: list[Command] = []
        ACTIVE.append(self)

    def close(self) -> None:
        for command in self._commands:
            if command.running:
                command.kill()
        self._opened.close()
        self.lab.down()
        ACTIVE.remove(self)

    # what a person types -------------------------------------------------------------------------------------

    def start(self, *args: str) -> Command:
        log = self.lab.folder.parent / f"{self.lab.folder.name}-command-{len(self._commands)}.log"
        self._commands.append(Command(self.lab.site, args, log))
        return self._commands[-1]

    def __call__(self, *args: str, status: int = 0, seconds: float = PATIENCE) -> str:
        return self.start(*args).end(status, seconds=seconds)

    def json(self, *args: str) -> Any:
        command = self.start(*args, "-o", "json")
        command.end()
        return json.loads(command.out)

    # the site's documents ------------------------------------------------------------------------------------

    def limits(self, **limits: str) -> None:
        self._edit("site.yaml", lambda site: site["limits"].update(limits))

    def role(self, name: str = "web", **fields: Any) -> None:
        self._edit(f"roles/{name}.yaml", lambda role: role.update(fields))

    def host_document(self, name: str = "node-1", **fields: Any) -> None:
        def change(hosts: list[dict[str, Any]]) -> None:
            next(h for h in hosts if h["name"] == name).update(fields)

        self._edit("hosts/lab.yaml", change)

    def _edit(self, name: str, change: Callable[[Any], None]) -> None:
        path = self.lab.site / name
        document = yaml.safe_load(path.read_text())
        change(document)
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    # what the store knows ------------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        return self._opened.store

    def host(self, name: str = "node-1") -> HostRecord:
        return self.store.host(name)

    def last_run(self, host: str = "node-1") -> RunRecord | None:
        return next(iter(self.store.runs(host=host, limit=1)), None)

    def deployment(self, host: str = "node-1") -> DeploymentRecord | None:
        return next(iter(self.store.deployments(host=host, limit=1)), None)

    def deployed(self, host: str = "node-1") -> DeploymentRecord:
        found = self.deployment(host)
        assert found is not None, f"no deployment of {host}"
        return found

    def step(self, host: str = "node-1") -> str:
        """The step that runs now."""
        run = self.last_run(host)
        steps = self.store.steps(run.id) if run else []
        return next((s.name for s in steps if s.outcome is Outcome.running), "")

    def events(self, host: str = "node-1") -> list[tuple[str, str]]:
        return [(e.kind, e.text) for e in self.store.history(host, limit=500)]

    # the machines --------------------------------------------------------------------------------------------

    def console(self, host: str = "node-1") -> str:
        path = self.lab.console(host)
        return path.read_text(errors="replace") if path.exists() else ""

    def tail(self, host: str) -> str:
        return "\n".join(self.console(host).splitlines()[-CONSOLE_LINES:])

    def boots(self, host: str = "node-1") -> tuple[int, int]:
        """How often the ramdisk began, and an installed system was up, since the machine exists."""
        said = self.console(host)
        return said.count(RAMDISK), len(SYSTEM.findall(said))

    def starts_and_resets(self, host: str = "node-1") -> int:
        state = self.lab._state(host)
        return state.starts + state.resets

    def bmc(self, host: str = "node-1") -> tuple[str, str, str]:
        """Power, override and media, as the BMC has them: ("On", "", "") when nothing is left behind."""
        found = next(s for s in self.lab.status() if s.name == host)
        return found.power, found.boot, found.media

    def writes(self, host: str = "node-1", *, since: int = 0) -> list[tuple[str, str, Any]]:
        """Requests that changed something, by the BMC's own log; logins and logouts are not among them."""
        return [
            (r["method"], r["path"], plain(r["body"]))
            for r in self.lab.requests(host)[since:]
            if r["method"] not in ("GET", "HEAD") and "/SessionService/" not in r["path"]
        ]

    def reset_by_hand(self, kind: str, host: str = "node-1") -> None:
        """What a person does on the BMC's own page."""
        import requests

        status = next(s for s in self.lab.status() if s.name == host)
        base = status.bmc.removeprefix("redfish+")
        path = f"/redfish/v1/Systems/{self.lab.server(host).uuid}/Actions/ComputerSystem.Reset"
        with requests.Session() as http:
            http.trust_env = False
            answer = http.post(
                base + path,
                json={"ResetType": kind},
                auth=(self.lab.spec.user, self.lab.spec.password),
                verify=str(self.lab.folder / "bmc.pem"),
                timeout=60,
            )
        assert answer.status_code == 204, answer.text

    def qmp(self, host: str = "node-1") -> contextlib.closing[QmpClient]:
        """Raises QmpError while the machine is off."""
        return contextlib.closing(self.lab.qmp(host))

    def throttle(self, writes_per_second: int, host: str = "node-1") -> None:
        """A disk so slow that a write lasts; 0: as fast as it is. Waits until the machine is on."""

        def done() -> bool:
            try:
                with self.qmp(host) as client:
                    line = f"block_set_io_throttle disk0/virtio-backend 0 0 0 0 0 {writes_per_second}"  # the last: writes per second
                    said = client.execute("human-monitor-command", command_line=line)
                    assert not said, said
            except QmpError as exc:
                if exc.kind != "closed":
                    raise
                return False
            return True

        self.until(done, "the machine's start")

    def written(self, host: str = "node-1") -> float:
        """The share of the write phase that is done, by the last progress; 0 in phases before it, 1 after it."""
        d = self.deployment(host)
        if d is None or d.progress is None or d.progress.phase in ("identify", "zero"):
            return 0.0
        if d.progress.phase != "write":
            return 1.0
        return d.progress.done / max(d.progress.total, 1)

    def until(self, condition: Callable[[], T], what: str, *, seconds: float = PATIENCE) -> T:
        """Poll until it is true. A command that fails meanwhile ends the wait."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            for command in self._commands:
                command.must_not_have_failed()
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
            time.sleep(0.05)
        return found

    # images and disks ----------------------------------------------------------------------------------------

    def stored(self, chunks: set[str]) -> int:
        """Their bytes as they travel."""
        return sum(self._opened.catalogue.chunk_path(c).stat().st_size for c in chunks)

    def chunks(self, ref: str) -> tuple[str | None, ...]:
        return self._opened.catalogue.get(ref).manifest.chunks

    def changed_chunks(self, old: str, new: str) -> set[str]:
        return {b for a, b in zip(self.chunks(old), self.chunks(new), strict=True) if b is not None and a != b}

    def differing_chunks(self, ref: str, disk: Path, declared: list[Extent]) -> list[int]:
        """Chunks of the image that the disk does not hold, read on the host, but for bytes in the declared extents."""
        wrong = []
        with disk.open("rb") as file:
            for index, sha in enumerate(self.chunks(ref)):
                offset = index * CHUNK
                file.seek(offset)
                seen = bytearray(file.read(CHUNK))
                wanted = bytearray(self._content(sha))
                for e in declared:
                    start, end = max(e.offset, offset), min(e.offset + e.length, offset + CHUNK)
                    if start < end:
                        seen[start - offset : end - offset] = wanted[start - offset : end - offset]
                if seen != wanted:
                    wrong.append(index)
        return wrong

    def _content(self, sha: str | None) -> bytes:
        if sha is None:
            return bytes(CHUNK)
        frame = self._opened.catalogue.chunk_path(sha).read_bytes()
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=CHUNK)


def plain(body: Any) -> Any:
    """A request's body with the media's address as a plan writes it."""
    if not isinstance(body, dict):
        return body or {}
    return {k: _plain_url(v) if k == "Image" else v for k, v in body.items()}


def _plain_url(url: str) -> str:
    base, _, rest = url.partition("/m/")
    return f"{base}/m/{MEDIA_URL}/{rest.rpartition('/')[2]}"


def declared(changed: tuple[str, ...]) -> list[Extent]:
    """`changed` of a Report: bytes of the disk that are the agent's and not the image's."""
    spans = [word.split()[0].split("+") for word in changed]
    return [Extent(int(offset), int(length)) for offset, length in spans]


def fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def failed(said: str) -> str:
    """The command's last words, from `error:` on."""
    at = said.rfind("error: ")
    assert at >= 0, said
    assert "hint:" in said[at:], said
    return said[at:]


@contextlib.contextmanager
def rig(lab: Lab) -> Iterator[Rig]:
    made = Rig(lab)
    try:
        yield made
    finally:
        made.close()
