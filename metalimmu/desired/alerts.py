"""Who is told of drift: `alerts: [...]` in site.yaml. Addresses that are as good as a password, and passwords, are references."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from metalimmu.desired.base import Document, Duration, Name

Severity = Literal["info", "warning", "critical"]
News = Literal["drift", "fixed", "unknown"]
Reference = Annotated[
    str,
    Meta(
        description="a reference to a secret, never the secret: env:NAME, file:PATH, keyring:SERVICE or vault:PATH",
        examples=["env:SLACK_URL"],
    ),
]
HttpUrl = Annotated[
    str,
    Meta(pattern=r"^https?://.+", description="an http:// or https:// URL", examples=["https://alerts.example.org"]),
]


class Webhook(Document, frozen=True, kw_only=True):
    """A POST of JSON, signed as https://www.standardwebhooks.com says."""

    url: HttpUrl
    secret: Reference  # the key of the signature: text, or whsec_ and base64
    ca: str | None = None  # PEM file, relative to the site; without it the system's


class Slack(Document, frozen=True, kw_only=True):
    """An incoming webhook of Slack, Mattermost, Rocket.Chat, …"""

    url: Reference  # to the URL: whoever has it can write into the channel
    ca: str | None = None  # PEM file, relative to the site; without it the system's


class Email(Document, frozen=True, kw_only=True):
    server: Annotated[
        str,
        Meta(
            pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s\[\]]+):[0-9]{1,5}$",
            description="HOST:PORT of an SMTP server",
            examples=["smtp.example.org:587"],
        ),
    ]
    sender: str
    to: Annotated[list[str], Meta(min_length=1)]
    tls: Literal["starttls", "implicit", "none"] = "starttls"  # none: for a server on this machine
    credentials: str | None = None  # reference to user name and password, as for BMCs
    ca: str | None = None  # PEM file, relative to the site; without it the system's


class Alertmanager(Document, frozen=True, kw_only=True):
    """Prometheus Alertmanager, API v2. It repeats, silences and routes by itself."""

    url: HttpUrl
    credentials: str | None = None  # reference to user name and password (Basic), as for BMCs
    ca: str | None = None  # PEM file, relative to the site; without it the system's
    hold: Duration = "3d"  # an alert ends by itself when nothing was heard for so long: more than two scans are apart
    labels: dict[str, str] = {}  # added to each alert


class Alert(Document, frozen=True, kw_only=True):
    """One receiver, by exactly one of webhook, slack, email and alertmanager."""

    name: Name
    webhook: Webhook | None = None
    slack: Slack | None = None
    email: Email | None = None
    alertmanager: Alertmanager | None = None
    news: list[News] = []  # drift, fixed, unknown; empty: all of them (`on` would be true in YAML)
    severity: Severity = "warning"  # of drift: this and above
    unknown_scans: Annotated[int, Meta(ge=1, description="a number of scans")] = 3  # not read so often in a row
    unknown_settings: Annotated[int, Meta(ge=0, description="a number of settings")] = 0
    """So many settings that its profile asks for may be unknown of a host that counts as read. With 0 a host that is only
    ever half read is told after `unknown_scans` like one that is silent.
    """
    scope: str | None = None  # a selector, as with -l; without it all hosts
