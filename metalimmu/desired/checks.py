"""What no single field can say: names that must exist, things that must be unique, references that must make sense."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from metalimmu.desired import units
from metalimmu.desired.checks_disks import disk_problems
from metalimmu.desired.checks_guards import guard_problems
from metalimmu.desired.checks_hooks import hook_problems
from metalimmu.desired.checks_netboot import netboot_problems
from metalimmu.desired.checks_network import network_problems
from metalimmu.desired.checks_profiles import name_like, profile_problems
from metalimmu.desired.checks_service import service_problems
from metalimmu.desired.checks_signers import signer_problems
from metalimmu.desired.checks_switch import switch_problems
from metalimmu.desired.checks_unique import bmc_key, unique
from metalimmu.desired.checks_waivers import waivers
from metalimmu.desired.collected import Collected, Placed
from metalimmu.desired.problems import Path as FieldPath
from metalimmu.desired.problems import Problem, nearest, quoted
from metalimmu.desired.resolve import DIRECT, beside, combine, combine_network
from metalimmu.desired.types import Host, Role, RootDiskHints, Tls

SCHEMES = ("env", "file", "keyring", "vault")
PROXIES = ("http", "https", "socks5", "socks5h")
OWN_LABELS = frozenset({"name", "kind", "model", "rack", "role", "pool", "image", "state", "proof"})

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_FINGERPRINT = re.compile(r"([0-9a-fA-F]{2}:?){31}[0-9a-fA-F]{2}")
_FILE = re.compile(r"(?!/)(?!.*(^|/)\.\.(/|$))[A-Za-z0-9][A-Za-z0-9._/-]*")


def run(docs: Collected, root: Path) -> Iterator[Problem]:
    """`root` is the site's folder: CA files and templates must exist."""
    yield from unique(docs.hosts)
    for host in docs.hosts:
        yield from _host(host, docs, root)
    for role in docs.roles.values():
        yield from _role(role, docs)
    for pool in docs.pools.values():
        yield from _labels(pool.value.labels, pool)
    yield from disk_problems(docs)
    yield from guard_problems(docs)
    yield from hook_problems(docs, root, _reference)
    yield from profile_problems(docs)
    yield from signer_problems(docs, root)
    yield from switch_problems(docs, root)
    yield from _site(docs, root)
    yield from _holds(docs)
    yield from waivers(docs)


def _host(placed: Placed[Host], docs: Collected, root: Path) -> Iterator[Problem]:
    host = placed.value
    if not bmc_key(host.bmc):
        if "@" in host.bmc:  # not shown: it may well be a password
            yield placed.problem(
                ("bmc",),
                "an address alone",
                "an address with a user name",
                "write it without, and credentials: env:PREFIX",
            )
        else:
            yield placed.problem(("bmc",), "a BMC address", quoted(host.bmc), 'write "redfish+https://10.12.0.7"')
    if host.role and host.role not in docs.role_names:
        yield _unknown(placed, ("role",), host.role, docs.role_names, "roles")
    if host.pool and host.pool not in docs.pool_names:
        yield _unknown(placed, ("pool",), host.pool, docs.pool_names, "pools")
    if host.credentials is not None:
        yield from _reference(host.credentials, placed, ("credentials",))
    if host.bmc_proxy and host.bmc_proxy != DIRECT:
        yield from _proxy(host.bmc_proxy, placed, ("bmc_proxy",))
    if host.tls:
        yield from _tls(host.tls, placed, root)
    if host.labels:
        yield from _labels(host.labels, placed)
    role = docs.roles.get(host.role or "")
    if placed.partial or (role.partial if role else host.role in docs.role_names):
        return  # what host and role have together is not known while one of them is wrong itself
    if host.network or (role and role.value.network):
        network = combine_network(host, role.value if role else None)
        for field, expected, got, write in network_problems(network, host.nics):
            yield placed.problem(("network", *field), expected, got, write)
    if host.root_disk:
        hints = combine(host.root_disk, role.value.root_disk if role else None, RootDiskHints)
        yield from _root_disk(hints, placed)


