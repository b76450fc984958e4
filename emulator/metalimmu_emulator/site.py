"""The site that a lab writes for itself, so that `metalimmu --site … reimage node-1` works at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metalimmu_emulator import certificate, layout
from metalimmu_emulator.files import write_text
from metalimmu_emulator.layout import LabSpec
from metalimmu_emulator.machine import ServerSpec
from metalimmu_emulator.switch.machine import SwitchSpec

CREDENTIALS = "bmc-credentials.yaml"
ROLE = "web"
POOL = "lab"
LEAF = "leaf"  # role of the switches
LEAVES = "leaves"  # and their pool
KEY = "switch_key"
CONFIG_DB = "leaf-config_db.json.j2"

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
    for name in ("hosts", "roles", "pools", "templates"):
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
    yours = "Yours: change the image, then `metalimmu reimage`."
    if any(server.switch is None for server in lab.servers):
        _write_new(site / "roles" / f"{ROLE}.yaml", _role(lab), yours)
        _write_new(site / "pools" / f"{POOL}.yaml", {"mode": "read-write"}, "Yours.")
    if any(server.switch for server in lab.servers):
        write_text(site / KEY, (folder / layout.SWITCH_KEY).read_text(), mode=0o600)
        _write_new(site / "roles" / f"{LEAF}.yaml", _leaf(lab), yours)
        _write_new(site / "pools" / f"{LEAVES}.yaml", {"mode": "read-write"}, "Yours.")
        if not (site / "templates" / CONFIG_DB).exists():
            write_text(site / "templates" / CONFIG_DB, _CONFIG_DB)
    return site


def _site(lab: LabSpec) -> dict[str, Any]:
    # The BMC's media are read by QEMU on this host, machines see it as 10.0.2.2: two addresses, as on real networks.
    ours, theirs = "127.0.0.1", "10.0.2.2"
    netboot: dict[str, Any] = {}
    if lab.segment:
        ours = theirs = lab.segment.address
        netboot = {
            "mode": "dhcp",
            "interface": lab.segment.bridge,
            "range": lab.segment.range,
            "lease": "10m",
            "advertise": True,
            "ping": False,
        }
    document: dict[str, Any] = {
        "name": "lab",
        "urls": {
            "bmc": f"http://{ours}:{lab.media_port}",
            "machines": f"https://{theirs}:{lab.machines_port}",
            "chunks": f"http://{theirs}:{lab.media_port}",
        },
        "listen": {"bmc": f"{ours}:{lab.media_port}", "machines": f"{ours}:{lab.machines_port}"},
        **({"netboot": netboot} if netboot else {}),
        "mode": "read-write",
        "credentials": [{"match": {}, "ref": f"file:{CREDENTIALS}"}],
        "limits": LIMITS,
        "images": lab.images,
        "ramdisks": lab.ramdisks,
    }
    return document | ({"mirror": lab.mirror} if lab.mirror else {})


def _host(server: ServerSpec, bmc: dict[str, Any]) -> dict[str, Any]:
    if server.switch:
        return _switch(server, server.switch, bmc)
    return {
        "name": server.name,
        **bmc,
        "serial": server.serial,
        "nics": [server.mac],
        "root_disk": {"serial": server.disks[0].serial},
        "role": ROLE,
        "pool": POOL,
    }


def _switch(server: ServerSpec, switch: SwitchSpec, bmc: dict[str, Any]) -> dict[str, Any]:
    own = {
        "platform": switch.platform,
        "base_mac": switch.base_mac,
        "mgmt_mac": server.mac,
        "ssh": switch.ssh,
        "key": KEY,
        "user": "root",
        **({"peer": switch.peer} if switch.peer else {}),
    }
    return {
        "name": server.name,
        "kind": "switch",
        **bmc,
        "serial": server.serial,
        "switch": own,
        **({"nics": [server.mac], "network": {"address": switch.address}} if switch.address else {}),
        "role": LEAF,
        "pool": LEAVES,
    }


def _leaf(lab: LabSpec) -> dict[str, Any]:
    return {"image": lab.switch_image, "config": {"config_db.json": CONFIG_DB}, "soak": "2s"}


_CONFIG_DB = """{
  "DEVICE_METADATA": {"localhost": {"hostname": {{ name | tojson }}}},
{% if network.address %}
  "MGMT_INTERFACE": {"eth0|{{ network.address }}": {}},
{% endif %}
  "PORTCHANNEL": {"bond1": {"admin_status": "up"}, "bond2": {"admin_status": "up"}}
}
"""


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
