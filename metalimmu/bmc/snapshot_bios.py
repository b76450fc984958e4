"""BIOS attributes, what waits for the next reboot, and the jobs that will change something."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from metalimmu.bmc import answers, passwords
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.reading import Reading
from metalimmu.bmc.redfish_inventory import attributes, scalar
from metalimmu.bmc.tree import ROOT
from metalimmu.bmc.unknown import unknown
from metalimmu.errors import BmcError, BmcUnsupported
from metalimmu.observed.snapshot import Job, Scalar
from metalimmu.observed.types import Unknown

TASKS = f"{ROOT}TaskService/Tasks"
FINISHED = frozenset(
    {
        "Completed",
        "CompletedWithErrors",
        "Failed",
        "Killed",
        "Exception",
        "Cancelled",
        "RebootCompleted",
        "RebootFailed",
    }
)
"""TaskState and JobState of DSP0268, and Dell's own words."""

MOST_JOBS = 10
"""Read one by one where `$expand` is not to be had: iDRAC keeps 256 finished jobs, with the newest number highest."""

LONGEST_TEXT = 4000
_REFUSED = re.compile(r"Fail|Error|NotSupported|Invalid|Unknown|NotInList|TypeError|FormatError|Conflict|ReadOnly")
_ABOUT = (
    ("bios", re.compile(r"bios|/settings", re.IGNORECASE)),
    ("firmware", re.compile(r"firmware|update|repository", re.IGNORECASE)),
)


def read(reading: Reading) -> Asking[None]:
    """Fills bios.*, with their source and the name of the registry."""
    system = reading.the_system()
    doc = yield from _bios(reading)
    reading.sources["bios"] = doc.uri
    reading.registry = doc.text("AttributeRegistry")
    found = attributes(doc, system)
    if isinstance(found, Unknown):
        reading.unknown["bios"] = found
        return
    settings = reading.settings
    for name, value in found.items():
        setting = _setting(name)
        if setting:
            settings[setting] = value if type(value) is int or value is None else _clean(value)


def _bios(reading: Reading) -> Asking[Doc]:
    system = reading.the_system()
    if not system.link("Bios"):
        raise BmcUnsupported(f"{system.uri} has no Bios")
    return (yield from reading.tree.read(system.link("Bios")))


def _refused(bios: Doc) -> list[str]:
    """What @Redfish.Settings (DSP0268) says of the last attempt."""
    settings = bios.part("@Redfish.Settings")
    messages = [Doc(m, bios.uri) for m in settings.items("Messages") if isinstance(m, dict)]
    bad = [m for m in messages if _REFUSED.search(m.text("MessageId"))]
    return [" ".join((m.text("MessageId"), *m.texts("RelatedProperties")[:5])) for m in bad[:3]]


@lru_cache(maxsize=1 << 16)
def _setting(attribute: str) -> str:
    """Its name among the settings, one text for all machines that have it; empty for a password."""
    return "" if passwords.is_secret(attribute) else f"bios.{attribute}"


def _clean(value: Any) -> Scalar:
    """Text as it is, but for control characters: a blank may be part of a value."""
    if not isinstance(value, str):
        return scalar(value)
    return value if value.isprintable() and len(value) <= LONGEST_TEXT else answers.clean(value, LONGEST_TEXT)


def pending(reading: Reading) -> Asking[None]:
    """Fills `staged`, and `jobs`."""
    yield from reading.section("pending", _staged(reading))
    try:
        reading.jobs = yield from _jobs(reading)
    except BmcError as exc:
        reading.jobs = unknown(exc)
    if reading.staged and reading.places.jobs is not None and reading.jobs == ():
        # iDRAC applies nothing by itself: they would wait for ever.
        reading.note(f"{len(reading.staged)} BIOS settings wait for a reboot, and no job is there to apply them")


def _staged(reading: Reading) -> Asking[None]:
    """Only what differs from the current value: Lenovo and HPE mirror everything, Dell and OpenBMC send `{}`, Supermicro
    no Attributes at all, and where no settings object is linked nothing can wait.
    """
    doc = yield from _bios(reading)
    if doc.flag("ResetBiosToDefaultsPending"):
        reading.note("the BIOS goes back to its defaults with the next reboot")
    for text in _refused(doc):
        reading.note(f"the last change of BIOS settings was not applied: {text}")
    uri = doc.link("@Redfish.Settings", "SettingsObject")
    if not uri:
        return
    reading.sources["pending"] = uri  # where a change is written to
    waiting = (yield from reading.tree.read(uri)).part("Attributes").data
    now = doc.part("Attributes").data
    if len(waiting) < len(now):
        reading.waiting = tuple(setting for name in waiting if (setting := _setting(name)))
    for name, value in waiting.items():
        if value != now.get(name) and (setting := _setting(name)):
            reading.staged[setting] = _clean(value)


def _jobs(reading: Reading) -> Asking[tuple[Job, ...]]:
    """Unfinished ones alone."""
    uri = ""
    if reading.places.jobs is not None:
        try:
            uri = yield from reading.link(reading.places.jobs)
        except BmcUnsupported:
            uri = ""  # an older one; it may have tasks
    if uri:
        found = yield from _newest(reading, uri)
    else:
        found = yield from reading.collection("jobs", TASKS, lambda: _tasks(reading), job)
    return tuple(j for j in found if j.state not in FINISHED)


def _newest(reading: Reading, uri: str) -> Asking[tuple[Job, ...]]:
    expansion = reading.collections.expansion
    if expansion.offered and expansion.right.get("jobs") is not False:
        return (yield from reading.collections.parsed(uri, job, kind="jobs"))
    members = sorted((yield from reading.tree.members(uri)), key=lambda m: (len(m), m), reverse=True)
    return (yield from reading.collections.members(members[:MOST_JOBS], job))


def _tasks(reading: Reading) -> Asking[str]:
    root = yield from reading.tree.read(ROOT)
    for service, name in (("Tasks", "Tasks"), ("JobService", "Jobs")):
        if root.link(service):
            uri = (yield from reading.tree.read(root.link(service))).link(name)
            if uri:
                return uri
    raise BmcUnsupported("the service has neither tasks nor jobs")


def job(doc: Doc) -> Job:
    name = doc.text("Name") or doc.text("Id")
    words = " ".join(
        (
            name,
            doc.text("JobType"),
            doc.text("Payload", "TargetUri"),
            doc.text("TargetSettingsURI"),
            doc.text("Description"),
        )
    )
    return Job(
        id=doc.text("Id"),
        name=name,
        state=doc.text("TaskState") or doc.text("JobState"),
        about=next((about for about, pattern in _ABOUT if pattern.search(words)), "other"),
        uri=doc.uri,
        percent=doc.number("PercentComplete"),
    )
