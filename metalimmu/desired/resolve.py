"""The only place where site, pool, role, host and holds combine into what is wanted of one host.

===============  ====================================================================================
field            which one wins
===============  ====================================================================================
image            the hold's; else the role's
network          each field: the host's; else the role's
root_disk        each hint: the host's; else the role's
mirror           the host's disk where the role asks for a mirror; else the role's
keep             all: the role's and the host's
erase            the host's; else the role's
nics             the host's; else those of its network
labels           the host's over the role's over the pool's; then name, kind, model, rack, role, pool
vars             each top key: the host's over the role's over the pool's over the site's
mode             the pool's; else the site's
credentials      the host's; else the first rule of the site whose `match` fits
tls              the host's as a whole; else the site's: a CA of one and a fingerprint of the other never mix
proxy            the host's (`direct` for none); else the site's
hooks            all: the pool's around the role's
health           all: the role's and the pool's
everything else  has one place only
===============  ====================================================================================

Paths become absolute, times seconds, sizes bytes, MACs lower case with colons.
"""

from __future__ import annotations

import difflib
import shlex
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from metalimmu.desired import units
from metalimmu.desired.hooks import as_hook
from metalimmu.desired.switch import SwitchSpec, ssh_address
from metalimmu.desired.types import (
    BootMethod,
    CredentialRule,
    Health,
    Hook,
    Host,
    HostSpec,
    Limits,
    Match,
    Network,
    Role,
    RootDiskHints,
    Site,
    SiteDocs,
    Tls,
)
from metalimmu.errors import NotFound, TemplateError

if TYPE_CHECKING:
    from jinja2 import Template

DIRECT = "direct"

S = TypeVar("S", bound=msgspec.Struct)


def resolve(docs: SiteDocs, host_name: str, *, root: Path) -> HostSpec:
    """The host's spec. `root` is the site's folder. Raises NotFound, TemplateError (a credentials rule)."""
    host = docs.hosts.get(host_name)
    if host is None:
        close = difflib.get_close_matches(host_name, docs.hosts, n=1)
        hint = f"did you mean {close[0]}?" if close else ""
        raise NotFound(f"no host {host_name!r} in this site", hint=hint)
    return _resolve(docs, host, root.absolute())


def resolve_all(docs: SiteDocs, *, root: Path) -> dict[str, HostSpec]:
    """Every host's spec by name, in the order of the documents. Raises TemplateError."""
    root = root.absolute()
    return {name: _resolve(docs, host, root) for name, host in docs.hosts.items()}


def _resolve(docs: SiteDocs, host: Host, root: Path) -> HostSpec:
    site = docs.site
    role = docs.roles[host.role] if host.role else None
    pool = docs.pools[host.pool] if host.pool else None
    hold = docs.holds.get(host.name)
    image = hold.image if hold else role.image if role else None
    network = normal(combine_network(host, role))
    rest = role or _NO_ROLE
    labels = labels_of(host, rest.labels, pool.labels if pool else {})
    config = rest.config
    return HostSpec(
        name=host.name,
        bmc=host.bmc,
        system=host.system,
        serial=host.serial,
        credentials=_credentials(site, host, labels, root),
        tls=_tls(host.tls or site.tls, root),
        proxy=_proxy(host, site),
        connect_timeout=units.seconds(site.bmc.connect_timeout),
        read_timeout=units.seconds(site.bmc.read_timeout),
        mode=(pool.mode if pool else None) or site.mode,
        nics=nics(host, network),
        network=network,
        role=host.role,
        pool=host.pool,
        image=image,
        digest=docs.lock.get(image) if image else None,
        held=hold,
        boot=rest.boot if isinstance(rest.boot, str) else "auto",
        methods=_methods(rest.boot),
        firmware=rest.firmware,
        ramdisk=rest.ramdisk,
        root_disk=_root_disk(combine(host.root_disk, rest.root_disk, RootDiskHints)),
        wipe_signatures=rest.wipe_signatures,
        proof=rest.proof,
        templates={name: docs.templates[file] for name, file in config.items()},
        template_files={name: f"templates/{file}" for name, file in config.items()},
        vars={**site.vars, **(pool.vars if pool else {}), **rest.vars, **host.vars},
        labels=labels,
        protected=host.protected,
        limits=dict(_limits(site.limits)),
        profile=rest.profile,
        vendor=host.vendor,
        before=_hooks(pool.hooks.before if pool else [], rest.hooks.before),
        after=_hooks(rest.hooks.after, pool.hooks.after if pool else []),
        health=(*_checks(rest.health), *_checks(pool.health if pool else [])),
        apply=_argv(rest.apply),
        keep=tuple(_root_disk(k) for k in (*rest.keep, *host.keep)),
        mirrored=rest.mirror is not False,
        mirror=_mirror(rest, host),
        erase=tuple(host.erase or rest.erase),
        salvage=rest.salvage,
        burn_in=pool.burn_in if pool else None,
        arguments=rest.arguments,
        kind=host.kind,
        switch=_switch(host, rest, root),
    )


def _methods(boot: str | list[BootMethod]) -> tuple[str, ...]:
    if isinstance(boot, str):
        return () if boot == "auto" else (boot,)
    return tuple(boot)


_NO_ROLE = Role(image="none@0")  # the defaults of all but the image, which is never read


