#!/usr/bin/python3
"""The new system's own word: tell the controller what booted here, until it says that it has heard.

Part of images that metalimmu builds. Standard library of Debian 12 only, nothing of metalimmu. The seed (a FAT
file system labelled `cidata`) brings metalimmu.json: url, token, pin, certificate, config_digest. Without it this
program ends quietly: not every system was deployed by metalimmu.

It never gives up: the controller may be away for days. After the acknowledgement it repeats itself at the interval
that the controller asked for, so that `metalimmu prove` has an answer. Exit status 0: there is nothing (more) to prove.

The digest that it reports is computed over the files of the seed, each time. When the controller answers that there is a
newer config, it asks systemd for metalimmu-config, which fetches it; this program itself changes nothing but the key pair
that it makes at the first boot, for that.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import random
import shlex
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

ANSWER_LIMIT = 65536  # bytes
LABELS = ("cidata", "CIDATA")  # mkfs.fat writes capitals unless told otherwise; cloud-init takes both
SETTINGS = "metalimmu.json"
STATE = "var/lib/metalimmu"  # the key, and what metalimmu-config remembers
WANTED = "run/metalimmu-proof/wanted"  # metalimmu-config.path waits for it
ED25519 = bytes.fromhex("302a300506032b6570032100")  # what DER puts before the 32 bytes of a public key (RFC 8410)
PATIENCE = 3600.0  # seconds; after that ask every five minutes, so that a fleet does not hammer a dead address


def say(text: str) -> None:
    print(f"metalimmu-proof: {text}", flush=True)


def os_release(root: Path) -> dict[str, str]:
    """os-release(5): KEY=value, shell quoting, first file found wins."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = (root / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#"))
        return {key.strip(): unquoted(value) for key, value in pairs}
    return {}


def unquoted(value: str) -> str:
    try:
        return "".join(shlex.split(value)[:1])
    except ValueError:  # no closing quotation: better a report with an odd value than none
        return value.strip(" '\"")


def one_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def system_report(root: Path, config_digest: str, key: str = "") -> dict[str, object]:
    """metalimmu.wire.messages.SystemReport. A config that could not be applied is told until a newer one is there."""
    release = os_release(root)
    dmi = root / "sys/class/dmi/id"
    return {
        "image_id": release.get("IMAGE_ID", ""),
        "image_version": release.get("IMAGE_VERSION", ""),
        "build_id": release.get("BUILD_ID", ""),
        "serial": one_line(dmi / "product_serial"),
        "uuid": one_line(dmi / "product_uuid").lower(),
        "boot_id": one_line(root / "proc/sys/kernel/random/boot_id"),
        "config_digest": config_digest,
        **({"key": key} if key else {}),
        **({"arrays": found} if (found := arrays(root)) else {}),
        **failed_config(root),
    }


