"""Run-time config: the files of a host's NoCloud seed.

https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html. A role's `config` names a template for a
file; user-data, meta-data and network-config have defaults. Templates are Jinja2 in a sandbox, and a variable that is
not there is an error. A template stands alone (no include), and block tags leave no empty lines. It sees:

name, hostname, fqdn, serial, role, pool, image   text (serial, role, pool, image may be none)
labels, vars, network, nics, root_disk            as `resolve` combined them; root_disk: fields of wire.RootDisk
netmask                                           of network.address: 255.255.255.0
controller                                        url (of the machines' listener), deployment, phone_home, and answers: where
                                                  an installer finds these files, ending in /
secret('vault:kv/web/db#password')                a secret by its reference, see `named`

`{{ value | tojson }}` makes any value safe inside YAML.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import traceback
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import jinja2
import msgspec
from jinja2.sandbox import ImmutableSandboxedEnvironment

from metalimmu.desired import documents
from metalimmu.desired.emit import dump
from metalimmu.desired.netplan import network_config
from metalimmu.desired.problems import Problem, quoted, visible
from metalimmu.desired.types import HostSpec
from metalimmu.errors import TemplateError

MAX_FILE = 1 << 20  # bytes; the seed partition is small

Secret = Callable[[str], str]
"""What `secret(REF)` in a template gives."""

SCHEMES = ("env", "file", "keyring", "vault")
_REFERENCE = re.compile(rf"({'|'.join(SCHEMES)}):[^\s()][^()\n]{{0,500}}")

# https://cloudinit.readthedocs.io/en/latest/explanation/format.html: what user-data may start with.
_USER_DATA = ("#cloud-config", "#!", "#include", "#cloud-boothook", "#part-handler", "## template:", "Content-Type:", "MIME-Version:")  # fmt: skip


def named(ref: str) -> str:
    """Stands for the secret where nobody needs it: in plans, in `check`. Secrets themselves are filled in last, when the
    machine asks (service.config). Raises TemplateError for what is no reference; it is not shown, it may be a secret.
    """
    if not isinstance(ref, str) or not _REFERENCE.fullmatch(ref):
        raise TemplateError("secret() wants a reference: env:NAME, file:PATH, keyring:SERVICE or vault:PATH")
    return f"(secret {ref})"


def render(spec: HostSpec, *, controller: dict[str, str], secret: Secret = named) -> dict[str, str]:
    """File name -> content. `controller` has `url`, `deployment` and `phone_home`. Raises TemplateError, naming all that is wrong."""
    files, problems = attempt(spec, controller=controller, secret=secret)
    if problems:
        lines = "\n".join(str(p) for p in problems)
        raise TemplateError(f"run-time config of {spec.name} does not render:\n{lines}")
    return files


def attempt(
    spec: HostSpec, *, controller: dict[str, str], secret: Secret = named
) -> tuple[dict[str, str], list[Problem]]:
    """Like `render`, with what is wrong as values. With secrets that are real, what is wrong may quote them."""
    problems: list[Problem] = []
    context = {**_context(spec, controller), "secret": secret}
    files: dict[str, str] = {}
    for name, text in spec.templates.items():
        file = spec.template_files.get(name, name)
        content = _template(file, text, spec.name, context, problems)
        if content is not None:
            _valid(name, file, content, spec.name, problems)
            files[name] = content
    if spec.kind == "switch":  # its files come by ZTP: no seed, no defaults
        return dict(sorted(files.items())), problems
    if "user-data" not in spec.templates:
        problems += _wrong_keys(spec)
    for name, default in (("user-data", _user_data), ("meta-data", _meta_data), ("network-config", _network_config)):
        if name not in spec.templates:
            files[name] = default(spec, context)
    return dict(sorted(files.items())), problems


class Filler:
    """Short texts of a document as templates, for one host. `more` is seen beside the rest, or instead of it."""

    def __init__(self, spec: HostSpec, file: str = "", **more: Any) -> None:
        self._host = spec.name
        self._file = file
        self._context = {**_context(spec, {}), "address": address(spec), **more}
        del self._context["controller"]
        self._known: dict[str, tuple[str | None, Problem | None]] = {}  # a text is tried, then shown

    def __call__(self, text: str) -> str:
        """Raises TemplateError."""
        content, wrong = self.attempt(text)
        if content is None:
            expected = f"expected {wrong.expected}, got {wrong.got}" if wrong else text
            raise TemplateError(f"{self._file or self._host}: {expected}", hint=wrong.write if wrong else "")
        return content

    def attempt(self, text: str) -> tuple[str | None, Problem | None]:
        if "{" not in text:
            return text, None
        if text not in self._known:
            problems: list[Problem] = []
            content = _template(self._file, text, self._host, self._context, problems)
            self._known[text] = content, problems[0] if problems else None
        return self._known[text]


def address(spec: HostSpec) -> str:
    """Where the new system is reached: its address, else its name."""
    return (spec.network.address or "").partition("/")[0] or spec.name


def netmask(address: str | None) -> str:
    """Of address/prefix length, as installers want it; empty: DHCP, or no address."""
    try:
        return str(ipaddress.ip_interface(address or "").netmask)
    except ValueError:
        return ""


def digest(files: dict[str, str]) -> str:
    """SHA-256 (hex) over path NUL content NUL, sorted by path: wire.RunTimeConfig.digest."""
    total = hashlib.sha256()
    for path, content in sorted(files.items()):
        total.update(path.encode() + b"\0" + content.encode() + b"\0")
    return total.hexdigest()


def _context(spec: HostSpec, controller: dict[str, str]) -> dict[str, Any]:
    return {
        "name": spec.name,
        "hostname": spec.name.partition(".")[0],
        "fqdn": spec.name,
        "serial": spec.serial,
        "role": spec.role,
        "pool": spec.pool,
        "image": spec.image,
        "labels": spec.labels,
        "vars": spec.vars,
        "network": msgspec.structs.asdict(spec.network),
        "nics": list(spec.nics),
        "root_disk": spec.root_disk,
        "netmask": netmask(spec.network.address),
        "switch": msgspec.structs.asdict(spec.switch) if spec.switch else None,
        "controller": controller,
    }


def _user_data(spec: HostSpec, context: dict[str, Any]) -> str:
    doc: dict[str, Any] = {"hostname": context["hostname"]}
    if context["fqdn"] != context["hostname"]:
        doc["fqdn"] = context["fqdn"]
    doc["manage_etc_hosts"] = True
    keys = context["vars"].get("ssh_authorized_keys")
    if keys:
        doc["ssh_authorized_keys"] = [keys] if isinstance(keys, str) else keys
    if spec.proof.by == "phone_home":
        doc["phone_home"] = {
            "url": context["controller"]["phone_home"],
            "post": ["instance_id", "hostname"],
            "tries": 100,
        }
    return "#cloud-config\n" + dump(doc)


def _wrong_keys(spec: HostSpec) -> list[Problem]:
    keys = spec.vars.get("ssh_authorized_keys") or []
    if isinstance(keys, str) or (isinstance(keys, list) and all(isinstance(k, str) for k in keys)):
        return []
    expected, write = "vars.ssh_authorized_keys: a list of text", 'write ["ssh-ed25519 AAAA... you@example"]'
    return [Problem("user-data", 1, spec.name, expected, visible(repr(keys)), write)]


def _meta_data(_spec: HostSpec, context: dict[str, Any]) -> str:
    # Another instance-id makes cloud-init run its once-per-instance parts again.
    deployment = context["controller"].get("deployment")
    instance = f"{context['name']}-{deployment}" if deployment else context["name"]
    return dump({"instance-id": instance, "local-hostname": context["hostname"]})


def _network_config(spec: HostSpec, _context: dict[str, Any]) -> str:
    return dump(network_config(spec.network, spec.nics))


@cache
def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_function"] = _json
    environment.policies["json.dumps_kwargs"] = {}
    return environment


# What YAML takes as it is, line breaks and the byte order mark excepted: https://yaml.org/spec/1.1/#c-printable
_NOT_PLAIN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def _json(value: object, **kwargs: Any) -> str:
    """JSON that is YAML too: JSON's own escape of a character beyond U+FFFF, two surrogates, is none in YAML."""
    text = json.dumps(value, ensure_ascii=False, **kwargs)
    return _NOT_PLAIN.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


