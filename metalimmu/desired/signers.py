"""`allowed_signers` of a site: whose signatures count under a plan. The format is ssh-keygen's (ssh-keygen(1), ALLOWED SIGNERS):

::

    alice@example.org ssh-ed25519 AAAA…
    bob@example.org,bob@old.example.org namespaces="metalimmu-plan",valid-before="20271231" ssh-ed25519 AAAA…

Each line names people, for an approval is a person's: patterns (`*@example.org`) and certificate authorities are refused.
Lines that share a name or a key are one person: nobody counts twice.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import NamedTuple

from metalimmu.desired.problems import Problem, visible

FILE = "allowed_signers"
MAX_BYTES = 1 << 20

_KEY = re.compile(
    r"(ssh-(rsa|ed25519|dss)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
)
_LINE = re.compile(r'("[^"]*"|\S+)\s+(?:((?:[^\s"]|"[^"]*")+)\s+)??(\S+)\s+([A-Za-z0-9+/=]+)(?:\s.*)?\Z')
_NAME = re.compile(r"[^\s,*?!\"]+")


class Signer(NamedTuple):
    """One line."""

    line: int
    principals: tuple[str, ...]
    options: str
    key_type: str
    key: bytes  # the public key, as it stands in a signature

    def text(self) -> str:
        """The line again, for ssh-keygen, without a comment."""
        parts = (",".join(self.principals), self.options, self.key_type, base64.b64encode(self.key).decode())
        return " ".join(p for p in parts if p) + "\n"


def parse(text: str, *, file: str = FILE) -> tuple[tuple[Signer, ...], list[Problem]]:
    """The lines that can be used, and what is wrong with the others."""
    found: list[Signer] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        signer = _signer(number, line.strip())
        if isinstance(signer, Signer):
            found.append(signer)
        else:
            problems.append(Problem(file, number, "", *signer))
    return tuple(found), problems


def _signer(number: int, line: str) -> Signer | tuple[str, str, str]:
    """Or: what was expected, what is there, what to write."""
    match = _LINE.match(line)
    if not match or not _KEY.fullmatch(match[3]):
        what = "a name and a public key of OpenSSH"
        return what, f'"{visible(line, 60)}"', "write NAME and what is in ~/.ssh/id_ed25519.pub"
    names = tuple(match[1].strip('"').split(","))
    options = match[2] or ""
    if "cert-authority" in options.lower():
        return "a person's own key", "a certificate authority", "write a line for each person, with that person's key"
    if not all(_NAME.fullmatch(n) and n.isprintable() for n in names):
        return (
            "names of one person",
            f'"{visible(match[1], 60)}"',
            "write one name, or several with commas, without * and ?",
        )
    try:
        key = base64.b64decode(match[4], validate=True)
    except (binascii.Error, ValueError):
        key = b""
    size = int.from_bytes(key[:4], "big")
    if key[4 : 4 + size] != match[3].encode():
        return "a public key of this type", f'"{visible(match[4], 40)}"', "copy the whole line of the .pub file"
    return Signer(number, names, options, match[3], key)


def people(signers: Iterable[Signer]) -> dict[int, str]:
    """Line -> the person's name, the first that was written of all that are the same person."""
    listed = list(signers)
    name_of = {s.line: s.principals[0] for s in listed}
    first: dict[str | bytes, int] = {}
    parent = {s.line: s.line for s in listed}

    def root(line: int) -> int:
        while parent[line] != line:
            line = parent[line]
        return line

    for signer in listed:
        marks: tuple[str | bytes, ...] = (*signer.principals, signer.key)
        for mark in marks:
            other = root(first.setdefault(mark, signer.line))
            here = root(signer.line)
            parent[max(here, other)] = min(here, other)
    return {s.line: name_of[root(s.line)] for s in listed}
