"""What no single field of `hooks:` and `health:` can say."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from metalimmu.desired.collected import Collected, Placed
from metalimmu.desired.hook_words import health_limit, texts, words
from metalimmu.desired.hooks import Call, Health, Hook, Http, Prometheus, Undo, as_hook, as_http, as_undo
from metalimmu.desired.problems import Path as FieldPath
from metalimmu.desired.problems import Problem, quoted, visible
from metalimmu.desired.types import Pool, Role, Tls
from metalimmu.desired.units import seconds

Reference = Callable[[str, Placed[object], FieldPath], Iterator[Problem]]
Document = Placed[Pool] | Placed[Role]
Said = tuple[FieldPath, str, str, str]  # field, expected, got, what to write

FINGERPRINT = re.compile(r"([0-9a-fA-F]{2}:?){31}[0-9a-fA-F]{2}")

_MISSING = ("none", "no command")
_OURS = ("PATH", "HOME", "LANG")
_TCP = re.compile(r"(\[[0-9a-fA-F:]+\]|[^:\s\[\]]+):([0-9]{1,5})")
SECRET = re.compile(r"\bsecrets\.([A-Za-z_][A-Za-z0-9_]*)")
_LOCAL = ("127.0.0.1", "localhost", "::1", None)


def hook_problems(docs: Collected, root: Path, reference: Reference) -> Iterator[Problem]:
    """`root` is the site's folder: commands must be there. `reference` checks a reference to a secret."""
    documents: tuple[Document, ...] = (*docs.pools.values(), *docs.roles.values())
    for placed in documents:
        for path, call in calls(placed.value):
            for ref_field, ref in _references(call):
                yield from reference(ref, placed, (*path, *ref_field))
            for field, expected, got, write in _call(call, root):
                if not (placed.partial and got in _MISSING):  # it may be what was wrong and is left out
                    yield placed.problem((*path, *field), expected, got, write)


def calls(document: Pool | Role) -> Iterator[tuple[FieldPath, Hook | Health]]:
    """Every hook and check of a document, with its field."""
    for phase in ("before", "after"):
        for i, written in enumerate(getattr(document.hooks, phase)):
            yield ("hooks", phase, i), as_hook(written)
    if isinstance(document.health, Health):
        yield ("health",), document.health
    else:
        yield from ((("health", i), check) for i, check in enumerate(document.health))


def _references(call: Call) -> Iterator[tuple[FieldPath, str]]:
    yield from ((("secrets", name), ref) for name, ref in call.secrets.items())
    if isinstance(call, Hook) and isinstance(call.undo, Undo):
        yield from ((("undo", *field), ref) for field, ref in _references(call.undo))


def _call(call: Call, root: Path) -> Iterator[Said]:
    if isinstance(call, Health):
        yield from _one_of(call, ("http", "tcp", "command", "prometheus"))
        yield from _times(call)
        yield from _tcp(call.tcp)
        yield from _prometheus(call, root)
    else:
        yield from _one_of(call, ("command", "http"))
        if isinstance(call, Hook | Undo) and not seconds(call.limit):
            yield ("limit",), "a time above 0", call.limit, "write 5m"
    yield from _command(call, root)
    yield from _variables(call)
    yield from _named_secrets(call)
    if isinstance(call, Hook | Undo | Health) and call.http:
        yield from _http(as_http(call.http), call, root)
    if isinstance(call, Hook) and call.undo is not None:
        for field, expected, got, write in _call(as_undo(call.undo), root):
            yield ("undo", *field), expected, got, write


def _one_of(call: Call, ways: tuple[str, ...]) -> Iterator[Said]:
    given = [w for w in ways if getattr(call, w) is not None]
    if len(given) != 1:
        yield (), f"exactly one of {', '.join(ways)}", " and ".join(given) or "none", f"write {ways[0]}: ..."
    if call.output is not None:
        yield from _pattern(("output",), call.output)
        if call.command is None:
            yield ("output",), "output: beside command:", "no command", "write expect: in http: {url: ..., expect: ...}"


def _pattern(field: FieldPath, pattern: str) -> Iterator[Said]:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as exc:
        yield field, "a regular expression", f"{quoted(pattern)} ({exc})", "mend it, or escape with \\"


def _command(call: Call, root: Path) -> Iterator[Said]:
    if call.command is None:
        return
    write = 'write "./drain {{ name }}"'
    try:
        said = words(call.command)
    except ValueError as exc:
        yield ("command",), "words as a shell splits them", f"{quoted(str(call.command))} ({exc})", "close the quotes"
        return
    if not said or not said[0].strip():
        yield ("command",), "a program", "no word", write
        return
    if "\0" in "".join(said):
        yield ("command",), "text without NUL", "a NUL byte", write
    program = said[0]
    if "{{" in program or "{%" in program:
        return
    path = root / program
    if "/" not in program:
        if path.is_file():
            got = f"{quoted(program)}, which is looked for in PATH and is a file of the site"
            yield ("command",), "a program of the site with its path", got, f"write ./{program}"
    elif not path.is_file():
        yield ("command",), "a program that is there", quoted(program), "write its path from the site's folder"
    elif not os.access(path, os.X_OK):
        yield ("command",), "a program that may be executed", quoted(program), f"chmod +x {visible(program)}"


def _variables(call: Call) -> Iterator[Said]:
    for i, name in enumerate(call.env):
        if name in _OURS or name.startswith("METALIMMU_"):
            yield ("env", i), "a variable of your own", quoted(name), "remove it: a hook has it anyway"
    for name in call.secrets:
        if name in _OURS or name.startswith("METALIMMU_"):
            yield ("secrets", name), "a variable of your own", quoted(name), "choose another name"
    if call.env and call.command is None:
        yield ("env",), "env: beside command:", "no command", "remove it; headers take {{ secrets.NAME }}"


