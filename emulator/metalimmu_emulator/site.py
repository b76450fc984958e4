"""The site that a lab writes for itself, so that `metalimmu --site … reimage node-1` works at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metalimmu_emulator import certificate, layout
from metalimmu_emulator.files import write_text
from metalimmu_emulator.layout import LabSpec
from metalimmu_emulator.machine import ServerSpec

CREDENTIALS = "bmc-credentials.yaml"
ROLE = "web"
POOL = "lab"

# An emulated machine is slow (no hardware virtualisation, several at once on few cores), and still a lab's
# user does not wait half an hour to hear that something is broken.
LIMITS = {
    "power": "2m",
    "media": "1m",
    "check_in": "6m",
    "stall": "3m",
    "phone_home": "8m",
    "bmc": "2m",
    "report_again": "10s",
}


def write(folder: Path, lab: LabSpec, ports: tuple[int, ...]) -> Path:
    """The folder of the site. Site and hosts follow the lab; roles and pools are the user's once they are there."""
    site = folder / layout.SITE
    for name in ("hosts", "roles", "pools"):
        (site / name).mkdir(parents=True, exist_ok=True)
    secret = {"username": lab.user, "password": lab.password}
    write_text(site / CREDENTIALS, _yaml(secret), mode=0o600)
    _write(site / "site.yaml", _site(lab), "Written by `metalimmu lab up`; the next one writes it again.")
    pin = certificate.fingerprint(folder)
    bmcs: list[dict[str, Any]] = [
        {"bmc": f"redfish+https://127.0.0.1:{port}", "tls": {"fingerprint": pin}} for port in ports
    ]
    if lab.protocol == "ipmi":
        bmcs = [{"bmc": f"ipmi://127.0.0.1:{port}"} for port in lab.ipmi_ports]
    hosts = [_host(server, bmc) for server, bmc in zip(lab.servers, bmcs, strict=True)]
    _write(site / "hosts" / "lab.yaml", hosts, "Written by `metalimmu lab up`; the next one writes it again.")
    _write_new(site / "roles" / f"{ROLE}.yaml", _role(lab), "Yours: change the image, then `metalimmu reimage`.")
    _write_new(site / "pools" / f"{POOL}.yaml", {"mode": "read-write"}, "Yours.")
    return site


def _site(lab: LabSpec) -> dict[str, Any]:
    # The BMC's media are read by QEMU on this host, the machines see it as 10.0.2.2: two addresses, as on real networks.
    document: dict[str, Any] = {
        "name": "lab",
        "urls": {
            "bmc": f"http://127.0.0.1:{lab.media_port}",
            "machines": f"https://10.0.2.2:{lab.machines_port}",
            "chunks": f"http://10.0.2.2:{lab.media_port}",
        },
        "listen": {"bmc": f"127.0.0.1:{lab.media_port}", "machines": f"127.0.0.1:{lab.machines_port}"},
        "mode": "read-write",
        "credentials": [{"match": {}, "ref": f"file:{CREDENTIALS}"}],
        "limits": LIMITS,
        "images": lab.images,
        "ramdisks": lab.ramdisks,
    }
    return document | ({"mirror": lab.mirror} if lab.mirror else {})


def _host(server: ServerSpec, bmc: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": server.name,
        **bmc,
        "serial": server.serial,
        "nics": [server.mac],
        "root_disk": {"serial": server.disks[0].serial},
        "role": ROLE,
        "pool": POOL,
    }


def _role(lab: LabSpec) -> dict[str, Any]:
    firmware = "bios" if lab.servers[0].firmware == "bios" else "uefi"
    return {"image": lab.image, "ramdisk": lab.ramdisk, "firmware": firmware}


def _write(path: Path, document: Any, comment: str) -> None:
    write_text(path, f"# {comment}\n{_yaml(document)}")


def _write_new(path: Path, document: Any, comment: str) -> None:
    if not path.exists():
        _write(path, document, comment)


def _yaml(document: Any) -> str:
    import yaml

    return str(yaml.safe_dump(document, sort_keys=False))
