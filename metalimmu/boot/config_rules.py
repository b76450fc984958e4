"""Config pushes as a machine's reports move them on, and what it is offered: pure. See plan.push for their life."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from metalimmu import log
from metalimmu.boot.ports import Deployment
from metalimmu.plan import push as pushes
from metalimmu.wire.messages import ConfigOffer, SystemReport

KEY_BYTES = 32  # RFC 8032
MAX_WHY = 2000  # characters of the machine's words

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def heard(d: Deployment, said: SystemReport, now: float) -> dict[str, Any]:
    """Fields that change by the report of the system that was written, on its machine."""
    fields: dict[str, Any] = {}
    if _DIGEST.match(said.config_digest):
        fields |= {"config_seen": said.config_digest, "config_seen_at": now}
    if not d.host_key and said.key and key_bytes(said.key) is not None:
        fields["host_key"] = (
            said.key
        )  # the first one, from the boot that brought the proof: later ones are somebody else's
    push = d.push
    if push is None:
        return fields
    if push.open and said.config_digest == push.digest:
        fields |= pushes.applied(push, now)
    elif push.state in ("waiting", "fetched", "applied") and said.config_failed == push.serial:
        fields |= pushes.failed(push, now, words(said.config_why) or "the machine does not say why")
    return fields


def wanted(d: Deployment, said: SystemReport) -> ConfigOffer | None:
    """The config that this machine does not have yet. Whether it may have it now is another question."""
    push = d.push
    if push is None or not push.open or said.config_digest == push.digest:
        return None
    return ConfigOffer(push.serial, push.digest)


def keyless(d: Deployment, said: SystemReport) -> str:
    """Why nothing could be given to the machine that said this; empty: it has the key that it registered."""
    if not said.key:
        return "its system has no unit that fetches configs (its image is too old, or was not built by metalimmu)"
    if said.key != d.host_key:
        return "its key is not the one that it registered at its first boot: reimage it"
    return ""


def key_bytes(text: str) -> bytes | None:
    """The public key in a report, or None where that is none."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == KEY_BYTES else None


def words(text: str) -> str:
    """A machine's text goes to an operator's terminal: lines stay, other control characters do not. The machine has taken
    the config's secrets out; it is done again here with those that this process knows.
    """
    text = log.redact(text)
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text[:MAX_WHY]).strip()
