"""Firmware by component: which items an expectation is for, and each item's version against it. Pure.

Without `component` an expectation is for the items with its key; with it, for all whose name, model, manufacturer, device
and software id fit, each a finding of its own. Items with one key are told apart by nothing that the BMC says: they share
a finding, which has the word of the worst and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from metalimmu.desired.profile import ComponentMatch
from metalimmu.observed.snapshot import FirmwareItem
from metalimmu.observed.types import Unknown
from metalimmu.plan.look import NOTHING, Look
from metalimmu.plan.names import nearest
from metalimmu.plan.ready import FIRMWARE, Asked
from metalimmu.plan.types import Finding, Word

WORST = (Word.differs, Word.missing, Word.unknown, Word.job_running, Word.staged, Word.match)


def firmware(look: Look, asked: Asked) -> Iterator[Finding]:
    match = asked.want.component
    items = look.snapshot.firmware
    if isinstance(items, Unknown):
        if match is None and asked.setting in look.settings:  # IPMI: versions of BIOS and BMC, and no inventory
            yield look.valued(asked, look.settings[asked.setting], version=True)
        else:
            yield look.finding(asked, Word.unknown, NOTHING, why(items))
        return
    by_key: dict[str, list[FirmwareItem]] = {}
    for item in items:
        if item.running and (item.key == asked.setting[len(FIRMWARE) :] if match is None else _fits(match, item)):
            by_key.setdefault(item.key, []).append(item)
    if by_key:
        for key, alike in by_key.items():
            yield _compared(look, asked._replace(setting=FIRMWARE + key), alike)
    elif match is None and asked.setting in look.settings:
        yield look.valued(asked, look.settings[asked.setting], version=True)
    else:
        yield _absent(look, asked, len(items))


def _compared(look: Look, asked: Asked, alike: list[FirmwareItem]) -> Finding:
    versions = sorted({item.version for item in alike})
    findings = [_one(look, asked, version) for version in versions]
    count = max(len(alike), *(item.ambiguous for item in alike))
    if count == 1:
        return findings[0]
    worst = min(findings, key=lambda f: WORST.index(f.word))
    said = f"ambiguous: {count} components are told apart by nothing that the BMC says"
    reason = f"{worst.reason}; {said}" if worst.reason else said
    fields = {f: getattr(worst, f) for f in Finding.__struct_fields__}
    return Finding(**{**fields, "actual": ", ".join(f.actual for f in findings), "reason": reason})


def _one(look: Look, asked: Asked, version: str) -> Finding:
    if not version.strip():
        return look.finding(asked, Word.unknown, NOTHING, "not modelled: the BMC gives no version for it")
    return look.valued(asked, version, version=True)


def _absent(look: Look, asked: Asked, count: int) -> Finding:
    unknown = look.snapshot.why_unknown(asked.setting)
    if unknown is not None:
        return look.finding(asked, Word.unknown, NOTHING, why(unknown))
    if not count:
        return look.finding(asked, Word.unknown, NOTHING, "not modelled: the BMC lists no firmware")
    if asked.want.component is not None:
        return look.finding(
            asked, Word.missing, NOTHING, f"none of {count} components fits {shown(asked.want.component)}"
        )
    close = nearest(asked.setting, look.names("firmware"))
    return look.finding(asked, Word.missing, NOTHING, f"did you mean {close.removeprefix(FIRMWARE)}?" if close else "")


def _fits(match: ComponentMatch, item: FirmwareItem) -> bool:
    part, detail = item.component, item.component.detail
    said = (
        (match.name, (part.name, item.key)),
        (match.model, (part.model,)),
        (match.manufacturer, (part.manufacturer,)),
        (match.device, (detail.get("device", ""), detail.get("related", ""), part.id)),
        (match.software_id, (detail.get("software_id", ""),)),
    )
    return all(
        glob is None or any(text and fnmatchcase(text.casefold(), glob.casefold()) for text in texts)
        for glob, texts in said
    )


def shown(match: ComponentMatch) -> str:
    """`name *ConnectX*, device 7`"""
    fields = [(f, getattr(match, f)) for f in ComponentMatch.__struct_fields__]
    return ", ".join(f"{name} {glob}" for name, glob in fields if glob is not None)


def why(unknown: Unknown) -> str:
    return f"{unknown.reason.value}: {unknown.detail}" if unknown.detail else unknown.reason.value
