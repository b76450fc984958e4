"""A saved plan: what will be done with many hosts, complete, as one document with a digest. Pure.

::

    {"metalimmu_plan": 1, "digest": "sha256:…", "content": {
      "site": "ams1", "verb": "reimage", "created": 1795176000.0, "expires": 1795262400.0, "program": "0.1.0",
      "author": {"name": "alice@example.org", "key": "SHA256:…"},
      "options": {"max_failures": 1, "auto_rollback": true},
      "guards": {"site": {"max_hosts": 10, …}, "pools": {"web-ams": {"min_active": 180, …}}},
      "hosts": [{"host": "r12-u07", "wave": 1, "pool": "web-ams", "config": "9f86d0…", "looked": 1795175990.0,
                 "plan": {…, "image": {"=": 0}, …}}],
      "shared": [{"ref": "web@2", "digest": "sha256:…", …}],
      "refused": [{"host": "r12-u09", "reason": "…"}], "done": ["r12-u08"]}}

The digest is SHA-256 over the content as canonical JSON (sorted keys, no spaces, UTF-8): how the file is laid out does not
matter, any other change does. A host's plan is what the run executes (`Plan.encode`); parts that plans have in common
(`{"=": n}`) are written once. Secrets are not in it: credentials are references, of run-time config there is the digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from metalimmu import structs
from metalimmu.desired.problems import visible
from metalimmu.errors import PlanError
from metalimmu.plan.types import Plan

FORMAT = 1
KIND = "metalimmu_plan"

# Where plans of one role, pool or make of machine are alike; and single steps.
_PLAN = ("image", "warnings", "slot")
_SPEC = ("templates", "template_files", "limits", "vars", "before", "after", "health", "tls", "proof")
_WORTH = 40  # bytes from which a part is written once


class Author(msgspec.Struct, frozen=True, kw_only=True):
    """Who made the plan. What makes it certain is a signature by that name over the digest."""

    name: str  # a principal of allowed_signers, or user@machine
    key: str = ""  # fingerprint of the key that the author signed with; empty: not signed when it was made


class HostPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What will be done with one host, and what it was when that was planned."""

    host: str
    wave: int
    plan: Plan
    config: str  # digest of the rendered run-time config, without what only a deployment knows
    looked: float  # when its BMC was asked
    pool: str = ""
    state: str = ""  # as the store said
    quarantine: str = ""  # the reason, if it was in one


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """A host that was asked for and is left out."""

    host: str
    reason: str
    hint: str = ""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As of a rollout; nothing else a plan may ask for."""

    max_failures: Annotated[int, Meta(ge=0)] = 1
    auto_rollback: bool = False
    allow_protected: bool = False
    allow_same_domain: bool = False
    force: bool = False
    batch: str | int | None = None
    reason: str | None = None

    def given(self) -> dict[str, Any]:
        """Those that say something."""
        every = msgspec.structs.asdict(self)
        return {k: v for k, v in every.items() if v or k == "max_failures"}


class SavedGuards(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As the documents say them; defaults are left out."""

    site: dict[str, Any] = {}
    pools: dict[str, dict[str, Any]] = {}


class Content(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    verb: str  # reimage | rollback
    created: float  # seconds since 1970 UTC
    expires: float
    author: Author
    hosts: tuple[HostPlan, ...]  # in order
    program: str = ""  # the version of metalimmu that made it
    options: Options = Options()
    guards: SavedGuards = SavedGuards()
    refused: tuple[Left, ...] = ()
    done: tuple[str, ...] = ()  # hosts that were proven at their image already

    @property
    def images(self) -> dict[str, str]:
        """name@version -> digest."""
        return {h.plan.image.ref: h.plan.image.digest for h in self.hosts}

    @property
    def pools(self) -> frozenset[str]:
        return frozenset(h.pool for h in self.hosts if h.pool)


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    content: Content
    digest: str  # sha256:…

    def host(self, name: str) -> HostPlan | None:
        return next((h for h in self.content.hosts if h.host == name), None)


def canonical(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def encode(content: Content) -> tuple[str, bytes]:
    """(digest, the file's bytes)."""
    text = _packed(content)
    digest = digest_of(text)
    head = canonical({KIND: FORMAT, "digest": digest})
    whole = head[:-1] + b',"content":' + text + b"}"
    return digest, msgspec.json.format(whole, indent=1) + b"\n"


def decode(data: bytes) -> Saved:
    """Raises PlanError, whatever the bytes are."""
    head = _head(data)
    try:
        hosts, rest, text = _canonical(head.content)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError) as exc:
        raise PlanError(f"the plan cannot be read: {exc}", hint="make it again") from exc
    found = digest_of(text)
    if found != head.digest:
        raise PlanError(
            f"the plan was changed after it was made: its content has the digest {found}, it says {visible(head.digest, 80)}",
            hint="make a new plan; what is in this one was planned and approved by nobody",
        )
    try:
        content = _unpacked(hosts, rest)
        known = _packed(content)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError, LookupError, TypeError) as exc:
        raise PlanError(
            f"the plan does not say what a plan of this format says: {exc}", hint="make it again with this metalimmu"
        ) from exc
    if known != text:  # a field that we would not heed
        raise PlanError(
            "the plan says more than this metalimmu understands, or says it otherwise",
            hint="apply it with the version that made it, or make it again",
        )
    _sound(content)
    return Saved(content=content, digest=found)


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    metalimmu_plan: int
    digest: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")