def _unknown(placed: Placed[Host], field: FieldPath, name: str, known: set[str], folder: str) -> Problem:
    none = f"write {folder}/{name}.yaml"
    return placed.problem(field, f"the name of a file in {folder}/", quoted(name), nearest(name, known, none=none))


def _root_disk(hints: RootDiskHints, placed: Placed[Host] | Placed[Role]) -> Iterator[Problem]:
    low, high = hints.min_size, hints.max_size
    if low and high and units.size_bytes(low) > units.size_bytes(high):
        got = f"min_size {low} above max_size {high}"
        yield placed.problem(("root_disk",), "a size that a disk can have", got, "exchange them")
    if hints.wwn and not re.fullmatch(r"(0x|naa\.|eui\.|nvme\.)?[0-9a-fA-F.-]{8,}", hints.wwn):
        write = 'write "0x500a0981..." as in `lsblk -o NAME,WWN`'
        yield placed.problem(("root_disk", "wwn"), "a World Wide Name", quoted(hints.wwn), write)


def _role(placed: Placed[Role], docs: Collected) -> Iterator[Problem]:
    role = placed.value
    if role.profile and role.profile not in docs.profile_names:
        write = name_like(role.profile, docs.profile_names)
        yield placed.problem(("profile",), "the name of a file in profiles/", quoted(role.profile), write)
    for name, template in role.config.items():
        if not _FILE.fullmatch(name) or name.startswith("metalimmu."):
            yield placed.problem(("config", name), "a file name of the seed", quoted(name), "write user-data")
        if template not in docs.template_names:
            write = nearest(template, docs.template_names, none=f"write templates/{template}")
            yield placed.problem(("config", name), "the name of a file in templates/", quoted(template), write)
    yield from _apply(placed)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", role.ramdisk):
        yield placed.problem(("ramdisk",), "a flavour of ramdisk", quoted(role.ramdisk), "write generic")
    if re.search(r"""['"\\]""", re.sub(r"\{[{%].*?[%}]\}", "", role.arguments)):
        write = "write them without quotes: arguments: console=ttyS1 quiet"
        yield placed.problem(("arguments",), "kernel arguments without quotes", quoted(role.arguments), write)
    if role.proof.ssh_key is not None:
        yield from _reference(role.proof.ssh_key, placed, ("proof", "ssh_key"))
    if role.proof.by == "ssh" and not role.proof.ssh_user:
        yield placed.problem(("proof",), "ssh_user beside by: ssh", "no such field", "write ssh_user: root")
    if role.proof.by == "ssh" and not role.proof.expect:
        yield placed.problem(
            ("proof",), "what os-release must say, beside by: ssh", "no expect", 'write expect: {VERSION_ID: "12"}'
        )
    yield from _labels(role.labels, placed)
    if role.root_disk:
        yield from _root_disk(role.root_disk, placed)
    if role.network and role.network.address:
        write = "write it in each host's network"
        yield placed.problem(("network", "address"), "no address in a role", role.network.address, write)


def _apply(placed: Placed[Role]) -> Iterator[Problem]:
    command = placed.value.apply
    try:
        words = shlex.split(command) if isinstance(command, str) else command
    except ValueError as exc:
        yield placed.problem(("apply",), "a command", quoted(str(command)), f"mend its quotes ({exc})")
        return
    if words is not None and (not words or not words[0].startswith("/")):
        write = "write the program with its whole path, as it is on the machine: /usr/local/sbin/reconfigure"
        yield placed.problem(("apply",), "a command of the machine", quoted(str(command)), write)