@lru_cache(maxsize=256)
def _compiled(text: str) -> jinja2.Template:
    return _environment().from_string(text)


def _template(file: str, text: str, host: str, context: dict[str, Any], problems: list[Problem]) -> str | None:
    """The rendered text, or None after adding the problem."""

    def wrong(line: int, expected: str, got: str, write: str) -> None:
        problems.append(Problem(file, line, host, expected, visible(got, 300), write))

    try:
        content = _compiled(text).render(context)
    except jinja2.TemplateSyntaxError as exc:
        wrong(exc.lineno, "a Jinja2 template", str(exc.message), "mend the template at this line")
    except jinja2.UndefinedError as exc:
        line = _line(exc)
        name = _variable(str(exc.message), text, line)
        known = ", ".join(sorted(context))
        if name.startswith("vars."):
            write = f"set {name} in the host, its role, its pool or the site"
        else:
            write = f"set vars.{name.rpartition('.')[2]} and write {{{{ vars.{name.rpartition('.')[2]} }}}}; templates see {known}"
        wrong(line, "a variable that is defined", f"{name}, which is not", write)
    except Exception as exc:  # noqa: BLE001 - a template is a program: TypeError, ZeroDivisionError, SecurityError, ...
        reason = "include and import are not offered" if "no loader" in str(exc) else f"{type(exc).__name__}: {exc}"
        wrong(_line(exc), "a template that renders", reason, "mend the template at this line")
    else:
        if len(content) <= MAX_FILE:
            return content
        wrong(1, f"at most {MAX_FILE >> 20} MiB of text", f"{len(content) >> 10} KiB", "make it smaller")
    return None


