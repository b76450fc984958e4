"""`bmc sensors | events | frus | light` against a recorded machine and against the lab's BMC."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent.parent / "bmc"))

from ipmi_rig import PASSWORD, USER, ipmi_sim, lab_bmc, recordings

from metalimmu.cli import cli
from metalimmu.errors import BmcReadOnly, BmcUnsupported


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("LAB_USERNAME", USER)
    monkeypatch.setenv("LAB_PASSWORD", PASSWORD)
    site = tmp_path / "site"
    (site / "hosts").mkdir(parents=True)

    def invoke(port: int, *arguments: str, mode: str = "read-write") -> Result:
        (site / "site.yaml").write_text(
            'name: t\nurls: {bmc: "http://127.0.0.1:1", machines: "https://127.0.0.1:2"}\n'
            f'credentials: [{{ref: "env:LAB"}}]\nmode: {mode}\n'
        )
        (site / "hosts/all.yaml").write_text(
            f'- {{name: old, bmc: "ipmi://127.0.0.1:{port}"}}\n- {{name: new, bmc: "fake://new"}}\n'
        )
        result = CliRunner().invoke(cli, ["--site", str(site), "bmc", *arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.mark.parametrize("script", recordings(), ids=lambda p: p.stem)
def test_what_a_recorded_machine_says(run: Callable[..., Result], script: Path, tmp_path: Path) -> None:
    with ipmi_sim(tmp_path, script) as port:
        rows = json.loads(run(port, "sensors", "old", "-o", "json").output)
        table = run(port, "sensors", "old").output
        events = run(port, "events", "old").output
        frus = run(port, "frus", "old").output
    assert len(rows) > 20
    assert {r["health"] for r in rows} <= {"OK", "Warning", "Critical"}
    assert rows[0]["name"] in table
    assert events.startswith("AT")
    assert len(events.splitlines()) > 4
    assert {"dell_r630": "95SF082", "quanta_d51": "QTFCJ052806D1"}[script.stem] in frus


def test_the_light(run: Callable[..., Result], tmp_path: Path) -> None:
    with lab_bmc(tmp_path) as (server, _):
        assert run(server.port, "light", "old", "on").output == "old: light on\n"
        assert server.light
        run(server.port, "light", "old", "off")
        assert not server.light
        with pytest.raises(BmcReadOnly):
            run(server.port, "light", "old", "on", mode="read-only")
        assert not server.light
        assert "LAB0001" in run(server.port, "frus", "old").output
        assert run(server.port, "events", "old").exit_code == 0
        with pytest.raises(BmcUnsupported, match="spoken to by fake"):
            run(server.port, "sensors", "new")
