"""Saved plans for tests: of given hosts, as plan_reimage makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from metalimmu.desired.load import load
from metalimmu.desired.resolve import resolve
from metalimmu.lifecycle import Proof, State
from metalimmu.observed.types import (
    BootEnabled,
    BootMode,
    BootOverride,
    MediaSlot,
    PowerState,
    SystemIdentity,
    WriteRequest,
)
from metalimmu.plan.reimage import Memory, Requests, Seen, plan_reimage
from metalimmu.plan.saved import Author, Content, HostPlan, Options, SavedGuards
from metalimmu.plan.types import ImageFacts

SITE = """\
name: ams1
mode: read-write
urls: {bmc: "http://10.0.0.5:8080", machines: "https://10.1.0.5:8443"}
credentials: [{ref: "env:BMC"}]
vars: {ntp: [10.0.0.1]}
"""
POOL = 'min_active: 1\nhooks: {before: ["./drain {{ name }}"]}\n'
CREATED = 1_795_176_000.0


def site(folder: Path, count: int = 2, *, pool: str = POOL, more: str = "") -> Path:
    """A folder of documents: hosts node-1, node-2, … of pool web."""
    for sub in ("hosts", "roles", "pools"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    (folder / "site.yaml").write_text(SITE + more)
    (folder / "drain").write_text("#!/bin/sh\n")
    (folder / "drain").chmod(0o755)
    (folder / "roles/web.yaml").write_text("image: web@2\n")
    (folder / "pools/web.yaml").write_text(pool)
    lines = (
        f'- {{name: node-{i}, bmc: "redfish+https://10.12.0.{i}", serial: "S{i:03}", role: web, pool: web, '
        f'root_disk: {{wwn: "0x500a0981{i:04}"}}}}\n'
        for i in range(1, count + 1)
    )
    (folder / "hosts/all.yaml").write_text("".join(lines))
    return folder


def image(ref: str = "web@2") -> ImageFacts:
    return ImageFacts(
        ref=ref,
        digest="sha256:" + ref[-1] * 64,
        kind="disk",
        architecture="x86_64",
        firmware=("uefi",),
        size=1 << 30,
        all_bytes=1 << 29,
        build_id="b",
    )


def host_plan(folder: Path, name: str, *, wave: int = 1, seen: dict[str, Any] | None = None, **more: Any) -> HostPlan:
    """`more`: fields of HostPlan, and of Memory."""
    spec = resolve(load(folder), name, root=folder)
    number = int(name.removeprefix("node-"))
    slot = MediaSlot("CD", "/redfish/v1/Managers/1/VirtualMedia/CD", ("CD",), False, None, True, True)
    looked = Seen(
        identity=SystemIdentity("1", "/redfish/v1/Systems/1", "Dell", "R750", f"S{number:03}", uuid=f"u-{number}"),
        power=PowerState.on,
        boot=BootOverride(BootEnabled.disabled, "None", BootMode.uefi),
        media=(slot,),
    )
    looked = msgspec.structs.replace(looked, **(seen or {}))
    reset = "ForceRestart" if looked.power is PowerState.on else "On"
    media = WriteRequest("POST", f"{slot.uri}/Actions/VirtualMedia.InsertMedia", {"Image": "<media URL>"})
    power = WriteRequest("POST", "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", {"ResetType": reset})
    memory: dict[str, Any] = {
        "state": State.active,
        "proof": Proof.proven,
        "image": "web@1",
        "digest": "sha256:" + "1" * 64,
    }
    memory |= {k: more.pop(k) for k in list(more) if k in Memory.__struct_fields__}
    plan = plan_reimage(
        more.pop("spec", spec),
        more.pop("image_facts", image()),
        Memory(**memory),
        looked,
        transfer=1000,
        requests=Requests(will={"insert": (media,), "power": (power,)}),
        slot=slot,
        calls={"drain": (f"./drain {name}",)},
        now=CREATED,
    )
    fields: dict[str, Any] = {"config": "c" * 64, "looked": CREATED, "pool": "web", "state": str(memory["state"])}
    return HostPlan(host=name, wave=wave, plan=plan, **{**fields, **more})


def content(folder: Path, count: int = 2, **more: Any) -> Content:
    site(folder, count)
    fields: dict[str, Any] = {
        "site": "ams1",
        "verb": "reimage",
        "created": CREATED,
        "expires": CREATED + 86400,
        "author": Author(name="alice@example.org"),
        "hosts": tuple(host_plan(folder, f"node-{i}", wave=i) for i in range(1, count + 1)),
        "options": Options(max_failures=1),
        "guards": SavedGuards(site={"max_hosts": 10}, pools={"web": {"min_active": 1}}),
    }
    return Content(**{**fields, **more})
