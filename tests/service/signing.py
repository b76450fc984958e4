"""Keys of people, and an allowed_signers of a site."""

from __future__ import annotations

import subprocess
from pathlib import Path


def key(folder: Path, name: str) -> Path:
    """An SSH key without a passphrase."""
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)], check=True)
    return path


def line(path: Path, *, options: str = "", names: str = "") -> str:
    kind, text = path.with_name(path.name + ".pub").read_text().split()[:2]
    return " ".join(p for p in (names or f"{path.name}@example.org", options, kind, text) if p) + "\n"


def allow(site: Path, *keys: Path) -> None:
    (site / "allowed_signers").write_text("# who may sign plans\n" + "".join(line(k) for k in keys))


def signed(message: str, path: Path, *, namespace: str = "metalimmu-plan") -> str:
    """By hand, as README says."""
    done = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(path)],
        input=f"{message}\n".encode(),
        capture_output=True,
        check=True,
    )
    return done.stdout.decode()
