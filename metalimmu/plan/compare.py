"""A machine against its profile: one finding per setting, with its word, never a boolean. Pure.

Every expectation gives at least one finding, and no two findings of a host have the same setting. A finding's setting is
the snapshot's name for it, with three exceptions: ``bmc.account.NAME`` for an account that must be present or absent,
``neutral.KEY`` for a neutral key that this make is not mapped for, and the expectation's own name for what is not there.

Two expectations for one setting (a neutral key and the raw attribute that it is mapped to) are one finding: of both when
one value can satisfy them, else `unknown` with the conflict named, because nobody can tell what is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from metalimmu.desired.expectations import NEUTRAL
from metalimmu.desired.neutral import Neutral
from metalimmu.desired.profile import SEVERITIES, ResolvedProfile
from metalimmu.observed.registry import Registry
from metalimmu.observed.snapshot import Snapshot, Value
from metalimmu.observed.types import PowerState, Unknown
from metalimmu.plan.compare_firmware import WORST, firmware, why
from metalimmu.plan.look import NOTHING, Look, Nothing
from metalimmu.plan.names import nearest
from metalimmu.plan.ready import Asked, Ready, ready
from metalimmu.plan.types import Finding, Word
from metalimmu.plan.values import equal, text

_VALUES = {"equals", "one_of"}  # ops that name all values that fit
_CONFLICT = "conflict: "
_SERVICES = "bmc.protocol."

Found = tuple[Asked, Finding]


def compare(
    profile: ResolvedProfile,
    snapshot: Snapshot,
    *,
    neutral: Neutral,
    registry: Registry | None = None,
    now: float,
) -> tuple[Finding, ...]:
    """Findings in the profile's order. `now` in seconds since 1970, for dates that must lie ahead. Never raises."""
    look = Look(snapshot, registry, now)
    settings = snapshot.settings
    found: dict[str, Found] = {}
    for fitted in ready(profile, neutral, look.make, settings):
        asked = fitted.asked
        if fitted.how == "value":
            _keep(found, asked, look.valued(asked, settings[asked.setting], section=fitted.section))
        else:
            for finding in _other(look, fitted):
                _keep(found, asked, finding)
    return tuple(finding for _, finding in found.values())


def _keep(found: dict[str, Found], asked: Asked, finding: Finding) -> None:
    earlier = found.get(finding.setting)
    found[finding.setting] = (asked, finding) if earlier is None else _both(earlier, (asked, finding))


def _other(look: Look, fitted: Ready) -> Iterator[Finding]:
    asked = fitted.asked
    if fitted.how == "firmware":
        yield from firmware(look, asked)
    elif fitted.how == "account":
        yield msgspec.structs.replace(_accounts(look, fitted), setting=f"bmc.account.{text(asked.value)}")
    elif fitted.how == "absent":
        yield _absent(look, fitted)
    else:
        word = Word.missing if fitted.how == "missing" else Word.unknown
        yield look.finding(asked, word, look.settings.get(asked.setting, NOTHING), fitted.reason)


def _accounts(look: Look, fitted: Ready) -> Finding:
    value = look.settings.get(fitted.asked.setting, NOTHING)
    return _absent(look, fitted) if isinstance(value, Nothing) else look.valued(fitted.asked, value)


def _absent(look: Look, fitted: Ready) -> Finding:
    word, reason = _why_not(look, fitted.asked, fitted.section)
    return look.finding(fitted.asked, word, NOTHING, reason)


def _why_not(look: Look, asked: Asked, section: str) -> tuple[Word, str]:
    """Why the snapshot does not have it."""
    snapshot, setting = look.snapshot, asked.setting
    unknown = snapshot.why_unknown(setting)
    if unknown is not None:
        return Word.unknown, why(unknown)
    names = look.names(section)
    if names:
        close = nearest(setting, names)
        if setting.startswith(_SERVICES) and asked.value is False and not _service(names, setting):
            return Word.unknown, "not modelled: the BMC lists no such service, which is to be off"
        return Word.missing, f"did you mean {close}?" if close else ""
    if isinstance(snapshot.identity, Unknown):
        return Word.unknown, why(snapshot.identity)
    if snapshot.power is PowerState.off:
        return Word.unknown, f"off: the host is off, and nothing of {section} was read"
    return Word.unknown, f"not modelled: nothing of {section} was read"


def _service(names: tuple[str, ...], setting: str) -> str:
    """The one most like it: a slip of the pen must not pass for a service that is not there."""
    known = tuple(f"service.{n.removeprefix(_SERVICES)}" for n in names if n.startswith(_SERVICES))
    return nearest(f"service.{setting.removeprefix(_SERVICES)}", known)


def _both(one: Found, other: Found) -> Found:
    """Two expectations for one setting, as one finding."""
    (a, first), (b, second) = one, other
    severity = max(first.severity, second.severity, key=_rank)
    worst = min(first, second, key=lambda f: WORST.index(f.word))
    expected, reason = first.expected, worst.reason
    if first.reason.startswith(_CONFLICT):
        worst, reason = first, first.reason
    elif (a.op, a.value) == (b.op, b.value):
        reason = "; ".join(dict.fromkeys(r for r in (first.reason, second.reason) if r))
    else:
        expected = f"{first.expected}; and {second.expected}"
        if a.op in _VALUES and b.op in _VALUES and not _common(a.value, b.value):
            worst = msgspec.structs.replace(second, word=Word.unknown)
            reason = f"{_CONFLICT}{_says(a)} and {_says(b)} cannot both be; take one out"
    return b, msgspec.structs.replace(worst, expected=expected, reason=reason, severity=severity)


def _common(one: Value, other: Value) -> bool:
    ones = one if isinstance(one, tuple) else (one,)
    others = other if isinstance(other, tuple) else (other,)
    return any(equal(x, y) for x in ones for y in others)


def _says(asked: Asked) -> str:
    setting = asked.want.setting
    field = (
        f"bios.{setting[len(NEUTRAL) :]}" if setting.startswith(NEUTRAL) else setting.replace("bios.", "bios_raw.", 1)
    )
    return f"{asked.expected} ({field} of {asked.want.profile or 'the profile'})"


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else -1
