"""One machine as a comparison sees it: the snapshot, what is staged, which jobs are not finished. Pure.

===================  =============  ===========  =====================================================================
the current value    staged         a job [1]_   word
===================  =============  ===========  =====================================================================
fits                 -              -            match
fits                 -              yes          job-running: Dell shows what is to come as if it were there already
fits                 fits too       any          match
fits                 does not fit   any          differs: the staged change will break it at the next boot
does not fit         fits           at work      job-running
does not fit         fits           -, waiting   staged
does not fit         does not fit   any          differs
does not fit         -              yes          job-running: what it will change is not known
does not fit         -              -            differs; but unknown if it is read-only, or empty while the host is off
cannot be judged     any            any          unknown
===================  =============  ===========  =====================================================================

.. [1] An unfinished job about the BIOS holds for bios, boot and secure_boot, or for those settings alone that the settings
   object lists; one about firmware for all firmware.

Read-only attributes are never drift: nobody can set them. One that has the value is a match; one that has not is
`unknown: read-only`, and `profile lint` says what to take out of the profile or which other setting decides it.
"""

from __future__ import annotations

import re

import msgspec

from metalimmu.desired.makes import Make, facts, make_of
from metalimmu.observed.registry import Registry
from metalimmu.observed.snapshot import Job, Snapshot, Value
from metalimmu.observed.types import PowerState, SystemIdentity, Unknown
from metalimmu.plan.ready import Asked
from metalimmu.plan.types import Finding, Word
from metalimmu.plan.values import YES, Verdict, judge, text

_ABOUT = {"bios": "bios", "boot": "bios", "secure_boot": "bios", "firmware": "firmware"}  # section -> Job.about
# States of jobs that are being carried out now, by Redfish (DSP0268 JobState, TaskState) and Dell; others wait.
_AT_WORK = {"running", "starting", "stopping", "cancelling", "downloading", "completing", "validating", "rebooting"}
_MAC = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{12}(?![0-9A-Za-z])")
_STAGED = " staged)"
_EMPTY: tuple[Value, ...] = ("", (), None)


class Nothing:
    """The value of a setting that is not there; None is a value that BMCs send."""


NOTHING = Nothing()


