"""Hooks and health checks in words: their names, the words of a command, their templates, what a plan shows of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from functools import lru_cache
from urllib.parse import urlsplit

from metalimmu.desired.hooks import DEFAULT_LIMIT, Call, Health, Hook, Http, Prometheus, Undo, as_http, as_undo
from metalimmu.desired.problems import Path, visible
from metalimmu.desired.units import seconds

Fill = Callable[[str], str]

_LINE = 1000  # characters

_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_HELD = re.compile("\ue000([0-9]+)\ue001")  # private use: no document means them


def words(command: str | list[str]) -> list[str]:
    """Each a template. Split before it is rendered: a label with blanks or quotes in it stays one argument.

    Raises ValueError for text that shlex does not take.
    """
    return list(command) if isinstance(command, list) else list(_split(command))


@lru_cache(maxsize=1024)
def _split(command: str) -> tuple[str, ...]:
    tags = _TAG.findall(command)
    numbers = iter(range(len(tags)))
    held = _TAG.sub(lambda _: f"\ue000{next(numbers)}\ue001", command)
    return tuple(_HELD.sub(lambda m: tags[int(m[1])], word) for word in shlex.split(held))


def title(call: Call) -> str:
    """Its name, or one made of what it does."""
    if call.name:
        return call.name
    http = getattr(call, "http", None)
    prometheus: Prometheus | None = getattr(call, "prometheus", None)
    url = as_http(http).url if http else prometheus.url if prometheus else ""
    if call.command:
        first = words(call.command)[:1] or ["command"]
        return _plain(first[0].rpartition("/")[2]) or "command"
    if url:
        return _plain("prometheus" if prometheus else _hostname(url)) or "http"
    return _plain("tcp-" + (getattr(call, "tcp", None) or ""))


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # [{{ address }}]: an IPv6 address once it is rendered
        return ""


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", _TAG.sub("", text)).strip("-.")[:60]


def texts(call: Call) -> Iterator[tuple[Path, str, bool]]:
    """(field, template, may it name secrets?) of all that is rendered. Raises ValueError, as `words`."""
    if isinstance(call.command, list):
        yield from ((("command", i), word, False) for i, word in enumerate(call.command))
    elif call.command:
        yield from ((("command",), word, False) for word in words(call.command))
    if isinstance(call, Hook | Undo | Health) and call.http:
        if isinstance(call.http, Http):
            yield ("http", "url"), call.http.url, False
            yield from ((("http", "headers", name), text, True) for name, text in call.http.headers.items())
            if call.http.body is not None:
                yield ("http", "body"), call.http.body, True
        else:
            yield ("http",), call.http, False
    if isinstance(call, Health):
        if call.tcp:
            yield ("tcp",), call.tcp, False
        if call.prometheus:
            yield ("prometheus", "url"), call.prometheus.url, False
            yield ("prometheus", "query"), call.prometheus.query, False
            yield from ((("prometheus", "headers", n), text, True) for n, text in call.prometheus.headers.items())
    if isinstance(call, Hook) and isinstance(call.undo, Undo):
        yield from ((("undo", *path), text, secret) for path, text, secret in texts(call.undo))
    elif isinstance(call, Hook) and call.undo:
        yield from ((("undo",), text, secret) for _, text, secret in texts(as_undo(call.undo)))


def secret_names(call: Call) -> list[str]:
    """Of the hook and its undo."""
    undo = call.undo if isinstance(call, Hook) and isinstance(call.undo, Undo) else None
    return [*call.secrets, *(undo.secrets if undo else ())]


def unverified(call: Call) -> bool:
    """Does it, or its undo, believe any certificate?"""
    undo = call.undo if isinstance(call, Hook) and isinstance(call.undo, Undo) else None
    asked = (getattr(call, "http", None), getattr(call, "prometheus", None), undo and undo.http)
    return any(isinstance(a, Http | Prometheus) and a.tls is not None and not a.tls.verify for a in asked)


def health_limit(check: Health) -> float:
    """Seconds after which the host is unhealthy."""
    return seconds(check.limit) if check.limit else seconds(check.for_) + DEFAULT_LIMIT


def act(call: Call, fill: Fill, *, method: str) -> str:
    """What will be done, without secrets. Raises TemplateError."""
    if call.command:
        return shlex.join(fill(w) for w in words(call.command))
    http = getattr(call, "http", None)
    if http:
        asked = as_http(http)
        return f"{asked.method or method} {fill(asked.url)}"
    if isinstance(call, Health) and call.tcp:
        return f"connect to {fill(call.tcp)}"
    if isinstance(call, Health) and call.prometheus:
        return f"{fill(call.prometheus.query)} {fits(call.prometheus)}, asked of {fill(call.prometheus.url)}"
    return ""


def fits(query: Prometheus) -> str:
    bounds = (("at least", query.at_least), ("at most", query.at_most), ("equal to", query.equals))
    return " and ".join(f"{word} {value:g}" for word, value in bounds if value is not None)


def hook_line(hook: Hook, fill: Fill) -> str:
    """One line of a plan."""
    line = f"{title(hook)}: {act(hook, fill, method='POST')}, at most {hook.limit}"
    if hook.undo is None:
        return visible(line, _LINE)
    undo = as_undo(hook.undo)
    only = " (while the machine is untouched)" if undo.when == "untouched" else ""
    return visible(f"{line}; undo{only}: {act(undo, fill, method='POST')}", _LINE)


def health_line(check: Health, fill: Fill) -> str:
    held = f"for {check.for_} without a break" if seconds(check.for_) else "once"
    limit = check.limit or f"{health_limit(check) / 60:.0f} min"
    return visible(f"{title(check)}: {act(check, fill, method='GET')}, {held}, within {limit}", _LINE)