def arrays(root: Path) -> str:
    """Linux's software RAID that runs: "md127 raid1 2/2", members that work of members there should be."""
    found: list[str] = []
    try:
        text = (root / "proc/mdstat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        words = line.split()
        level = next((w for w in words[2:] if w.startswith("raid")), "")
        if words[1:3] == [":", "active"] and level:
            found.append(f"{words[0]} {level}")
        elif found and (count := next((w for w in words if w[:1] == "[" and "/" in w), "")) and "/" not in found[-1]:
            wanted, _, working = count.strip("[]").partition("/")
            found[-1] += f" {working}/{wanted}"
    return ", ".join(found)


def failed_config(root: Path) -> dict[str, object]:
    """What metalimmu-config left."""
    try:
        said = json.loads((root / STATE / "failed.json").read_bytes())
        return {"config_failed": int(said["serial"]), "config_why": str(said["why"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def seed_device(root: Path) -> str:
    """The block device labelled cidata, or nothing."""
    for label in LABELS:
        link = root / "dev/disk/by-label" / label
        if link.exists():
            return str(link.resolve())
    for label in LABELS:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(["blkid", "-L", label], capture_output=True, text=True, timeout=60, check=False)
            if done.returncode == 0 and done.stdout.strip():
                return done.stdout.splitlines()[0].strip()
    return ""


@contextlib.contextmanager
def mounted(device: str) -> Iterator[Path]:
    """The seed, read-only. /run, because the root file system may be read-only itself."""
    with tempfile.TemporaryDirectory(
        prefix="metalimmu-seed-", dir=os.environ.get("RUNTIME_DIRECTORY") or None
    ) as place:
        options = "ro,nosuid,nodev,noexec"
        subprocess.run(
            ["mount", "-t", "vfat,iso9660", "-o", options, device, place], check=True, capture_output=True, timeout=60
        )
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", place], check=False, capture_output=True, timeout=60)


def seed_settings(folder: Path) -> dict[str, str]:
    """metalimmu.json of a mounted seed; empty where there is none. `config_digest` is that of the files beside it."""
    try:
        raw = json.loads((folder / SETTINGS).read_bytes())
    except FileNotFoundError:
        return {}
    settings = {str(k): v for k, v in raw.items() if isinstance(v, str)} if isinstance(raw, dict) else {}
    files = seed_files(folder)
    return settings | ({"config_digest": digest(files)} if settings and files else {})


def seed_files(folder: Path) -> dict[str, bytes]:
    """Without metalimmu.json. Folders are nobody's of ours, and some systems leave theirs on every disk."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != SETTINGS}


def digest(files: dict[str, bytes]) -> str:
    """metalimmu.wire.messages.RunTimeConfig.digest."""
    total = hashlib.sha256()
    for name, content in sorted(files.items()):
        total.update(name.encode() + b"\0" + content + b"\0")
    return total.hexdigest()


def present_digest(root: Path, settings: dict[str, str]) -> str:
    """Nothing while metalimmu-config changes it: what is on the seed then is not applied yet."""
    return "" if (root / STATE / "undo.json").exists() else settings.get("config_digest", "")


def public_key(root: Path) -> str:
    """base64 of the machine's own public key, made at the first boot; empty where it cannot be kept or openssl is missing."""
    path = root / STATE / "host.key"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            scratch = path.with_name(f".{path.name}")
            scratch.touch(mode=0o600)
            openssl("genpkey", "-algorithm", "ed25519", "-out", str(scratch))
            scratch.rename(path)
        der = openssl("pkey", "-in", str(path), "-pubout", "-outform", "DER")
    except (OSError, subprocess.SubprocessError) as exc:
        say(f"no key of its own, so no config is fetched: {exc}")
        return ""
    return base64.b64encode(der.removeprefix(ED25519)).decode() if der.startswith(ED25519) else ""


def openssl(*args: str) -> bytes:
    return subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=60).stdout


def find_settings(root: Path, *, tries: int = 5, sleep: Callable[[float], None] = time.sleep) -> dict[str, str]:
    """Look a few times: a slow controller may show its disk after this unit was started."""
    for n in range(tries):
        device = seed_device(root)
        if device:
            try:
                with mounted(device) as folder:
                    return seed_settings(folder)
            except (OSError, ValueError, subprocess.SubprocessError) as exc:
                detail = getattr(exc, "stderr", b"") or b""
                say(f"cannot read the seed on {device}: {exc} {detail.decode(errors='replace').strip()}")
        if n + 1 < tries:
            sleep(2.0)
    return {}


class Pinned(http.client.HTTPSConnection):
    """TLS to exactly one certificate. Its dates and name do not matter: clocks of bare machines are wrong."""

    def __init__(self, host: str, port: int | None, pin: str, timeout: float = 30.0) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # compared below, before anything is sent
        super().__init__(host, port, timeout=timeout, context=context)
        self.pin = pin.lower().replace(":", "")

    def connect(self) -> None:
        super().connect()
        certificate = self.sock.getpeercert(binary_form=True) or b""
        seen = hashlib.sha256(certificate).hexdigest()
        if not hmac.compare_digest(seen, self.pin):
            self.close()
            raise ssl.SSLError(f"the controller's certificate has SHA-256 {seen}, expected {self.pin}")


def post(settings: dict[str, str], report: dict[str, object]) -> dict[str, object]:
    """Send once; the answer, which may acknowledge. Raises OSError, http.client.HTTPException, ValueError."""
    said = ask(settings, "/v1/system", report)
    return said if isinstance(said, dict) else {}


def ask(settings: dict[str, str], path: str, message: dict[str, object], limit: int = ANSWER_LIMIT) -> object:
    """Raises OSError, http.client.HTTPException, ValueError."""
    url = urllib.parse.urlsplit(settings["url"])
    if url.scheme != "https" or not url.hostname:
        raise ValueError(f"the seed's url {settings['url']!r} is not https://")
    connection = Pinned(url.hostname, url.port, settings["pin"])
    try:
        headers = {"Authorization": f"Bearer {settings['token']}", "Content-Type": "application/json"}
        connection.request("POST", url.path.rstrip("/") + path, json.dumps(message), headers)
        answer = connection.getresponse()
        body = answer.read(limit)
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"the controller answered {answer.status} {body[:200]!r}")
    return json.loads(body)


def newer_config(said: dict[str, object], root: Path) -> None:
    """Have metalimmu-config fetch it. That it is there is all that this file says."""
    if isinstance(said.get("config"), dict):
        with contextlib.suppress(OSError):
            (root / WANTED).touch()


def until_acknowledged(
    settings: dict[str, str],
    report: dict[str, object],
    *,
    root: Path = Path("/"),
    renew: Callable[[], tuple[dict[str, str], dict[str, object]]] | None = None,
    send: Callable[[dict[str, str], dict[str, object]], dict[str, object]] = post,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, object]:
    pause, began, told = 2.0, clock(), ""
    while True:
        try:
            said = send(settings, report)
            newer_config(said, root)
            if said.get("acknowledged") is True:
                return said
            problem = "the controller heard, and did not acknowledge"
        except (OSError, http.client.HTTPException, ValueError) as exc:
            problem = str(exc) or type(exc).__name__
        if problem != told:  # the journal keeps each reason once
            say(f"{problem}; asking again")
            told = problem
        sleep(pause)
        pause = min(pause * 1.5, 15.0) if clock() - began < PATIENCE else 300.0
        if renew:  # metalimmu-config may have brought another config meanwhile
            settings, report = renew()


def seconds(wanted: object) -> float:
    """How long until the controller wants to hear again that this system still runs here; 0: never."""
    return float(min(max(wanted, 1), 86400)) if isinstance(wanted, int | float) and wanted > 0 else 0.0


def main(root: Path = Path("/")) -> int:
    settings = find_settings(root)
    if not all(settings.get(key) for key in ("url", "token", "pin")):
        return 0
    key = public_key(root)

    def renew() -> tuple[dict[str, str], dict[str, object]]:
        now = find_settings(root, tries=2) or settings
        return now, system_report(root, present_digest(root, now), key)

    report = system_report(root, present_digest(root, settings), key)
    say(f"reporting {report['image_id']}@{report['image_version']} build {report['build_id']} to {settings['url']}")
    said = until_acknowledged(settings, report, root=root, renew=renew)
    say("acknowledged")
    while again := seconds(said.get("again")):
        time.sleep(again * random.uniform(0.9, 1.1))  # noqa: S311  # a fleet deployed at once does not ask at once
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            answer = post(*renew())
            newer_config(answer, root)
            said = answer if answer.get("acknowledged") is True else said
    return 0


if __name__ == "__main__":
    sys.exit(main())
