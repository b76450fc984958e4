"""`drift export`: what to mend, for those who mend by other means: bodies of Redfish requests, or an Ansible playbook.

Only BIOS attributes that differ and whose one right value is known; the rest is listed with the reason. Nothing is sent.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from metalimmu.bmc.address import base_url
from metalimmu.desired.makes import facts, make_of
from metalimmu.desired.neutral import neutral
from metalimmu.desired.profile import Scalar
from metalimmu.errors import MetalimmuError
from metalimmu.plan.types import DRIFT, Word
from metalimmu.plan.wanted import wanted
from metalimmu.service.scans.drift import findings
from metalimmu.service.scans.judge import Judge

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite


ON_RESET = {
    "@Redfish.SettingsApplyTime": {"@odata.type": "#Settings.v1_3_0.PreferredApplyTime", "ApplyTime": "OnReset"}
}
"""DSP0268 Settings; without it the change waits for ever on an iDRAC."""


class Mend(msgspec.Struct, frozen=True, kw_only=True):
    """One host's BIOS settings to write. `uri` is the settings object that its BMC named; empty: it named none."""

    host: str
    bmc: str  # base URL
    system: str  # URI
    uri: str
    attributes: dict[str, Scalar]
    on_reset: bool = False  # iDRAC applies nothing without a job; an apply time makes one


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    setting: str
    why: str


def mends(site: OpenSite, hosts: Collection[str]) -> tuple[list[Mend], list[LeftOut]]:
    """By host. Waived drift is left out without a word."""
    judge = Judge(site.docs.profiles)
    found: list[Mend] = []
    left: list[LeftOut] = []
    for host in sorted(hosts):
        attributes: dict[str, Scalar] = {}
        asked = _asked(site, judge, host)
        for record in findings(site, (host,), DRIFT):
            f = record.finding
            why = "" if f.waived else _why_not(f.setting, f.word, asked)
            if why:
                left.append(LeftOut(host=host, setting=f.setting, why=why))
            elif not f.waived:
                attributes[f.setting.removeprefix("bios.")] = asked[f.setting]
        if attributes:
            found.append(_mend(site, host, attributes))
    return found, left


def _asked(site: OpenSite, judge: Judge, host: str) -> dict[str, Scalar]:
    known = next(site.store.known_hosts((host,)), None)
    if known is None or not known.about.profile:
        return {}
    try:
        profile = judge.resolved(known.about.profile)
    except MetalimmuError:  # the profile of the last scan is no longer in the site
        return {}
    return wanted(profile, site.store.values(host), known.about.manufacturer, neutral=neutral())


def _why_not(setting: str, word: Word, asked: dict[str, Scalar]) -> str:
    if word in (Word.staged, Word.job_running):
        return f"{word}: it is on its way already"
    if not setting.startswith("bios."):
        return "no BIOS attribute"
    if word is Word.missing:
        return "the machine has no such attribute"
    return "" if setting in asked else "the profile does not say one value to write"


def _mend(site: OpenSite, host: str, attributes: dict[str, Scalar]) -> Mend:
    about = next(site.store.known_hosts((host,))).about
    return Mend(
        host=host,
        bmc=base_url(site.spec(host).bmc),
        system=about.system,
        uri=about.settings,
        attributes=dict(sorted(attributes.items())),
        on_reset=facts(make_of(about.manufacturer)).needs_job,
    )


def redfish(found: list[Mend]) -> str:
    """A JSON list: one PATCH per host (DSP0266: settings resources are patched, and apply at the next reset)."""
    requests = [
        {
            "host": m.host,
            "method": "PATCH",
            "url": m.bmc + (m.uri or "(this BMC names no @Redfish.Settings object)"),
            "uri": m.uri,
            "headers": {"Content-Type": "application/json"},
            "body": {"Attributes": m.attributes, **(ON_RESET if m.on_reset else {})},
        }
        for m in found
    ]
    return json.dumps(requests, indent=2, ensure_ascii=False) + "\n"


_PLAYBOOK = """\
# BIOS settings that differ from their profiles, as `metalimmu drift export` found them.
# Needs the collection community.general; give bmc_username and bmc_password, for example with --extra-vars @secrets.yaml.
# The settings take effect at the next reboot of each host.
"""


def ansible(found: list[Mend]) -> str:
    """A playbook with one play and a task per host."""
    play: dict[str, Any] = {
        "name": "BIOS settings to mend",
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [_task(m) for m in found],
    }
    text: str = yaml.dump([play], Dumper=_Playbook, sort_keys=False, allow_unicode=True, width=120)
    return _PLAYBOOK + text


class _Playbook(yaml.SafeDumper):
    """What came from a BMC or a captured profile is never a template: Ansible would run what stands in its braces."""


class _Unsafe(str):
    __slots__ = ()


_Playbook.add_representer(_Unsafe, lambda dumper, value: dumper.represent_scalar("!unsafe", str(value), style="'"))


def _plain(value: Scalar) -> Scalar:
    return _Unsafe(value) if isinstance(value, str) and "{" in value else value


def _task(mend: Mend) -> dict[str, Any]:
    scheme, _, address = mend.bmc.partition("://")
    module: dict[str, Any] = {
        "category": "Systems",
        "command": "SetBiosAttributes",
        "baseuri": address if scheme == "https" else mend.bmc,
        "username": "{{ bmc_username }}",
        "password": "{{ bmc_password }}",
        "bios_attributes": {_plain(name): _plain(value) for name, value in mend.attributes.items()},
    }
    if mend.system:
        module["resource_id"] = _plain(mend.system.rstrip("/").rpartition("/")[2])
    return {"name": f"{mend.host}: {len(mend.attributes)} BIOS settings", "community.general.redfish_config": module}


def left_out(found: list[LeftOut]) -> Iterator[str]:
    """Each reason once, with how many settings of how many hosts."""
    reasons: dict[str, list[LeftOut]] = {}
    for one in found:
        reasons.setdefault(one.why, []).append(one)
    for why, members in reasons.items():
        yield f"{len(members)} settings of {len({m.host for m in members})} hosts left out: {why}"
