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
from metalimmu.desired.units import counted
from metalimmu.errors import MetalimmuError
from metalimmu.plan.types import DRIFT, Word
from metalimmu.plan.wanted import wanted
from metalimmu.service.scans.drift import findings
from metalimmu.service.scans.judge import Judge
from metalimmu.service.scans.outliers import few

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite
    from metalimmu.store.scan_records import About


ON_RESET = {
    "@Redfish.SettingsApplyTime": {"@odata.type": "#Settings.v1_3_0.PreferredApplyTime", "ApplyTime": "OnReset"}
}
"""DSP0268 Settings; without it the change waits for ever on an iDRAC."""


FIRST = {"method": "GET", "of": "the same url", "take": "ETag", "send as": "If-Match"}
"""RFC 9110 section 13.1.1. Else the answer is 428 Precondition Required (RFC 6585)."""


class Mend(msgspec.Struct, frozen=True, kw_only=True):
    """One host's BIOS settings to write. `uri` is the settings object that its BMC named."""

    host: str
    bmc: str  # base URL
    system: str  # URI
    uri: str
    attributes: dict[str, Scalar]
    on_reset: bool = False  # iDRAC applies nothing without a job; an apply time makes one
    needs_etag: bool = False  # refused without If-Match and the current ETag


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    setting: str
    why: str


def mends(site: OpenSite, hosts: Collection[str]) -> tuple[list[Mend], list[LeftOut]]:
    """By host. Waived drift is left out without a word."""
    judge = Judge(site.docs.profiles)
    found: list[Mend] = []
    left: list[LeftOut] = []
    for known in sorted(site.store.known_hosts(hosts), key=lambda k: k.host):
        host, about = known.host, known.about
        attributes: dict[str, Scalar] = {}
        asked = _asked(site, judge, host, about)
        for record in findings(site, (host,), DRIFT):
            f = record.finding
            why = "" if f.waived else _why_not(f.setting, f.word, asked, about.settings)
            if why:
                left.append(LeftOut(host=host, setting=f.setting, why=why))
            elif not f.waived:
                attributes[f.setting.removeprefix("bios.")] = asked[f.setting]
        if attributes:
            found.append(_mend(site, host, about, attributes))
    return found, left


def _asked(site: OpenSite, judge: Judge, host: str, about: About) -> dict[str, Scalar]:
    if not about.profile:
        return {}
    try:
        profile = judge.resolved(about.profile)
    except MetalimmuError:  # the profile of the last scan is no longer in the site
        return {}
    return wanted(profile, site.store.values(host), about.manufacturer, neutral=neutral())


def _why_not(setting: str, word: Word, asked: dict[str, Scalar], settings: str) -> str:
    if word in (Word.staged, Word.job_running):
        return f"{word}: it is on its way already"
    if not setting.startswith("bios."):
        return "no BIOS attribute"
    if word is Word.missing:
        return "the machine has no such attribute"
    if setting not in asked:
        return "the profile does not say one value to write"
    return "" if settings else "the BMC names no @Redfish.Settings object to write to"


def _mend(site: OpenSite, host: str, about: About, attributes: dict[str, Scalar]) -> Mend:
    make = facts(make_of(about.manufacturer))
    return Mend(
        host=host,
        bmc=base_url(site.spec(host).bmc),
        system=about.system,
        uri=about.settings,
        attributes=dict(sorted(attributes.items())),
        on_reset=make.needs_job,
        needs_etag=make.needs_etag,
    )


def redfish(found: list[Mend]) -> str:
    """A JSON list: one PATCH per host (DSP0266: settings resources are patched, and apply at the next reset).

    `first` is there where the make refuses the PATCH without its answer: an ETag is of the moment, so none is given here.
    """
    requests = [
        {
            "host": m.host,
            "method": "PATCH",
            "url": m.bmc + m.uri,
            "uri": m.uri,
            **({"first": FIRST} if m.needs_etag else {}),
            "headers": {"Content-Type": "application/json"},
            "body": {"Attributes": m.attributes, **(ON_RESET if m.on_reset else {})},
        }
        for m in found
    ]
    return json.dumps(requests, indent=2, ensure_ascii=False) + "\n"


_PLAYBOOK = """\
# BIOS settings that differ from their profiles, as `metalimmu drift export` found them.
# Needs the collection community.general; give bmc_username and bmc_password, for example with --extra-vars @secrets.yaml.
# It reads each settings object first and sends its ETag as If-Match, which some makes demand.
# The settings take effect at the next reboot of each host.
"""


def ansible(found: list[Mend]) -> str:
    """A playbook with one play, and a task per host; on a make that applies nothing without a job, one more makes the job."""
    play: dict[str, Any] = {
        "name": "BIOS settings to mend",
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [task for m in found for task in _tasks(m)],
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


def _tasks(mend: Mend) -> Iterator[dict[str, Any]]:
    scheme, _, address = mend.bmc.partition("://")
    where = {
        "baseuri": address if scheme == "https" else mend.bmc,
        "username": "{{ bmc_username }}",
        "password": "{{ bmc_password }}",
    }
    module: dict[str, Any] = {
        "category": "Systems",
        "command": "SetBiosAttributes",
        **where,
        "bios_attributes": {_plain(name): _plain(value) for name, value in mend.attributes.items()},
    }
    if mend.system:
        module["resource_id"] = _plain(mend.system.rstrip("/").rpartition("/")[2])
    setting = {"name": f"{mend.host}: {len(mend.attributes)} BIOS settings", "community.general.redfish_config": module}
    if not mend.on_reset:
        yield setting
        return
    yield setting | {"register": "bios_settings"}
    yield {
        "name": f"{mend.host}: the job that applies them at the next reboot",
        "community.general.idrac_redfish_command": {"category": "Systems", "command": "CreateBiosConfigJob", **where},
        "when": "bios_settings is changed",
    }


def remarks(found: list[Mend]) -> Iterator[str]:
    """What who sends the requests must know."""
    if picky := [m.host for m in found if m.needs_etag]:
        yield (
            f"{few(picky)}: refused (428) without If-Match: GET the url first and send its ETag,"
            " as `first` says in the requests"
        )


def left_out(found: list[LeftOut]) -> Iterator[str]:
    """Each reason once, with how many settings of how many hosts."""
    reasons: dict[str, list[LeftOut]] = {}
    for one in found:
        reasons.setdefault(one.why, []).append(one)
    for why, members in reasons.items():
        hosts = len({m.host for m in members})
        yield f"{counted(len(members), 'setting')} of {counted(hosts, 'host')} left out: {why}"
