"""A reimage over the network on a fake BMC with a simulated machine: by choice, by name, and after another method has failed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import yaml
from drive import reimage
from rack import Rack

from metalimmu.bmc.fake import FakeBmc
from metalimmu.bmc.fake_machines import FileMachine
from metalimmu.errors import BmcUnsupported
from metalimmu.observed.machine import Drive
from metalimmu.service.netboot import NetbootSide
from metalimmu.service.planning import plan_host
from metalimmu.service.site import OpenSite
from metalimmu.store.records import RunRecord, RunStatus
from metalimmu.workflows.silence import why

SHORT = {"power": "3s", "media": "2s", "check_in": "3s", "stall": "4s", "phone_home": "4s", "bmc": "4s"}
NAMED = ("None", "Cd", "Pxe", "UefiHttp")


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return Rack(tmp_path)


@pytest.fixture
def hasty(tmp_path: Path) -> Rack:
    """Its limits pass soon."""
    return Rack(tmp_path, limits=SHORT)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def power_up(rack: Rack, stack: ExitStack, **faults: Any) -> Any:
    return rack.power_up(stack, pace=0.2, faults={"node-1": faults})["node-1"]


def change(rack: Rack, **fields: Any) -> None:
    FileMachine(rack.state("node-1")).update(lambda m: msgspec.structs.replace(m, **fields))


def edit(rack: Rack, name: str, **fields: Any) -> None:
    path = rack.site / name
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **fields}))


def site(rack: Rack) -> OpenSite:
    return OpenSite(rack.site)


def steps(rack: Rack, run: RunRecord) -> list[tuple[str, str]]:
    return [(s.name, str(s.outcome)) for s in site(rack).store.steps(run.id)]


def sent(rack: Rack, run: RunRecord) -> list[Any]:
    found = site(rack).store.steps(run.id)
    return [r["body"].get("Boot", r["body"]) for s in found for r in s.evidence.get("requests", [])]


def proven(rack: Rack, run: RunRecord, method: str) -> None:
    assert run.status is RunStatus.succeeded, run.error
    opened = site(rack)
    record, d = opened.store.host("node-1"), opened.store.deployment(run.id)
    assert (record.proof, record.state, record.quarantine) == ("proven", "active", None)
    assert (d.method, d.offered) == (method, None)
    machine = rack.machine("node-1")
    assert (machine.boot.enabled, machine.media.get("Cd", Drive()).image) == ("Disabled", None)


@pytest.mark.parametrize("method", ["pxe", "uefi-http"])
def test_by_name(rack: Rack, stack: ExitStack, method: str) -> None:
    machine = power_up(rack, stack)
    change(rack, targets=NAMED)
    plan = plan_host(site(rack), "node-1", method=method)
    assert (plan.method, plan.method_why, plan.ways, plan.slot) == (method, "asked for by name", (), None)
    run = reimage(rack.site, method=method)
    proven(rack, run, method)
    assert machine.machine().generation == 3  # two boots, and no more
    assert [name for name, _ in steps(rack, run)] == [s.name for s in plan.steps]
    assert sent(rack, run) == [r.body.get("Boot", r.body) for s in plan.steps for r in s.requests]
    d = site(rack).store.deployment(run.id)
    assert d.asked == 1
    assert d.media_bytes > 51_501  # kernel, initrd and squashfs, and the slot


def test_a_bmc_that_takes_an_address_is_given_it(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    change(rack, targets=NAMED)
    run = reimage(rack.site, method="uefi-http")
    proven(rack, run, "uefi-http")
    first = sent(rack, run)[0]
    assert first["BootSourceOverrideTarget"] == "UefiHttp"
    assert first["HttpBootUri"].startswith(f"{rack.boot_url}/boot/efi/")


def test_the_role_names_it(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    edit(rack, "roles/web.yaml", boot="pxe")
    proven(rack, reimage(rack.site), "pxe")


def test_auto_without_virtual_media_is_pxe_where_we_answer_dhcp(rack: Rack) -> None:
    change(rack, media={})
    with pytest.raises(BmcUnsupported, match="nobody here answers DHCP"):
        plan_host(site(rack), "node-1")
    edit(rack, "site.yaml", netboot={"mode": "dhcp", "interface": "eth9", "range": "10.0.0.5-10.0.0.9"})
    plan = plan_host(site(rack), "node-1")
    assert plan.method == "pxe"
    assert plan.method_why.startswith("virtual-media: the BMC offers no virtual CD")


DHCP = {"mode": "dhcp", "interface": "eth9", "range": "10.0.0.5-10.0.0.9"}
PROXY = {"mode": "proxy", "interface": "eth9", "range": "10.0.0.0/24"}
SERVED: dict[str, tuple[dict[str, Any], dict[str, Any], list[str], str]] = {
    "dhcp": (DHCP, {}, ["uefi-http", "pxe"], ""),
    "a proxy answers no HTTPClient": (PROXY, {}, ["pxe"], "uefi-http: UEFI HTTP clients are not answered by us"),
    "shim has no HTTP": ({**DHCP, "loader": "shim"}, {}, ["pxe"], "uefi-http: `netboot: loader: shim`"),
    "shim is for UEFI": ({**DHCP, "loader": "shim"}, {"firmware": "bios"}, [], "has nothing for that"),
    "shim knows MACs": ({**DHCP, "loader": "shim"}, {"nics": []}, [], "the host document has no `nics:`"),
    "serial numbers do elsewhere": (DHCP, {"nics": []}, ["uefi-http", "pxe"], ""),
}


@pytest.mark.parametrize("name", SERVED)
def test_auto_takes_what_our_dhcp_serves(rack: Rack, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """On a BMC that takes no address, so that DHCP must name the loader."""
    netboot, host, methods, why = SERVED[name]
    said = FakeBmc.boot_override
    monkeypatch.setattr(FakeBmc, "boot_override", lambda bmc: msgspec.structs.replace(said(bmc), takes_uri=False))
    change(rack, media={}, targets=NAMED)
    edit(rack, "site.yaml", netboot=netboot)
    documents = rack.site / "hosts" / "rack.yaml"
    (document,) = yaml.safe_load(documents.read_text())
    documents.write_text(yaml.safe_dump([document | {k: v for k, v in host.items() if k == "nics"}]))
    edit(rack, "roles/web.yaml", **{k: v for k, v in host.items() if k == "firmware"})
    if not methods:
        with pytest.raises(BmcUnsupported, match=why):
            plan_host(site(rack), "node-1")
        return
    plan = plan_host(site(rack), "node-1")
    assert [plan.method, *(w.method for w in plan.ways)] == methods
    assert why in plan.method_why


def test_under_secure_boot_no_bmc_is_given_an_unsigned_loader(rack: Rack) -> None:
    change(rack, media={}, targets=NAMED)
    edit(rack, "site.yaml", netboot={**PROXY, "loader": "shim"})
    plan = plan_host(site(rack), "node-1")
    assert (plan.method, plan.ways) == ("pxe", ())
    edit(rack, "site.yaml", netboot=PROXY)
    assert plan_host(site(rack), "node-1").method == "uefi-http"  # by an address, which needs no DHCP of ours


def test_what_the_site_lacks_is_said(rack: Rack) -> None:
    change(rack, targets=NAMED)
    described = rack.site / ".metalimmu" / "ramdisk" / "fake" / "ramdisk.json"
    raw = json.loads(described.read_text())
    described.write_text(json.dumps({k: v for k, v in raw.items() if k != "parts"}))
    with pytest.raises(BmcUnsupported, match="older metalimmu"):
        plan_host(site(rack), "node-1", method="pxe")
    described.write_text(json.dumps(raw))
    document = yaml.safe_load((rack.site / "site.yaml").read_text())
    edit(rack, "site.yaml", urls={k: v.replace("http:", "https:") for k, v in document["urls"].items()})
    with pytest.raises(BmcUnsupported, match=r"urls\.boot"):
        plan_host(site(rack), "node-1", method="pxe")
    assert plan_host(site(rack), "node-1").method == "virtual-media"


FAILS = {
    "the BMC refuses media": (("insert_media", "BmcRefused", None), "insert"),
    "media are never read": (("boot", "unread", 3), "check-in"),
}


@pytest.mark.parametrize("name", FAILS)
def test_it_falls_back_before_anything_is_written(hasty: Rack, stack: ExitStack, name: str) -> None:
    fault, step = FAILS[name]
    power_up(hasty, stack)
    edit(hasty, "roles/web.yaml", boot=["virtual-media", "pxe"])
    plan = plan_host(site(hasty), "node-1")
    assert (plan.method, [w.method for w in plan.ways]) == ("virtual-media", ["pxe"])
    run = reimage(hasty.site, planned=lambda: hasty.fault("node-1", *fault))
    proven(hasty, run, "pxe")
    done = steps(hasty, run)
    assert (step, "failed") in done
    after = [n for n, _ in done[done.index((step, "failed")) + 1 :]]
    assert after[:4] == ["offer", "pxe", "power", "check-in"]
    assert "withdraw" in after
    assert "eject" not in after
    (event,) = [e for e in site(hasty).store.history("node-1") if e.kind == "falls-back"]
    assert "virtual-media does not work, pxe is tried" in event.text


NO_OTHER_WAY = {
    "another machine checks in": {"wrong_serial": "S9999"},
    "the agent has begun to write": {"write_fails": "ChunkCorrupt"},
}


@pytest.mark.parametrize("name", NO_OTHER_WAY)
def test_what_another_method_does_not_mend_fails_at_once(rack: Rack, stack: ExitStack, name: str) -> None:
    power_up(rack, stack, **NO_OTHER_WAY[name])
    edit(rack, "roles/web.yaml", boot=["virtual-media", "pxe"])
    run = reimage(rack.site)
    assert run.status is RunStatus.failed
    assert "offer" not in [n for n, _ in steps(rack, run)]


def test_when_every_method_fails_the_last_one_says_why(hasty: Rack, stack: ExitStack) -> None:
    power_up(hasty, stack)
    change(hasty, netboot="")
    edit(hasty, "roles/web.yaml", boot=["virtual-media", "pxe"])
    run = reimage(hasty.site, planned=lambda: hasty.fault("node-1", "insert_media", "BmcRefused", None))
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert "never asked what to boot" in run.error.message
    record, d = site(hasty).store.host("node-1"), site(hasty).store.deployment(run.id)
    assert record.quarantine is not None
    assert (d.offered, hasty.machine("node-1").boot.enabled) == (None, "Disabled")


MAC = "52:54:00:00:00:01"
LEASE = f"dnsmasq-dhcp[7]: DHCPACK(eth9) 10.0.0.5 {MAC}"
SILENT: dict[str, tuple[list[str], str, str]] = {
    "TFTP is blocked": ([LEASE], "DHCP answered, no TFTP request came: is UDP 69 blocked?", "let UDP pass"),
    "no IPv4 DHCP": ([f"dnsmasq-dhcp[7]: DHCPACK(eth9) 10.0.0.6 {MAC[:-1]}9"], f"request came from {MAC}", "IPv6 only"),
}


@pytest.mark.parametrize("name", SILENT)
def test_how_far_a_silent_machine_came(
    hasty: Rack, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """From dnsmasq's log to what the run says. The machine itself does nothing."""
    lines, said, hint = SILENT[name]

    def start(side: NetbootSide) -> None:
        child: Any = SimpleNamespace(update=lambda *_: True, stop=lambda: None)

        def listen() -> None:
            while not side._stop.wait(0.02):
                side._look(child)
                if side._offers:
                    for line in lines:
                        side._hear(line)
                    return

        side._child, side._thread = child, threading.Thread(target=listen)
        side._thread.start()

    monkeypatch.setattr(NetbootSide, "start", start)
    power_up(hasty, stack)
    change(hasty, netboot="")
    edit(hasty, "site.yaml", netboot=DHCP)
    run = reimage(hasty.site, method="pxe")
    assert run.error is not None
    assert said in run.error.message
    assert hint in run.error.hint