class Look:
    """What is the same for all expectations of one host."""

    __slots__ = ("_names", "facts", "jobs", "jobs_unknown", "make", "now", "registry", "settings", "simple", "snapshot", "staged")  # fmt: skip

    def __init__(self, snapshot: Snapshot, registry: Registry | None, now: float) -> None:
        self.snapshot = snapshot
        self.settings = snapshot.settings
        self.staged = snapshot.staged
        self.registry = registry
        self.now = now
        self.make = make_of(*_said(snapshot, registry))
        self.facts: Make = facts(self.make)
        jobs = snapshot.jobs
        self.jobs: dict[str, Job] = {} if isinstance(jobs, Unknown) else {job.about: job for job in jobs}
        self.jobs_unknown = jobs if isinstance(jobs, Unknown) and self.facts.early else None
        self._names: dict[str, tuple[str, ...]] = {}
        self.simple = not self.staged and not self.jobs and self.jobs_unknown is None

    def names(self, section: str) -> tuple[str, ...]:
        """Of the settings in that section; without those that hold a MAC address, which no two machines have (Lenovo)."""
        found = self._names.get(section)
        if found is None:
            dotted = f"{section}."
            found = tuple(n for n in self.settings if n.startswith(dotted) and not _MAC.search(n))
            self._names[section] = found
        return found

    def job(self, setting: str) -> Job | None:
        return self.jobs.get(_ABOUT.get(setting.partition(".")[0], "")) if self.jobs else None

    def kind(self, setting: str) -> str:
        """The registry's type of a BIOS attribute."""
        if self.registry is None or not setting.startswith("bios."):
            return ""
        found = self.registry.attributes.get(setting[5:])
        return found.type if found else ""

    def read_only(self, setting: str) -> bool:
        if self.registry is None or not setting.startswith("bios."):
            return False
        found = self.registry.attributes.get(setting[5:])
        return found is not None and (found.read_only or found.immutable)

    def judge(self, asked: Asked, value: Value, *, version: bool = False) -> Verdict:
        wanted, op = asked.value, asked.op
        kind = type(value)  # lists are for `judge`: (0,) == (False,)
        if op == "equals" and not version and kind is type(wanted) and kind is not tuple and value == wanted:
            return YES
        return judge(op, wanted, value, kind=self.kind(asked.setting), now=self.now, version=version)

    def valued(self, asked: Asked, value: Value, *, version: bool = False, section: str = "") -> Finding:
        """The finding for a setting that has a value. `section` is where the setting is, if that is known already."""
        verdict = self.judge(asked, value, version=version)
        if verdict.fits and self.simple:
            return self.finding(asked, Word.match, value, verdict.reason, section=section)
        word, reason = self._weighed(asked, value, verdict, version)
        found = self.finding(asked, word, value, reason, section=section)
        if verdict.fits and word is Word.differs:  # what is there is right, and will not stay
            pending = text(self.staged[asked.setting])
            return msgspec.structs.replace(found, actual=f"{found.actual} ({pending}{_STAGED}")
        return found

    def _weighed(self, asked: Asked, value: Value, verdict: Verdict, version: bool) -> tuple[Word, str]:
        fits = verdict.fits
        if fits is None:
            return Word.unknown, verdict.reason
        job = self.job(asked.setting) if self.jobs and self._may_change(asked.setting) else None
        staged = self.staged.get(asked.setting, NOTHING)
        if not isinstance(staged, Nothing):
            return self._with_staged(fits, self.judge(asked, staged, version=version), text(staged), job)
        if job is not None:
            return Word.job_running, f"{_job(job)}: what is shown may be what comes after it"
        if fits:
            return Word.match, self._doubt(verdict.reason)
        if self.snapshot.power is PowerState.off and value in _EMPTY:
            return Word.unknown, "off: the host is off, and the answer is empty"
        if self.read_only(asked.setting):
            return Word.unknown, "read-only: nobody can set it, so it is no drift; `profile lint` says what decides it"
        return Word.differs, verdict.reason

    def _may_change(self, setting: str) -> bool:
        """May a job change it? A settings object that lists a few attributes says which; the order of boot goes by
        attributes of its own (Dell).
        """
        waiting = self.snapshot.waiting
        if not waiting or setting.startswith("firmware."):
            return True
        return setting in waiting or (not setting.startswith("bios.") and any("boot" in w.casefold() for w in waiting))

    def _with_staged(self, fits: bool, then: Verdict, pending: str, job: Job | None) -> tuple[Word, str]:
        if fits:
            if then.fits:
                return Word.match, f"{pending} is staged, which fits as well"
            return Word.differs, f"{pending} is staged: a staged change will break it at the next boot"
        if not then.fits:
            return Word.differs, f"{pending} is staged, which is not it either"
        if job is not None and job.state.casefold() in _AT_WORK:
            return Word.job_running, f"{_job(job)}, which brings {pending}"
        if job is not None:
            return Word.staged, f"{pending} comes with the next boot; {_job(job)}"
        if self.facts.needs_job and not isinstance(self.snapshot.jobs, Unknown):
            return Word.staged, f"{pending} is staged, but no job will apply it: create a configuration job"
        return Word.staged, f"{pending} comes with the next boot"

    def _doubt(self, reason: str) -> str:
        if self.jobs_unknown is None:
            return reason
        return f"jobs could not be read ({self.jobs_unknown.reason.value}): this BMC shows what is to come as if it were there"

    def finding(self, asked: Asked, word: Word, actual: Value | Nothing, reason: str, *, section: str = "") -> Finding:
        want, snapshot, setting, note = asked.want, self.snapshot, asked.setting, asked.note
        sources = snapshot.sources
        if want.because and word is not Word.match:
            note = f"{note}; because {want.because}" if note else f"because {want.because}"
        return Finding(
            setting=setting,
            word=word,
            expected=asked.expected,
            actual="" if isinstance(actual, Nothing) else text(actual),
            reason=f"{reason}; {note}" if reason and note else reason or note,
            source=sources.get(setting) or sources.get(section or setting.partition(".")[0], ""),
            at=snapshot.at,
            host=snapshot.host,
            severity=want.severity,
            owner=want.owner,
            profile=want.profile,
        )


def is_staged(finding: Finding) -> bool:
    """Is it what waits for a reboot that makes this finding: what will mend the setting, or break it?"""
    return finding.word is Word.staged or (finding.word is Word.differs and finding.actual.endswith(_STAGED))


def _said(snapshot: Snapshot, registry: Registry | None) -> tuple[str, ...]:
    """Texts in which the machine says who made it."""
    identity = snapshot.identity.manufacturer if isinstance(snapshot.identity, SystemIdentity) else ""
    bmc = {} if isinstance(snapshot.bmc, Unknown) else snapshot.bmc
    return identity, bmc.get("manufacturer", ""), bmc.get("model", ""), registry.owner if registry else ""


def _job(job: Job) -> str:
    name = f" ({job.name})" if job.name else ""
    return f"job {job.id}{name} is {job.state or 'not finished'}"
