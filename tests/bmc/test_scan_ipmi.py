"""Hosts that speak IPMI only are scanned beside the others: what it cannot say is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest
from ipmi_rig import PASSWORD, USER, ipmi_sim

from metalimmu.plan.types import Word
from metalimmu.service.scans.scan import scan
from metalimmu.service.site import OpenSite


def test_ipmi_and_redfish_in_one_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_USERNAME", USER)
    monkeypatch.setenv("LAB_PASSWORD", PASSWORD)
    folder = tmp_path / "site"
    (folder / "hosts").mkdir(parents=True)
    (folder / "profiles").mkdir()
    (folder / "profiles/any.yaml").write_text(
        'match: {labels: {old: "yes"}}\nfirmware: {bmc: {at_least: "1.0"}}\nbios_raw: {X: 1}\n'
    )
    (folder / "site.yaml").write_text(
        'name: t\nurls: {bmc: "http://127.0.0.1:1", machines: "https://127.0.0.1:2"}\ncredentials: [{ref: "env:LAB"}]\n'
    )
    with ipmi_sim(tmp_path) as port:
        (folder / "hosts/all.yaml").write_text(
            f'- {{name: old, bmc: "ipmi://127.0.0.1:{port}", labels: {{old: "yes"}}}}\n'
            '- {name: fake, bmc: "fake://nothing"}\n'
        )
        site = OpenSite(folder)
        result = scan(site)
        again = scan(site)
    words = {r.finding.setting: r.finding.word for r in result.of()}
    assert words == {"firmware.bmc": Word.match, "bios.X": Word.unknown}
    assert result.counts.states == {"match": 1, "unknown": 1}, "what IPMI cannot say makes no host unknown"
    (unread,) = result.unread()
    assert (unread.code, unread.examples) == ("BmcUnsupported", ("fake",))
    assert (again.counts.changes, again.counts.new) == (0, 0)
    assert site.store.values("old") == {"firmware.bmc": "2.30"}
    site.close()
