"""The shipped profiles through the whole scan of the machines that they were made from: reading, judging, registry and store."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from redfish_server import PASSWORD, USER, RedfishServer, recording
from test_snapshots import FOUND

sys.path.insert(0, str(Path(__file__).parent.parent / "profiles"))

from test_shipped_profiles import MADE

from metalimmu import paths
from metalimmu.plan.types import Word
from metalimmu.service.scans.scan import scan
from metalimmu.service.site import OpenSite

SITE = """\
name: t
urls: {bmc: "http://127.0.0.1:1", machines: "https://127.0.0.1:2"}
credentials: [{ref: "env:LAB"}]
"""


def test_findings_of_a_scan_are_those_that_were_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice, since the second scan compares with what the store has kept; each profile is chosen by its `match`."""
    if not FOUND:
        pytest.skip("METALIMMU_RECORDINGS is not set: recordings of real machines are not read")
    monkeypatch.setenv("LAB_USERNAME", USER)
    monkeypatch.setenv("LAB_PASSWORD", PASSWORD)
    for name in ("hosts", "profiles"):
        (tmp_path / name).mkdir()
    for name in MADE:  # as a user takes them over; what they extend is found where it ships
        (tmp_path / f"profiles/{name}.yaml").write_bytes((paths.data("profiles") / f"{name}.yaml").read_bytes())
    (tmp_path / "site.yaml").write_text(SITE)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(RedfishServer(recording(Path(FOUND[made.recording]))))
            for name, made in MADE.items()
        }
        (tmp_path / "hosts/all.yaml").write_text(
            "".join(f'- {{name: {name}, bmc: "{server.address}"}}\n' for name, server in servers.items())
        )
        site = OpenSite(tmp_path)
        stack.callback(site.close)
        results = [scan(site), scan(site)]
        assert (results[1].counts.new, results[1].counts.fixed, results[1].counts.changes) == (0, 0, 0)
        chosen = {known.host: known.about.profile for known in site.store.known_hosts()}
        assert chosen == {name: name for name in MADE}
        for name, made in MADE.items():
            kept = [r.finding for r in site.store.current_findings([name])]
            odd = {f.setting: (str(f.word), f.severity, f.expected, f.actual) for f in kept if f.word is not Word.match}
            assert odd == made.findings, name
            assert len(kept) == made.settings, name
            about = next(site.store.known_hosts([name])).about
            assert site.store.registry(about.manufacturer, about.model, about.bios_version) is not None, name
        assert [s.writes for s in servers.values()] == [[]] * len(servers)
        assert [s.sessions for s in servers.values()] == [{}] * len(servers)
