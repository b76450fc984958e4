"""From what the store knows to messages in the outbox: once after each scan, by whichever process comes first."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import product
from typing import TYPE_CHECKING

from metalimmu import log
from metalimmu.desired.resolve import resolve_all
from metalimmu.desired.selector import select
from metalimmu.errors import AlertError, NotFound
from metalimmu.plan.types import DRIFT
from metalimmu.service.alerts import causes, outbox
from metalimmu.service.alerts.decide import Ask, Known, decide, open_now
from metalimmu.service.alerts.notice import Notice
from metalimmu.service.alerts.send import send
from metalimmu.service.scans.drift import blame_of, change_of, findings, make_of_host

if TYPE_CHECKING:
    from metalimmu.desired.alerts import Alert
    from metalimmu.service.alerts.causes import Open
    from metalimmu.service.site import OpenSite
    from metalimmu.store.scan_protocol import ScanStore
    from metalimmu.store.scan_records import FindingRecord, HostScan
    from metalimmu.store.trigger_records import AlertState, OutboxRecord

logger = log.get("alerts")

_TRIES = 10  # another process may be faster, a few times
_ASKED = 20  # hosts of one cause whose history is looked at


def evaluate(site: OpenSite, *, clock: Callable[[], float] = time.time) -> int:
    """Decide what each receiver is to be told now; the number of new messages. Nothing is sent here."""
    alerts = site.docs.site.alerts
    if not alerts:
        return 0
    specs = resolve_all(site.docs, root=site.folder)
    scopes = {a.name: {s.name for s in select(specs.values(), a.scope)} if a.scope else set(specs) for a in alerts}
    for _ in range(_TRIES):
        number, states = site.store.triggers.alert_states()
        made = decide_all(
            site.docs.site.name,
            alerts,
            scopes,
            findings(site, words=DRIFT),
            list(site.store.known_hosts()),
            states,
            clock(),
            ask=history(site.store),
        )
        keep, forget, messages = made
        if not (keep or forget) or site.store.triggers.commit_alerts(
            number, keep=keep, forget=forget, messages=messages
        ):
            for message in messages:
                logger.info("alert %s: %s, notice %s", message.alert, message.kind, message.key)
            return len(messages)
    raise AlertError(
        "other processes decide on alerts all the time", hint="how many `metalimmu serve` run on this site?"
    )


def decide_all(
    site: str,
    alerts: Iterable[Alert],
    scopes: Mapping[str, Collection[str]],
    drift: Iterable[FindingRecord],
    hosts: Collection[HostScan],
    states: Iterable[AlertState],
    now: float,
    *,
    ask: Ask = lambda _cause, _hosts: Known(),
) -> tuple[list[AlertState], list[AlertState], list[OutboxRecord]]:
    """Pure: (states to keep, states to forget, messages). States of a receiver that is gone are forgotten in silence."""
    drifted, waived = causes.of_drift(drift, {h.host: make_of_host(h) for h in hosts})
    by_alert: dict[str, list[AlertState]] = {}
    for state in states:
        by_alert.setdefault(state.alert, []).append(state)
    keep: list[AlertState] = []
    forget: list[AlertState] = []
    messages: list[OutboxRecord] = []
    for alert in alerts:
        silent = causes.of_silence(hosts, alert.unknown_scans, alert.unknown_settings)
        wanted = causes.limited({**drifted, **silent}, scopes[alert.name], alert.severity)
        decision = decide(site, alert, wanted, by_alert.pop(alert.name, []), now, waived=waived, ask=ask)
        keep += decision.keep
        forget += decision.forget
        messages += [outbox.record(alert.name, n) for n in decision.notices]
    forget += [state for left in by_alert.values() for state in left]
    return keep, forget, messages


def history(store: ScanStore) -> Ask:
    """When the values changed, and who or what did it as far as the logs of the BMCs were asked."""

    def ask(found: Open, hosts: Collection[str]) -> Known:
        since: list[float] = []
        by: dict[str, None] = {}
        for host, setting in product(sorted(hosts)[:_ASKED], sorted(found.settings)):
            for record in store.finding_history(host, setting):
                if record.fixed_at is not None or record.finding.word not in DRIFT:
                    continue
                change = change_of(store, record)
                since.append(change.at if change else record.first_seen)
                blamed = store.blame(host, change.setting, change.at) if change else None
                if blamed and blamed.kind != "unknown":
                    by[blame_of(blamed).words] = None
        return Known(min(since, default=None), tuple(by))

    return ask


def refresh(site: OpenSite, *, clock: Callable[[], float] = time.time) -> None:
    """Tell each Alertmanager again what holds: it forgets, by time and when it restarts. Failures wait for the next time."""
    for alert in site.docs.site.alerts:
        states = [s for s in site.store.triggers.alert_states()[1] if s.alert == alert.name]
        if alert.alertmanager is None or not states:
            continue
        try:
            send(alert, open_now(site.docs.site.name, alert.name, states, clock()), site.folder)
        except AlertError as exc:
            logger.warning("alert %s: %s", alert.name, exc.message)


def test(site: OpenSite, name: str) -> None:
    """Send a test notice past the outbox. Raises AlertError, NotFound."""
    alert = next((a for a in site.docs.site.alerts if a.name == name), None)
    if alert is None:
        known = ", ".join(a.name for a in site.docs.site.alerts) or "none"
        raise NotFound(f"site.yaml has no alert {name!r}", hint=f"there are: {known}")
    now = time.time()
    send(alert, Notice(id=f"test-{int(now * 1000)}", site=site.docs.site.name, kind="test", at=now), site.folder)
