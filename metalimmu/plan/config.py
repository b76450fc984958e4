"""The run-time config that a machine has against the one that the site says now. Pure.

In texts that are kept, `(secret REF HASH)` stands for a secret; see service.config.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

import msgspec

from metalimmu.plan.types import Finding, Word

SETTING = "config.digest"
SALT_FILE = "metalimmu.salt"  # beside secrets, so that the digest cannot be used to guess them
MARK_HEX = 16  # digits of a secret's keyed hash

_MARK = re.compile(rf"\(secret ((?:env|file|keyring|vault):[^()\n]+?) ([0-9a-f]{{{MARK_HEX}}})\)")
_SHOWN = 16  # digits of a digest in a finding

Files = Mapping[str, str]


class Has(msgspec.Struct, frozen=True, kw_only=True):
    """What the controller knows of a machine's config. Times in seconds since 1970."""

    deployment: str
    digest: str  # of what it was given last
    files: dict[str, str]
    key: str  # id of the key of the hashes
    at: float = 0.0
    seen: str = ""  # digest over the machine's files, by its own word
    seen_at: float = 0.0
    pushed: str = ""  # a push that it has not applied yet, in words
    why: str = ""  # what keeps anybody from knowing: the machine is just being deployed, …


class Says(msgspec.Struct, frozen=True, kw_only=True):
    """What the site's documents give now. `digest` empty: its secrets are not known, and `files` only name them."""

    files: dict[str, str]
    digest: str = ""
    key: str = ""
    why: str = ""  # it does not render, or why the secrets are not known


class FileChange(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    change: str  # changed | added | removed
    lines: tuple[str, ...]  # unified diff, without secrets


def finding(host: str, has: Has | None, says: Says, *, now: float) -> Finding:
    """`config.digest`: match, differs or unknown."""
    if has is None:
        return _found(host, Word.unknown, now, reason="metalimmu has not deployed it: nobody knows its config")
    actual = has.seen or has.digest
    if has.why or not (says.files or says.digest):
        return _found(host, Word.unknown, now, actual=actual, reason=has.why or says.why)
    changed = words(has, says)
    if not _comparable(has, says):
        why = says.why or "its secrets cannot be compared: the site's key is not the one that it was deployed with"
        word, reason = (Word.differs, f"{changed}; {_choice(host)}") if changed else (Word.unknown, why)
        return _found(host, word, now, expected=says.digest, actual=actual, reason=reason)
    if says.digest == actual:
        return _found(host, Word.match, now, expected=says.digest, actual=actual)
    reasons = [changed] if changed else []
    if has.seen and has.seen != has.digest:
        reasons.append("the machine says that it has another config than it was given")
    reasons.append(has.pushed or _choice(host))
    return _found(host, Word.differs, now, expected=says.digest, actual=actual, reason="; ".join(reasons))


def _choice(host: str) -> str:
    return f"applied at the next reimage, or by `metalimmu config push {host}`"


def _found(host: str, word: Word, now: float, *, expected: str = "", actual: str = "", reason: str = "") -> Finding:
    return Finding(
        setting=SETTING,
        word=word,
        expected=expected[:_SHOWN],
        actual=actual[:_SHOWN],
        reason=reason,
        source="store",
        at=now,
        host=host,
        severity="warning",
    )


def _comparable(has: Has, says: Says) -> bool:
    """Are secrets known, and hashes of the same key? Without secrets nothing of this matters."""
    if not says.digest:
        return False
    return has.key == says.key or SALT_FILE not in has.files


def words(has: Has, says: Says) -> str:
    """Which files differ, and which secrets have changed; empty: as far as is known none."""
    files = [f"{c.path} {c.change}" for c in changes(has, says)]
    return ", ".join(files)


def changes(has: Has, says: Says) -> list[FileChange]:
    """File by file, those that differ."""
    hashes = _comparable(has, says)
    found = []
    for path in sorted({*has.files, *says.files} - {SALT_FILE}):
        old, new = has.files.get(path), says.files.get(path)
        before, after = _shown(old, new, hashes)
        if (old is None) is (new is None) and before == after:
            continue
        change = "added" if old is None else "removed" if new is None else "changed"
        lines = difflib.unified_diff(
            before.splitlines(), after.splitlines(), f"deployed/{path}", f"now/{path}", lineterm=""
        )
        found.append(FileChange(path=path, change=change, lines=tuple(lines)))
    return found


def _shown(old: str | None, new: str | None, hashes: bool) -> tuple[str, str]:
    """Both sides without hashes; a secret that has changed is marked on the new side."""
    known = set(_MARK.findall(old or "")) if hashes else set()
    refs = {ref for ref, _ in known}

    def mark(match: re.Match[str]) -> str:
        changed = match[1] in refs and (match[1], match[2]) not in known
        return f"(secret {match[1]}, changed)" if changed else f"(secret {match[1]})"

    return masked(old or ""), _MARK.sub(mark, new or "")


def masked(text: str) -> str:
    """For people: secrets by their references alone."""
    return _MARK.sub(r"(secret \1)", text)


def secrets(files: Files) -> list[str]:
    """References of the secrets in kept files."""
    return sorted({ref for text in files.values() for ref, _ in _MARK.findall(text)})
