"""Every recorded machine through the whole scan, again and again: an unchanged machine never drifts."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from redfish_server import PASSWORD, USER, RedfishServer, recording
from test_snapshots import FOUND

from metalimmu.service.scans.scan import scan
from metalimmu.service.site import OpenSite


def test_no_recorded_machine_ever_drifts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not FOUND:
        pytest.skip("METALIMMU_RECORDINGS is not set: recordings of real machines are not read")
    recordings = sorted(Path(p) for p in FOUND.values())
    monkeypatch.setenv("LAB_USERNAME", USER)
    monkeypatch.setenv("LAB_PASSWORD", PASSWORD)
    names = [path.stem for path in recordings]
    with ExitStack() as stack:
        servers = [stack.enter_context(RedfishServer(recording(path))) for path in recordings]
        (tmp_path / "hosts").mkdir()
        lines = [f'- {{name: {n}, bmc: "{s.address}"}}' for n, s in zip(names, servers, strict=True)]
        (tmp_path / "hosts/all.yaml").write_text("\n".join(lines) + "\n")
        (tmp_path / "site.yaml").write_text(
            'name: t\nurls: {bmc: "http://127.0.0.1:1", machines: "https://127.0.0.1:2"}\n'
            'credentials: [{ref: "env:LAB"}]\n'
        )
        site = OpenSite(tmp_path)
        stack.callback(site.close)
        results = [scan(site, everything=True) for _ in range(3)]
        results.append(scan(site))  # hardware is not read: what is known of it stays
        assert [r.counts.states for r in results] == [{"no-profile": len(names)}] * 4, results[0].unread()
        assert list(site.store.changes(0)) == []
        for name in names:
            assert site.store.values(name)
        assert [s.writes for s in servers] == [[]] * len(servers)
        assert [len(s.sessions) for s in servers] == [0] * len(servers)
