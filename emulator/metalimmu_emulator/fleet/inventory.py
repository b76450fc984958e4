"""What a fleet writes for those who scan it: hosts.csv, and a small read-only site."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

from metalimmu_emulator.files import write_text
from metalimmu_emulator.fleet import certificates
from metalimmu_emulator.fleet.spec import FleetSpec, address

HOSTS = "hosts.csv"
SITE = "site"
CREDENTIALS = "bmc-credentials.yaml"
RACK = 40  # machines in a rack


def scheme(spec: FleetSpec) -> str:
    return "redfish+https" if spec.tls else "redfish+http"


def url(spec: FleetSpec, index: int, port: int) -> str:
    return f"{'https' if spec.tls else 'http'}://{address(spec.network, index)}:{port}"


def bmc(spec: FleetSpec, index: int, port: int) -> str:
    return f"{scheme(spec)}://{address(spec.network, index)}:{port}"


def write(folder: Path, spec: FleetSpec, port: int) -> Path:
    """The site's folder. hosts.csv is in the site's hosts/ and once more beside it, for `scan --inventory`."""
    site = folder / SITE
    (site / "hosts").mkdir(parents=True, exist_ok=True)
    table = _table(spec, port)
    write_text(folder / HOSTS, table)
    write_text(site / "hosts" / HOSTS, table)
    for where in (folder, site):
        secret = f"username: {_quoted(spec.username)}\npassword: {_quoted(spec.password)}\n"
        write_text(where / CREDENTIALS, secret, mode=0o600)
    write_text(
        site / "site.yaml",
        "# Written by `metalimmu lab fleet`: emulated BMCs, read only.\n"
        "name: fleet\n"
        "mode: read-only\n"
        'urls: {bmc: "http://127.0.0.1:8080", machines: "https://127.0.0.1:8443"}\n'
        f'credentials: [{{match: {{}}, ref: "file:{CREDENTIALS}"}}]\n'
        + (f"tls: {{ca: {certificates.CA}}}\n" if spec.tls else ""),
    )
    if spec.tls:
        shutil.copyfile(folder / certificates.CA, site / certificates.CA)
    return site


def _table(spec: FleetSpec, port: int) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", "bmc", "location.rack", "labels.make"])
    for i, member in enumerate(spec.members):
        make = "recording" if member.recorded else member.make
        writer.writerow([member.name, bmc(spec, i, port), f"r{i // RACK + 1:03d}", make])
    return out.getvalue()


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
