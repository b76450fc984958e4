"""IPMI hosts are scanned beside the others: what IPMI cannot say is unknown, and wrong passwords come to an end."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "bmc"))
sys.path.insert(0, str(Path(__file__).parent.parent / "conformance"))

from ipmi_rig import PASSWORD, USER, Tap, ipmi_sim
from redfish_server import RedfishServer, small_tree

from metalimmu.service.scans.inventory import scan_inventory


@pytest.fixture(autouse=True)
def _logins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, password in (("GOOD", PASSWORD), ("WRONG", "guessed")):
        monkeypatch.setenv(f"{name}_USERNAME", USER)
        monkeypatch.setenv(f"{name}_PASSWORD", password)


def test_a_list_with_ipmi_hosts(tmp_path: Path) -> None:
    with ipmi_sim(tmp_path) as port:
        file = tmp_path / "bmcs.txt"
        file.write_text(f"ipmi://127.0.0.1:{port}\nipmi://127.0.0.1:1\n")
        with scan_inventory(file, "env:GOOD") as scan:
            unread = scan.run().unread()
            values = scan._store.values(f"127.0.0.1:{port}")
    assert values["firmware.bmc"] == "2.30"
    assert [(u.code, u.examples) for u in unread] == [("BmcUnreachable", ("127.0.0.1:1",))]


def test_wrong_passwords_stop_it(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port = stack.enter_context(ipmi_sim(tmp_path))
        taps = [stack.enter_context(Tap(port)) for _ in range(8)]
        file = tmp_path / "bmcs.txt"
        file.write_text("".join(f"ipmi://127.0.0.1:{t.port}\n" for t in taps))
        with scan_inventory(file, "env:WRONG") as scan:
            scan.run()
        tries = [t.payloads().count(0x12) for t in taps]
    assert sum(tries) == 3
    assert max(tries) == 1


@pytest.mark.parametrize("most", [None, 5])
def test_redfish_and_ipmi_have_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int | None) -> None:
    """With passwords of their own, all wrong: so neither knows of the other but by the count."""
    monkeypatch.setenv("OTHER_USERNAME", USER)
    monkeypatch.setenv("OTHER_PASSWORD", "guessed too")
    with ExitStack() as stack:
        port = stack.enter_context(ipmi_sim(tmp_path))
        taps = [stack.enter_context(Tap(port)) for _ in range(6)]
        servers = [stack.enter_context(RedfishServer(small_tree())) for _ in range(6)]
        file = tmp_path / "bmcs.csv"
        lines = [f"i{n},ipmi://127.0.0.1:{t.port},env:WRONG" for n, t in enumerate(taps)]
        lines += [f"r{n},{s.address},env:OTHER" for n, s in enumerate(servers)]
        file.write_text("\n".join(["name,bmc,credentials", *lines]) + "\n")
        with scan_inventory(file) as scan:
            unread = {u.code: u.hosts for u in scan.run(max_refused=most).unread()}
        tries = sum(t.payloads().count(0x12) for t in taps)
        tries += sum(method == "POST" for s in servers for method, _ in s.requests)
    assert tries == (most or 3)
    assert unread["ScanStopped"] == 12 - tries


def test_hosts_without_a_login_do_not_stop_the_others(tmp_path: Path) -> None:
    with ipmi_sim(tmp_path) as port:
        file = tmp_path / "bmcs.csv"
        lines = [f"none{n},ipmi://127.0.0.{n}:1," for n in range(1, 6)]
        file.write_text("\n".join(["name,bmc,credentials", *lines, f"good,ipmi://127.0.0.1:{port},env:GOOD"]) + "\n")
        with scan_inventory(file) as scan:
            unread = scan.run().unread()
            values = scan._store.values("good")
    assert values["firmware.bmc"] == "2.30"
    assert [(u.code, u.hosts) for u in unread] == [("BmcLoginRefused", 5)]
