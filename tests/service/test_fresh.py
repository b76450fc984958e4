"""Documents that change while a worker runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from rack import Rack

from metalimmu.plan.guards import Guard
from metalimmu.service.fresh import Fresh
from metalimmu.service.guarding import Guards, act
from metalimmu.service.site import OpenSite


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return Rack(tmp_path)


def change(rack: Rack, **fields: Any) -> None:
    rack.write("site.yaml", {**yaml.safe_load((rack.site / "site.yaml").read_text()), **fields})


def test_a_guard_that_was_tightened_holds_at_the_next_act(rack: Rack) -> None:
    site = OpenSite(rack.site)
    guards = Guards(site, refresh=Fresh(site, every=0))
    asked = act("reimage", "node-1", {})
    assert guards.refusals(asked) == ()
    change(rack, mode="read-only")
    assert [r.guard for r in guards.refusals(asked)] == [Guard.mode]
    rack.write("hosts/rack.yaml", [])
    assert [r.guard for r in guards.refusals(asked)] == [Guard.site]
    site.close()


def test_wrong_documents_and_ground_that_moves_leave_the_old_ones(rack: Rack, caplog: pytest.LogCaptureFixture) -> None:
    site = OpenSite(rack.site)
    fresh = Fresh(site, every=0)
    before = site.docs
    with caplog.at_level(logging.WARNING, logger="metalimmu"):
        change(rack, mode="sometimes")
        fresh()
        assert site.docs is before
        assert "the old ones stay" in caplog.text
        change(rack, mode="read-only", state="elsewhere")
        fresh()
        assert site.docs is before
        assert "start again" in caplog.text
        change(rack, state=".metalimmu")
        fresh()
        assert site.docs.site.mode == "read-only"
