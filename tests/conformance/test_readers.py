"""What the ports promise of reading, for drivers that only read (IPMI)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from subjects import Subject

sys.path.insert(0, str(Path(__file__).parent.parent / "bmc"))

from ipmi_rig import PASSWORD, USER, Tap, ipmi_sim, recordings

from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.errors import BmcLoginRefused, BmcUnsupported
from metalimmu.observed.types import PowerState, Unknown

SCRIPTS = {"bare": None} | {p.stem: p for p in recordings()}


@pytest.fixture(params=SCRIPTS)
def reader(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    for name, password in (("IPMI", PASSWORD), ("WRONG", "guessed")):
        monkeypatch.setenv(f"{name}_USERNAME", USER)
        monkeypatch.setenv(f"{name}_PASSWORD", password)
    with ipmi_sim(tmp_path, SCRIPTS[request.param]) as port, Tap(port) as tap:
        yield Subject(f"ipmi://127.0.0.1:{tap.port}", "env:IPMI", logins=lambda: tap.payloads().count(0x12))


def test_identity_and_inventory(reader: Subject) -> None:
    with reader.open() as bmc:
        identity = bmc.identity()
        found = bmc.inventory()
        assert bmc.power_state() is PowerState.off
    assert len(identity.uuid) == 36
    assert identity.manufacturer
    assert found.identity == identity
    assert found.driver == bmc.driver == "ipmi"
    assert found.power is PowerState.off
    assert not isinstance(found.bmc, Unknown)
    assert not isinstance(found.firmware, Unknown)
    for name in found.__struct_fields__:
        value = getattr(found, name)
        assert not isinstance(value, Unknown) or value.detail, name


def test_a_wrong_password_is_tried_once(reader: Subject) -> None:
    ledger = MemoryLedger()
    for _ in range(3):
        with reader.open(credentials="env:WRONG", ledger=ledger) as bmc:
            for _ in range(2):
                with pytest.raises(BmcLoginRefused):
                    bmc.power_state()
            assert isinstance(bmc.inventory().power, Unknown)
    assert reader.logins
    assert reader.logins() == 1


def test_what_it_cannot_do_is_unsupported_and_closing_twice_is_fine(reader: Subject) -> None:
    with reader.open() as bmc:
        with pytest.raises(BmcUnsupported):
            bmc.media()
        assert bmc.sent() == []
        bmc.close()