def _named_secrets(call: Call) -> Iterator[Said]:
    """Where a secret may stand: not in what plans, logs and process lists show."""
    own = call if not isinstance(call, Hook) else msgspec.structs.replace(call, undo=None)  # looked at by itself
    try:
        found = list(texts(own))
    except ValueError:  # said already
        return
    for field, text, may in found:
        for name in SECRET.findall(text):
            if not may:
                write = f"use the variable {name} in the command, or headers: and body: of http"
                yield field, "text without secrets", f"secrets.{name}", write
            elif name not in call.secrets:
                yield field, "the name of one of secrets:", quoted(name), f"write secrets: {{{name}: env:{name}}}"


def _http(http: Http, call: Call, root: Path) -> Iterator[Said]:
    yield from _url(("http", "url"), http.url, call)
    if http.expect is not None:
        yield from _pattern(("http", "expect"), http.expect)
    if http.body is not None and http.method in ("GET", "HEAD"):
        yield ("http", "body"), f"a {http.method} without a body", "a body", "remove it, or write method: POST"
    yield from _headers(("http", "headers"), http.headers)
    yield from _tls(("http", "tls"), http.tls, root)


def _url(field: FieldPath, url: str, call: Call) -> Iterator[Said]:
    """Host and port may be templates; a name and password in it would be in plans and logs."""
    plain = re.sub(r"\{\{.*?\}\}", "1", re.sub(r"\[\{\{.*?\}\}\]", "[::1]", url))
    try:
        parts = urlsplit(plain)
        wrong = not parts.netloc or re.search(r"\s", plain) or parts.port == 0
    except ValueError:
        wrong = True
    if wrong:
        yield field, "a URL", quoted(url), 'write "https://lb.example.org/{{ name }}/drain"'
    elif "@" in parts.netloc:
        yield field, "a URL without a user name", "one with a user name", "use headers: and secrets:"
    elif parts.scheme == "http" and call.secrets and parts.hostname not in _LOCAL:
        yield field, "https:// where there is a secret", quoted(url), "write https://, or remove the secrets"


def _headers(field: FieldPath, headers: dict[str, str]) -> Iterator[Said]:
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            yield (*field, name), "the name of a header", quoted(name), "write Authorization"
        elif re.search(r"[\r\n\0]", value):
            yield (*field, name), "a header in one line", quoted(value), "remove the line break"
        elif name.lower() in ("authorization", "x-auth-token", "cookie") and "secrets." not in value:
            write = 'write "Bearer {{ secrets.NAME }}", and secrets: {NAME: env:NAME}'
            yield (*field, name), "a reference to a secret", "text that may be the secret itself", write


def _tls(field: FieldPath, tls: Tls | None, root: Path) -> Iterator[Said]:
    if tls is None:
        return
    if tls.ca and not (root / tls.ca).is_file():
        got = f"{quoted(tls.ca)}, which is not there"
        yield (*field, "ca"), "a PEM file", got, "write its path from the site's folder"
    if tls.fingerprint and not FINGERPRINT.fullmatch(tls.fingerprint):
        write = "write what `openssl x509 -fingerprint -sha256` prints, in quotes"
        yield (*field, "fingerprint"), "a SHA-256 of 64 hex digits", quoted(tls.fingerprint), write
    if sum((tls.ca is not None, tls.fingerprint is not None, not tls.verify)) > 1:
        yield field, "one way to verify", "several", "keep one of ca, fingerprint and verify: false"


def _times(check: Health) -> Iterator[Said]:
    for name in ("every", "timeout"):
        if not seconds(getattr(check, name)):
            yield (name,), "a time above 0", getattr(check, name), "write 10s"
    least = seconds(check.for_) + seconds(check.timeout)
    if check.limit and health_limit(check) <= least:
        got = f"{check.limit} where for and timeout take {least:g} s"
        yield ("limit",), "more than for and timeout together", got, f"write {least * 2:.0f}s, or more"


def _tcp(tcp: str | None) -> Iterator[Said]:
    if tcp is None:
        return
    match = _TCP.fullmatch(re.sub(r"\{\{.*?\}\}", "1", tcp))
    if not match or not 0 < int(match[2]) < 65536:
        yield ("tcp",), "ADDRESS:PORT", quoted(tcp), 'write "{{ address }}:443"'


def _prometheus(check: Health, root: Path) -> Iterator[Said]:
    query = check.prometheus
    if query is None:
        return
    yield from _url(("prometheus", "url"), query.url, check)
    yield from _headers(("prometheus", "headers"), query.headers)
    yield from _tls(("prometheus", "tls"), query.tls, root)
    yield from _bounds(query)
    if query.url.rstrip("/").endswith("/api/v1/query"):
        yield ("prometheus", "url"), "the server's URL", quoted(query.url), "remove /api/v1/query"
    if not query.query.strip():
        yield ("prometheus", "query"), "a PromQL query", "nothing", "write 'up{instance=\"{{ name }}\"}'"


def _bounds(query: Prometheus) -> Iterator[Said]:
    low, high, equals = query.at_least, query.at_most, query.equals
    if low is None and high is None and equals is None:
        yield ("prometheus",), "one of at_least, at_most, equals", "none", "write at_least: 1"
    if equals is not None and (low is not None or high is not None):
        yield ("prometheus", "equals"), "equals alone", "other bounds beside it", "remove equals"
    if low is not None and high is not None and low > high:
        got = f"at_least {low:g} above at_most {high:g}"
        yield ("prometheus", "at_least"), "a value that can be", got, "exchange them"
