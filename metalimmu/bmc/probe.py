"""What one BMC can do, found out by reading alone: each answer is yes, no or unknown, with its reason and its source.

A census asks what stands there; it does not try. A BMC that lists an action may still refuse it.
"""

from __future__ import annotations

import contextlib
import re

import msgspec

from metalimmu.bmc import unknown as reasons
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.probe_questions import QUESTIONS, Answer, Bench, Known, Question, no, unknown
from metalimmu.bmc.redfish_service import Service
from metalimmu.bmc.tree import ROOT, Tree
from metalimmu.desired.makes import make_of
from metalimmu.errors import BmcError, BmcUnsupported

__all__ = ["QUESTIONS", "Answer", "Known", "Probe", "nothing", "probe"]

_LICENCE = re.compile(r"licen[cs]e", re.IGNORECASE)


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    make: str
    vendor: str
    model: str
    bmc: str  # model and firmware of the BMC
    answers: tuple[Answer, ...]
    requests: int = 0

    def of(self, capability: str) -> Answer:
        return next(a for a in self.answers if a.capability == capability)


def probe(service: Service, tree: Tree, known: Known | None = None) -> Asking[Probe]:
    """Asks everything in QUESTIONS. Raises BmcError only when the root cannot be read: then there is no BMC to speak of."""
    bench = Bench(service, tree, {} if known is None else known)
    bench.root = yield from tree.read(ROOT)
    vendor, model = bench.root.text("Vendor"), bench.root.text("Product")
    with contextlib.suppress(BmcError):  # each question that needs the system says so
        vendor, model = yield from service.make(tree)
    with contextlib.suppress(BmcError):
        bench.manager = next(iter((yield from service.managers(tree))), bench.manager)
    bench.make = make_of(vendor, bench.root.text("Vendor"))
    answers = []
    for name, question in QUESTIONS.items():
        answers.append((yield from _asked(name, question, bench)))
    return Probe(
        make=bench.make or vendor.lower(),
        vendor=vendor,
        model=model,
        bmc=f"{bench.manager.text('Model')} {bench.manager.text('FirmwareVersion')}".strip(),
        answers=tuple(answers),
        requests=tree.requests,
    )


def _asked(name: str, question: Question, bench: Bench) -> Asking[Answer]:
    try:
        answer = yield from question(bench)
    except BmcUnsupported as exc:
        answer = no(exc.message)
    except BmcError as exc:
        missing = _LICENCE.search(exc.message)
        answer = no(f"licence missing: {exc.message}") if missing else unknown(reasons.unknown(exc))
    except Exception as exc:  # noqa: BLE001  an odd answer costs one question
        answer = unknown(reasons.unknown(exc))
    return msgspec.structs.replace(answer, capability=name)


def nothing(reason: str, *, make: str = "", vendor: str = "", model: str = "", bmc: str = "") -> Probe:
    """A BMC that cannot be asked: everything is unknown for one reason."""
    answers = tuple(Answer(capability=name, answer="unknown", reason=reason) for name in QUESTIONS)
    return Probe(make=make, vendor=vendor, model=model, bmc=bmc, answers=answers)
