"""Snapshots and findings for tests of the store."""

from __future__ import annotations

from metalimmu.observed.snapshot import Snapshot
from metalimmu.observed.types import PowerState, Reason, SystemIdentity, Unknown
from metalimmu.plan.types import Finding, Word
from metalimmu.store.records import ErrorText
from metalimmu.store.scan_records import About, Scanned

ABOUT = About(manufacturer="Acme", model="A1", profile="acme")


def snapshot(host: str, at: float, settings: dict, unknown=()) -> Snapshot:
    """`unknown`: names that could not be read."""
    return Snapshot(
        host=host,
        at=at,
        identity=SystemIdentity("1", "/redfish/v1/Systems/1", "Acme", "A1", "SN1"),
        bmc={},
        power=PowerState.on,
        settings=settings,
        unknown={name: Unknown(Reason.timeout) for name in unknown},
    )


def read(host: str, at: float, settings: dict, findings=(), unknown=(), about=ABOUT) -> Scanned:
    return Scanned(
        host=host, at=at, snapshot=snapshot(host, at, settings, unknown), findings=tuple(findings), about=about
    )


def unread(host: str, at: float, code: str = "BmcUnreachable") -> Scanned:
    return Scanned(host=host, at=at, failure=ErrorText(code=code, message="no answer", at=at))


def finding(setting: str, word: Word | str, actual: str = "", expected: str = "on", **fields) -> Finding:
    return Finding(
        setting=setting,
        word=Word(word),
        expected=expected,
        actual=actual,
        **{"severity": "warning", "profile": "acme", "source": "/redfish/v1/x", **fields},
    )


def scan(store, *hosts, scope=None) -> str:
    return store.begin_scan(scope or {}, trigger="test", hosts=list(hosts)).id


def scan_all(store, *scanned: Scanned) -> str:
    """One finished scan with these results."""
    name = scan(store, *(s.host for s in scanned))
    store.record_scanned(name, scanned)
    store.finish_scan(name, {})
    return name
