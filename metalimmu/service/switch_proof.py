"""Ask a switch again what it is: NOS, ONIE's modes, pair, and its neighbours as its proof has them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from metalimmu.errors import MetalimmuError, StepFailed
from metalimmu.lifecycle import Proof
from metalimmu.plan import pair
from metalimmu.plan.identity import same_serial
from metalimmu.plan.settled import config_hash, wrong
from metalimmu.plan.types import Word
from metalimmu.service.planning import image_facts
from metalimmu.service.proof import proven_again
from metalimmu.service.runs import who
from metalimmu.service.switches import FACTS, around, connect

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec
    from metalimmu.observed.switch import SwitchFacts
    from metalimmu.service.site import OpenSite


def prove_switch(site: OpenSite, spec: HostSpec) -> str:
    """A sentence. Raises StepFailed when it did not prove itself; it is unproven then, and Unhealthy."""
    record = site.store.host(spec.name)
    try:
        facts = connect(site, spec, mode="read-only").facts()
        said = _differs(site, spec, facts, record.image or "", record.proof_evidence)
    except MetalimmuError as exc:
        said = [exc.message]
        facts = None
    if said:
        why = "; ".join(said)
        site.store.update_host(spec.name, proof=Proof.unproven)
        site.store.add_event(spec.name, "unproven", f"{spec.name} did not prove itself: {why}")
        raise StepFailed(f"{spec.name} did not prove itself: {why}", hint="look at it, or reimage")
    again = {"facts": facts.brief() if facts else {}, "asked_by": who(), "at": time.time()}
    return proven_again(site, spec, record, again)


def _differs(site: OpenSite, spec: HostSpec, facts: SwitchFacts, image: str, evidence: dict[str, Any]) -> list[str]:
    said = wrong(facts, image_facts(site, image), None, config=None, slot=str(evidence.get("slot", "")))
    if spec.serial and not same_serial(facts.serial, spec.serial):
        said.append(f"its serial is {facts.serial}, not {spec.serial}")
    known = {str(n) for n in evidence.get("neighbours", ())}
    if gone := sorted(known - {str(n) for n in facts.neighbours}):
        said.append(f"neighbours that are missing: {', '.join(gone)}")
    proven = evidence.get("config_hash")
    if proven and config_hash(facts.config) != proven:
        said.append(
            f"its config is not the one that was proven: {facts.unknown.get('config') or 'it was changed since'}"
        )
    return said


def show(site: OpenSite, host: str) -> dict[str, Any]:
    """What the switch says now, and what of its pair would forbid a run. Raises BmcError."""
    spec = site.spec(host)
    facts = connect(site, spec, mode="read-only").facts()
    site.store.observe(host, FACTS, facts.brief())
    found = pair.findings(around(site, spec, facts))
    return {
        "name": host,
        **facts.brief(),
        "config": f"{len(facts.config)} bytes" if facts.config.strip() else facts.unknown.get("config", "none"),
        "may_go": all(f.word is Word.match for f in found),
        "pair_findings": [f"{f.setting} {f.word}: {f.actual or f.reason}" for f in found],
    }
