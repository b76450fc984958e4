"""What a site wants done and looked at around a reimage: `hooks:` and `health:` of pools and roles.

A hook is a program of the site or an HTTP request. What is done before a machine is taken away from its users has an
`undo`, for runs that do not go on. Text in commands, URLs, headers, bodies and queries is a template (desired.render).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from metalimmu.desired.alerts import Reference
from metalimmu.desired.base import Document, Duration, Tls

Command = (
    Annotated[
        str, Meta(description="a program and its arguments, run without a shell", examples=["./drain {{ name }}"])
    ]
    | list[str]
)
Variable = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$", description="the name of a variable", examples=["LB_TOKEN"]),
]
Url = Annotated[
    str,
    Meta(pattern=r"^https?://.+", description="an http:// or https:// URL", examples=["https://lb.example.org/drain"]),
]
Pattern = Annotated[str, Meta(description="a regular expression", examples=["^ok"])]
Status = Annotated[int, Meta(ge=100, le=599)]


class Http(Document, frozen=True, kw_only=True):
    """One request. Redirects are not followed: who answers is who was named."""

    url: Url
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] | None = None  # POST for a hook, GET for health
    headers: dict[str, str] = {}  # {{ secrets.NAME }} is one of `secrets:`
    body: str | None = None  # without one, the POST, PUT or PATCH of a hook carries the change as JSON
    status: Status | list[Status] | None = None  # the answer's; without it any 2xx
    expect: Pattern | None = None  # what the answer's body must contain
    tls: Tls | None = None  # without it the CAs of this machine


class Call(Document, frozen=True, kw_only=True):
    """What hooks and checks have in common."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="a name")] | None = None
    command: Command | None = None  # relative to the site's folder; 0 is good, any other exit status is not
    output: Pattern | None = None  # what the command's output must contain
    env: list[Variable] = []  # variables of metalimmu's own environment that the command gets too
    secrets: dict[Variable, Reference] = {}  # variables of the command, or {{ secrets.NAME }} in headers and body


class Undo(Call, frozen=True, kw_only=True):
    """Takes a hook back when the run does not go on."""

    http: Url | Http | None = None
    limit: Duration = "5m"  # then the command, and all that it started, is ended
    when: Literal["always", "untouched"] = "always"  # untouched: not when anything was done to the machine


class Hook(Call, frozen=True, kw_only=True):
    http: Url | Http | None = None
    limit: Duration = "5m"  # then the command, and all that it started, is ended
    undo: str | Undo | None = None  # run when the run fails or is cancelled after this hook began; null: not taken back


class Hooks(Document, frozen=True, kw_only=True):
    """In this order; a pool's are around its roles'. A hook that fails stops the run."""

    before: list[str | Hook] = []  # before anything is written to the BMC or the machine
    after: list[str | Hook] = []  # when the host is proven and healthy


class Prometheus(Document, frozen=True, kw_only=True):
    """An instant query. All its samples must fit, and there must be one."""

    url: Url  # of the server, without /api/v1
    query: str
    at_least: float | None = None
    at_most: float | None = None
    equals: float | None = None
    headers: dict[str, str] = {}  # {{ secrets.NAME }} is one of `secrets:`
    tls: Tls | None = None  # without it the CAs of this machine


class Health(Call, frozen=True, kw_only=True, rename={"for_": "for"}):
    """A check of the new system, by exactly one of http, tcp, command and prometheus."""

    http: Url | Http | None = None
    tcp: str | None = None  # ADDRESS:PORT that takes a connection
    prometheus: Prometheus | None = None
    for_: Duration = "0s"  # so long without a break; 0s: once
    every: Duration = "10s"  # time between two looks
    timeout: Duration = "10s"  # of one look
    limit: Duration | None = None  # then the host is unhealthy; without it `for` and 15 minutes more


DEFAULT_LIMIT = 15 * 60.0  # seconds beyond `for`


def as_hook(written: str | Hook) -> Hook:
    return Hook(command=written) if isinstance(written, str) else written


def as_undo(written: str | Undo) -> Undo:
    return Undo(command=written) if isinstance(written, str) else written


def as_http(written: str | Http) -> Http:
    return Http(url=written) if isinstance(written, str) else written
