"""What every document of a site is made of. Here and not in types.py, so that schedules and alerts have files of their own."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$",
        description="a name: lower case, digits, . _ -; at most 63",
        examples=["r12-u07"],
    ),
]
Duration = Annotated[
    str, Meta(pattern=r"^[0-9]{1,9}(ms|s|m|h|d)$", description="a time with its unit", examples=["10m", "30s", "1h"])
]


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Unknown fields are errors: a misspelt guard must not be a guard that is not there."""


class Tls(Document, frozen=True, kw_only=True):
    ca: str | None = None  # PEM file, relative to the site
    fingerprint: str | None = None  # SHA-256 of the server's certificate, hex, colons allowed
    verify: bool = True  # false is said aloud by every command
