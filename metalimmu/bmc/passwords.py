"""Which BIOS attributes hold passwords and the like: they are never kept, not even as null or as a hash.

A registry says it by type (`Password`), but not every BMC serves one; so names are looked at as well.
"""

from __future__ import annotations

import re

import msgspec

from metalimmu.observed.registry import Registry
from metalimmu.observed.snapshot import Snapshot

_NAME = re.compile(
    r"passw(?:or)?d|passphrase|(?<![a-z])pwd|secret|passcode|private_?key(?!.*(?:type|enable))|salt$"
    r"|(?:psk|shared|encryption)_?key$",
    re.IGNORECASE,
)
_STATES = re.compile(
    r"password_?(?:status|check|policy|lock|lockout|min|max|length|count|retry|retries|prompt|protect|jumper|enable|control|required)"
    r"|(?:minimum|maximum)\w*password",
    re.IGNORECASE,
)
"""Settings about passwords, which an operator wants to see drift."""


_QUESTION = re.compile(r"_[0-9A-F]{4}$")  # Supermicro's question ids


def is_secret(name: str) -> bool:
    name = _QUESTION.sub("", name)
    return _NAME.search(name) is not None and _STATES.search(name) is None


def without(snapshot: Snapshot, registry: Registry) -> Snapshot:
    """Leaves out what the registry calls a password."""
    hidden = {f"bios.{a.name}" for a in registry.attributes.values() if a.type == "Password"}
    if not hidden & (snapshot.settings.keys() | snapshot.staged.keys()):
        return snapshot
    return msgspec.structs.replace(
        snapshot,
        settings={k: v for k, v in snapshot.settings.items() if k not in hidden},
        staged={k: v for k, v in snapshot.staged.items() if k not in hidden},
    )