def _head(data: bytes) -> _Document:
    try:
        data.decode()
        head = structs.decode(data, _Document)
    except (msgspec.MsgspecError, RecursionError, ValueError) as exc:
        whole = data.lstrip()[:1] == b"{" and data.rstrip()[-1:] != b"}"
        what = "the plan is cut off" if whole else "this is no saved plan"
        raise PlanError(f"{what}: {exc}", hint="`metalimmu plan … --out FILE` makes one") from exc
    if head.metalimmu_plan != FORMAT:
        raise PlanError(
            f"the plan has format {head.metalimmu_plan}, this metalimmu reads format {FORMAT}",
            hint="apply it with the version that made it, or make it again",
        )
    return head


def _sound(content: Content) -> None:
    """What no digest can promise: a plan may be made by any program."""
    names = [h.host for h in content.hosts]
    wrong = ""
    if len(set(names)) != len(names):
        wrong = "it has a host twice"
    elif any(h.plan.host != h.host or h.plan.spec.name != h.host for h in content.hosts):
        wrong = "a host's plan is another host's"
    elif any(h.pool != (h.plan.spec.pool or "") for h in content.hosts):
        wrong = "a host's pool is not its plan's"
    elif any(h.plan.verb != content.verb or h.plan.nothing for h in content.hosts):
        wrong = "a host's plan is not for this verb, or does nothing"
    elif not content.hosts:
        wrong = "it has no hosts"
    elif content.expires <= content.created:
        wrong = "it has expired before it was made"
    if wrong:
        raise PlanError(f"the plan makes no sense: {wrong}", hint="make it again")


def _packed(content: Content) -> bytes:
    """Canonical. Host by host: what a fleet is as plain values all at once would fill the memory."""
    shared = _Shared()
    hosts = [msgspec.Raw(canonical(_host(h, shared))) for h in content.hosts]
    return canonical({**msgspec.structs.asdict(content), "hosts": hosts, "shared": shared.parts})


class _Shared:
    def __init__(self) -> None:
        self.parts: list[msgspec.Raw] = []
        self._places: dict[bytes, dict[str, int]] = {}

    def __call__(self, part: Any) -> Any:
        text = canonical(part)
        if len(text) < _WORTH and not _shared(part):
            return part
        if text not in self._places:
            self._places[text] = {"=": len(self.parts)}
            self.parts.append(msgspec.Raw(text))
        return self._places[text]


def _host(host: HostPlan, shared: _Shared) -> dict[str, Any]:
    plan, spec = msgspec.structs.asdict(host.plan), msgspec.structs.asdict(host.plan.spec)
    plan |= {name: shared(plan[name]) for name in _PLAN}
    plan["spec"] = spec | {name: shared(spec[name]) for name in _SPEC}
    plan["steps"] = [shared(step) for step in plan["steps"]]
    return {**msgspec.structs.asdict(host), "plan": plan}


def _canonical(content: msgspec.Raw) -> tuple[list[bytes], dict[str, Any], bytes]:
    """Each host canonical, all the rest as values, and all of it canonical. Host by host, as in `_packed`."""
    parts = structs.decode(content, dict[str, msgspec.Raw])
    hosts = [canonical(msgspec.json.decode(h)) for h in structs.decode(parts.pop("hosts", b"[]"), list[msgspec.Raw])]
    rest = {name: msgspec.json.decode(raw) for name, raw in parts.items()}
    return hosts, rest, canonical({**rest, "hosts": [msgspec.Raw(h) for h in hosts]})


def _unpacked(hosts: list[bytes], rest: dict[str, Any]) -> Content:
    shared: Sequence[Any] = rest.pop("shared")
    return structs.convert({**rest, "hosts": tuple(_whole(msgspec.json.decode(h), shared) for h in hosts)}, Content)


def _whole(host: dict[str, Any], shared: Sequence[Any]) -> HostPlan:
    plan = host["plan"]
    for holder, names in ((plan, _PLAN), (plan["spec"], _SPEC), (plan["steps"], range(len(plan["steps"])))):
        for name in names:
            if _shared(holder[name]):
                holder[name] = shared[holder[name]["="]]
    return structs.convert(host, HostPlan)


def _shared(part: Any) -> bool:
    return isinstance(part, Mapping) and part.keys() == {"="}