def _line(exc: BaseException) -> int:
    """Jinja2 rewrites tracebacks: frames of a template carry its own lines."""
    frames = [f.lineno for f in traceback.extract_tb(exc.__traceback__) if f.filename == "<template>"]
    return (frames[-1] or 1) if frames else 1


def _variable(message: str, text: str, line: int) -> str:
    """`vars.ntp` out of "'dict object' has no attribute 'ntp'" and the template's line."""
    name = (re.findall(r"'([^']*)'", message) or [message])[-1]
    lines = text.splitlines()
    written = re.search(rf"[\w.]*\.{re.escape(name)}\b", lines[line - 1]) if line <= len(lines) else None
    return written[0] if written else name


def _valid(name: str, file: str, content: str, host: str, problems: list[Problem]) -> None:
    """cloud-init ignores what it cannot read, and the machine is then one that nobody can log in to: so look now."""
    if name == "user-data" and not content.startswith("#cloud-config"):
        if not content.startswith(_USER_DATA):
            first = quoted(content.partition("\n")[0])
            problems.append(
                Problem(file, 1, host, "#cloud-config as the first line", first, "write #cloud-config above all")
            )
        return
    if name.endswith(".json"):
        try:
            json.loads(content)
        except ValueError as exc:
            write = "{{ x | tojson }} quotes any value"
            problems.append(Problem(file, 1, host, f"{name} in JSON", visible(str(exc), 300), write))
    if name not in {"user-data", "meta-data", "network-config"}:
        return
    found: list[Problem] = []
    _, value = documents.parse(file, content.encode(), found)
    for p in found:
        got = f"{p.got}, on line {p.line} of {name} once rendered"
        problems.append(Problem(file, 1, host, p.expected, got, f"{p.write}; {{{{ x | tojson }}}} quotes any value"))
    if not found and not isinstance(value, dict) and not (name == "user-data" and value is None):
        problems.append(
            Problem(file, 1, host, f"{name} of fields and values", type(value).__name__, "write key: value")
        )