def _switch(host: Host, rest: Role, root: Path) -> SwitchSpec | None:
    given = host.switch
    if given is None:
        return None
    address, port = ssh_address(host.bmc, given.ssh)
    return SwitchSpec(
        platform=given.platform,
        base_mac=mac(given.base_mac),
        mgmt_mac=mac(given.mgmt_mac or given.base_mac),
        peer=given.peer,
        address=address,
        port=port,
        user=given.user,
        key=str(beside(root, given.key)) if given.key else None,
        host_keys=tuple(given.host_keys),
        soak=units.seconds(rest.soak),
        installs=rest.installs,
    )


def _hooks(*written: list[str | Hook]) -> tuple[Hook, ...]:
    return tuple(as_hook(h) for hooks in written for h in hooks)


def _argv(command: str | list[str] | None) -> tuple[str, ...]:
    """Split as a shell would, and never given to one. `check` has said what cannot be split."""
    return tuple(shlex.split(command) if isinstance(command, str) else command or ())


def _checks(written: Health | list[Health]) -> tuple[Health, ...]:
    return tuple(written) if isinstance(written, list) else (written,)


def combine(first: S | None, second: S | None, kind: type[S]) -> S:
    """Field by field: `first`'s where it says anything, else `second`'s. An empty list says nothing."""
    empty = kind()
    if first is None or second is None:
        return first or second or empty
    said = {f: v for f in kind.__struct_fields__ if (v := getattr(first, f)) != getattr(empty, f)}
    return msgspec.structs.replace(second, **said)


def combine_network(host: Host, role: Role | None) -> Network:
    return combine(host.network, role.network if role else None, Network)


def mac(text: str) -> str:
    """Lower case, colons."""
    return text.lower().replace("-", ":")


def normal(network: Network) -> Network:
    return msgspec.structs.replace(network, nics=[mac(m) for m in network.nics]) if network.nics else network


def nics(host: Host, network: Network) -> tuple[str, ...]:
    """The MACs that the machine must have."""
    return tuple(mac(m) for m in host.nics or network.nics)


def labels_of(host: Host, role: dict[str, str], pool: dict[str, str]) -> dict[str, str]:
    given = {"name": host.name, "kind": host.kind, "model": host.model, "role": host.role, "pool": host.pool}
    rack = host.location.rack if host.location else None
    own = {k: v for k, v in {**given, "rack": rack}.items() if v is not None}
    make = {"vendor": host.vendor} if host.vendor else {}
    return {**make, **pool, **role, **host.labels, **own}


def _proxy(host: Host, site: Site) -> str | None:
    return None if host.bmc_proxy == DIRECT else host.bmc_proxy or site.bmc.proxy


def _tls(tls: Tls, root: Path) -> Tls:
    return msgspec.structs.replace(tls, ca=str(beside(root, tls.ca))) if tls.ca else tls


def beside(root: Path, path: str) -> Path:
    """A path of a document: relative to the site's folder, `~` allowed."""
    try:
        return root / Path(path).expanduser()
    except RuntimeError:  # ~user, and there is no such user
        return root / path


def _root_disk(hints: RootDiskHints) -> dict[str, str | int | bool | None]:
    """The fields of wire.RootDisk."""
    sizes = {f: units.size_bytes(v) for f in ("min_size", "max_size") if (v := getattr(hints, f))}
    return {**msgspec.structs.asdict(hints), **sizes}


def _mirror(role: Role, host: Host) -> dict[str, str | int | bool | None] | None:
    """Hints of the second disk; None: there is no mirror, or root_disk fits both."""
    if role.mirror is False:
        return None
    hints = host.mirror or (role.mirror if isinstance(role.mirror, RootDiskHints) else None)
    return _root_disk(hints) if hints else None


@cache
def _limits(limits: Limits) -> dict[str, float]:
    return {f: units.seconds(v) for f, v in msgspec.structs.asdict(limits).items()}


def rule_for(site: Site, host: Host, labels: dict[str, str]) -> CredentialRule | None:
    return next((r for r in site.credentials if matches(r.match, host, labels)), None)


def matches(match: Match, host: Host, labels: dict[str, str]) -> bool:
    """All that the rule says must hold. `vendor` and `model` compare without case, `name` is a glob."""
    return (
        (match.vendor is None or match.vendor.lower() == (host.vendor or "").lower())
        and (match.model is None or match.model.lower() == (host.model or "").lower())
        and (match.name is None or fnmatchcase(host.name, match.name))
        and (match.pool is None or match.pool == host.pool)
        and (match.role is None or match.role == host.role)
        and all(labels.get(k) == v for k, v in match.labels.items())
    )


def _credentials(site: Site, host: Host, labels: dict[str, str], root: Path) -> str | None:
    """The reference, `{{ name }}` and `{{ serial }}` filled in; a file's path is absolute."""
    rule = None if host.credentials else rule_for(site, host, labels)
    ref = host.credentials or (rule.ref if rule else None)
    if ref is None:
        return None
    if "{{" in ref or "{%" in ref:
        ref = _render_ref(ref, host)
    scheme, _, rest = ref.partition(":")
    return f"file:{beside(root, rest)}" if scheme == "file" else ref


def _render_ref(ref: str, host: Host) -> str:
    from jinja2 import TemplateError as JinjaError

    values = {"name": host.name, **({"serial": host.serial} if host.serial else {})}
    try:
        return _ref_template(ref).render(values)
    except JinjaError as exc:
        raise TemplateError(
            f"credentials of {host.name}: {ref!r}: {exc.message or exc}",
            hint="a reference may use {{ name }}, and {{ serial }} where the host has a serial",
        ) from exc


@cache
def _ref_template(ref: str) -> Template:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(ref)