def _site(docs: Collected, root: Path) -> Iterator[Problem]:
    if docs.site is None:
        return
    placed = docs.site
    site = placed.value
    for name in ("bmc", "machines", "chunks", "boot"):
        url = getattr(site.urls, name)
        if url and not _url(url):
            yield placed.problem(("urls", name), "a URL with a host", quoted(url), "write http://ADDRESS:PORT")
        elif url and re.search(r"[?#=]", url):
            # Supermicro X12 refuses media URLs with ? or =.
            yield placed.problem(("urls", name), "a URL without ?, = and #", quoted(url), "write http://ADDRESS:PORT")
    for name in ("bmc", "machines", "boot", "syslog", "serve"):
        listen = getattr(site.listen, name)
        if listen and not (
            re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]*):[0-9]{1,5}", listen)
            and _url(f"x://a:{listen.rpartition(':')[2]}")
        ):
            yield placed.problem(("listen", name), "ADDRESS:PORT", quoted(listen), 'write "0.0.0.0:8080"')
    if site.bmc.proxy:
        yield from _proxy(site.bmc.proxy, placed, ("bmc", "proxy"))
    yield from _tls(site.tls, placed, root)
    yield from service_problems(placed, root, _reference)
    yield from netboot_problems(placed)
    for i, rule in enumerate(site.credentials):
        yield from _reference(rule.ref, placed, ("credentials", i, "ref"))
        for name, known in (("role", docs.role_names), ("pool", docs.pool_names)):
            value = getattr(rule.match, name)
            if value is not None and value not in known:
                write = nearest(value, known, none=f"write {name}s/{value}.yaml")
                path = ("credentials", i, "match", name)
                yield placed.problem(path, f"the name of a file in {name}s/", quoted(value), write)


def _holds(docs: Collected) -> Iterator[Problem]:
    names = {h.value.name for h in docs.hosts}
    first: dict[str, Placed[object]] = {}
    for hold in docs.holds:
        host = hold.value.host
        if host not in names and not docs.unread_hosts:
            write = nearest(host, names, none="remove the hold")
            yield hold.problem(("host",), "the name of a host", quoted(host), write)
        if host in first:
            yield hold.problem(
                ("host",), "one hold per host", f"{quoted(host)} again ({first[host].place})", "keep one of them"
            )
        first.setdefault(host, Placed(None, hold.source, hold.path))


def _reference(ref: str, placed: Placed[object], field: FieldPath) -> Iterator[Problem]:
    scheme, colon, rest = ref.partition(":")
    if scheme not in SCHEMES or not colon or not rest.strip():
        # The value is not shown: whoever writes it wrong may have written the password itself.
        expected = "a reference to credentials, never the credentials"
        write = "write env:PREFIX, file:PATH, keyring:SERVICE or vault:PATH"
        yield placed.problem(
            field, expected, "text that starts with none of " + ", ".join(f"{s}:" for s in SCHEMES), write
        )


def _proxy(proxy: str, placed: Placed[object], field: FieldPath) -> Iterator[Problem]:
    if not _url(proxy) or urlsplit(proxy).scheme not in PROXIES:
        schemes = ", ".join(f"{s}://" for s in PROXIES)
        yield placed.problem(field, f"a proxy URL: {schemes}", quoted(proxy), "write socks5://bastion:1080")


def _url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", url)
    except ValueError:
        return False


def _tls(tls: Tls, placed: Placed[object], root: Path) -> Iterator[Problem]:
    if tls.ca and not beside(root, tls.ca).is_file():
        yield placed.problem(
            ("tls", "ca"),
            "a PEM file",
            f"{quoted(tls.ca)}, which is not there",
            "write its path from the site's folder",
        )
    if tls.fingerprint and not _FINGERPRINT.fullmatch(tls.fingerprint):
        write = "write what `openssl x509 -fingerprint -sha256` prints, in quotes"
        yield placed.problem(("tls", "fingerprint"), "a SHA-256 of 64 hex digits", quoted(tls.fingerprint), write)
    if not tls.verify and (tls.ca or tls.fingerprint):
        got = "verify: false beside " + ("ca" if tls.ca else "fingerprint")
        yield placed.problem(("tls",), "one way to verify", got, "remove verify: false")


def _labels(labels: dict[str, str], placed: Placed[object]) -> Iterator[Problem]:
    for key, value in labels.items():
        if key in OWN_LABELS:
            write = "choose another key: metalimmu sets this one itself"
            yield placed.problem(("labels", key), "a key of your own", quoted(key), write)
        elif not _LABEL.fullmatch(key):
            write = "use letters, digits, . _ / -"
            yield placed.problem(("labels", key), "a key that -l can name", quoted(key), write)
        elif "," in value:
            yield placed.problem(("labels", key), "a value without a comma", quoted(value), "-l separates by commas")
