"""Backups that `serve` makes: `backup: {to: s3://bucket/prefix, every: 1h, keep: 48, passphrase: file:…}` in site.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from metalimmu.desired.base import Document, Duration


class Backup(Document, frozen=True, kw_only=True):
    to: Annotated[
        str,
        Meta(
            pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?|file:///.+)$",
            description="s3://BUCKET/PREFIX or file:///DIR",
            examples=["s3://backups/metalimmu"],
        ),
    ]
    every: Duration = "1h"
    keep: Annotated[int, Meta(ge=1, description="how many backups are kept there")] | None = None  # null: all
    chunks: Literal["reference", "include"] = "reference"  # images as lists of chunks, or whole
    passphrase: str | None = None  # reference to the passphrase: env:NAME or file:PATH
    age: str | None = None  # an age or SSH public key instead
    endpoint: str | None = None  # URL of an S3 service; without it AWS
    region: str = "us-east-1"
    credentials: str | None = None  # reference to access key (as user name) and secret; without it AWS_ACCESS_KEY_ID, …
    ca: str | None = None  # PEM file, relative to the site; without it the system's
