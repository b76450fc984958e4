"""Deployments of switches."""

from __future__ import annotations

import pytest

from metalimmu.errors import NotFound
from metalimmu.store.switch_records import SwitchRecord
from metalimmu.wire.messages import ConfigFile, RunTimeConfig


def record(name: str, **fields) -> SwitchRecord:
    given = {"host": "leaf-1", "serial": "s", "created": 1.0, **fields}
    return SwitchRecord(
        id=name, run=name, secret_hash=f"h-{name}", method="onie", image="a@1", digest="d", size=1, base_mac="m", mgmt_mac="m",
        platform="p", fence=1, installs=2, **given,
    )  # fmt: skip


def test_a_record_comes_back_as_it_was(store) -> None:
    config = RunTimeConfig(files=(ConfigFile("config_db.json", "{}"),), digest="x")
    made = record("r1", config=config, before={"links": {"eth0": "up"}}, armed=True, reported={"host_keys": ["k"]})
    assert store.switches.add(made) == made
    assert store.switches.add(record("r1", serial="other")) == made  # the first one stays
    assert store.switches.get("r1") == store.switches.find("h-r1") == made
    assert store.switches.find("h-none") is None
    with pytest.raises(NotFound):
        store.switches.get("none")


def test_changes_and_what_runs(store) -> None:
    for n, name in enumerate(("r1", "r2", "r3")):
        store.switches.add(record(name, created=float(n), host="leaf-2" if name == "r3" else "leaf-1"))
    store.switches.update("r1", ended=9.0)
    after = store.switches.update("r2", lambda now: {"bytes": now.bytes + 5}, armed=True)
    assert (after.bytes, after.armed) == (5, True)
    assert [r.id for r in store.switches.running()] == ["r2", "r3"]
    assert [r.id for r in store.switches.of("leaf-1")] == ["r2", "r1"]
    with pytest.raises(TypeError):
        store.switches.update("r2", nothing=1)
