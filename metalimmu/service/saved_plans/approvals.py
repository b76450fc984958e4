"""Who has signed a plan, and whether that is enough.

A pool's `approvals: 1` wants its author and one other person. An author who has signed is known; one who has not may be
anybody, one of the signers too. So in both cases one person more than `approvals` says must have signed: nobody approves
his own plan, whatever name he made it under.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from metalimmu.desired.signers import FILE, MAX_BYTES, Signer, parse, people
from metalimmu.errors import NotApproved, PlanError
from metalimmu.plan.saved import Saved
from metalimmu.service.saved_plans.ssh import NAMESPACE, Signature, fingerprint, refusal, sign, signatures

SUFFIX = ".approvals"
_MOST = 64  # signatures that are looked at


class Approvals(msgspec.Struct, frozen=True, kw_only=True):
    people: tuple[str, ...] = ()  # who signed, each once, in order
    problems: tuple[str, ...] = ()  # signatures that do not count, and why
    text: str = ""  # the signatures that count


class Signers:
    """`allowed_signers` of a site as it is now. Raises PlanError."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        text = _read(self.file)
        self.signers, self.problems = parse(text)
        self._people = people(self.signers)

    def lines(self, key: bytes) -> list[Signer]:
        return [s for s in self.signers if s.key == key]

    def person(self, key: bytes) -> str | None:
        found = self.lines(key)
        return self._people[found[0].line] if found else None


def message(digest: str) -> bytes:
    return f"{digest}\n".encode()


def beside(file: Path) -> Path:
    return file.with_name(file.name + SUFFIX)


def read(file: Path, digest: str, signers: Signers) -> Approvals:
    """Verify what stands in FILE.approvals. Raises PlanError, ToolError."""
    found: dict[str, str] = {}
    problems: list[str] = []
    text = _read(beside(file))
    every = signatures(text)
    if text.strip() and not every:
        problems.append(f"{beside(file).name} holds no signature")
    if len(every) > _MOST:
        problems.append(f"{beside(file).name} holds {len(every)} signatures; the first {_MOST} are looked at")
    for signature in every[:_MOST]:
        person = signers.person(signature.key)
        if person in found:
            continue
        if why := _wrong(signature, digest, signers):
            problems.append(f"the signature of {person or fingerprint(signature.key)} does not count: {why}")
        elif person is not None:
            found[person] = signature.text
    good = [p for p in problems if not any(p.startswith(f"the signature of {name} ") for name in found)]
    return Approvals(people=tuple(found), problems=tuple(good), text="".join(found.values()))


def _wrong(signature: Signature, digest: str, signers: Signers) -> str:
    if signature.namespace != NAMESPACE:
        return f"it was made for {signature.namespace[:40]!r}, not for {NAMESPACE}"
    if signers.person(signature.key) is None:
        return f"{FILE} of the site does not have its key (any more)"
    return refusal(signature, message(digest), signers.lines(signature.key))


def require(saved: Saved, approvals: Approvals, wanted: int, pools: tuple[str, ...]) -> None:
    """`wanted`: people beside the author. Raises NotApproved."""
    if not wanted or len(approvals.people) > wanted:
        return
    author = saved.content.author.name
    signed = ", ".join(approvals.people) or "nobody"
    others = f"{wanted} other" + ("s" if wanted > 1 else "")
    text = f"pool {', '.join(pools)} wants this plan signed by its author and {others}; it was signed by {signed}"
    if author in approvals.people:
        left = wanted + 1 - len(approvals.people)
        hint = f"{left} more must sign who {'is' if left == 1 else 'are'} not {author}: `metalimmu approve FILE`"
    else:
        hint = f"{author}, who made it, has not signed: without that nobody knows whose plan it is. `metalimmu approve FILE`"
    raise NotApproved(text, problems=approvals.problems, hint=hint)


def add(file: Path, digest: str, key: Path, signers: Signers) -> str:
    """Sign, and put the signature into FILE.approvals. Returns the person's name; empty: that person has signed already.

    Raises NotApproved when the signature would not count, UsageError, ToolError.
    """
    signature = sign(message(digest), key)
    person = signers.person(signature.key)
    why = _wrong(signature, digest, signers)
    if why or person is None:
        raise NotApproved(
            f"this signature would not count: {why}",
            hint=f"have your key added to {signers.file}: a line with your name and what is in the .pub file",
        )
    if person in read(file, digest, signers).people:
        return ""
    with beside(file).open("a", encoding="utf-8") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        out.write(signature.text)
        out.flush()
        os.fsync(out.fileno())
    return person


def _read(path: Path) -> str:
    """Empty where there is no such file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise PlanError(f"{path} cannot be read: {exc.strerror}", hint="check its permissions") from exc
    if len(data) > MAX_BYTES:
        raise PlanError(
            f"{path} is larger than {MAX_BYTES >> 20} MiB", hint="it should hold a few lines for each person"
        )
    return data.decode(errors="replace")