@pytest.mark.parametrize(
    ("method", "mode", "heard", "nics", "words"),
    [
        ("pxe", "off", {"lease"}, (MAC,), ""),  # others answer: nothing is heard
        ("pxe", "dhcp", set(), (), ""),  # whose request it was is not known
        ("uefi-http", "proxy", set(), (MAC,), ""),  # not asked of us
        ("uefi-http", "dhcp", {"lease"}, (MAC,), "no HTTP request came"),
        ("pxe", "proxy", {"lease"}, (MAC,), "is UDP 69 or 4011 blocked"),
        ("pxe", "dhcp", {"lease", "tftp-ended"}, (MAC,), "broke off"),
        ("pxe", "dhcp", {"lease", "tftp-failed"}, (MAC,), "could not send"),
        ("pxe", "dhcp", {"lease", "tftp-ended", "loader"}, (MAC,), "its boot loader, which asked nothing"),
        ("pxe", "dhcp", {"no-address"}, (MAC,), "no address left"),
    ],
)
def test_only_what_can_be_known_is_said(
    method: str, mode: str, heard: set[str], nics: tuple[str, ...], words: str
) -> None:
    what, hint = why(method, mode, heard, nics)
    assert words in what
    assert bool(what) == bool(hint) == bool(words)


def test_a_machine_that_was_off_in_between_is_offered_again(hasty: Rack, stack: ExitStack) -> None:
    power_up(hasty, stack)
    edit(hasty, "roles/web.yaml", boot="pxe")
    run = reimage(hasty.site, planned=lambda: hasty.fault("node-1", "boot", "lost-override", 1))
    proven(hasty, run, "pxe")
    assert any(e.kind == "boot-again" for e in site(hasty).store.history("node-1"))
