"""Hooks and health checks of a site, really asked: programs, HTTP, TCP, Prometheus. Fits workflows.calls.Calls.

A program gets a clean environment: PATH, HOME and LANG of ours, METALIMMU_HOST, _RUN, _VERB, _IMAGE, _PREVIOUS_IMAGE,
_PHASE (before, after, undo, health), _SERIAL, _ADDRESS, _POOL, _ROLE, _HOOK, _HOOK_KEY, _ATTEMPT, _SITE (the folder),
_SITE_NAME, of an undo also _UNDOES, _MACHINE (untouched, started, written, proven) and _OUTCOME (failed, cancelled), and
what its `env:` and `secrets:` name. It gets the change as JSON on standard input and runs in the site's folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from metalimmu.bmc.credentials import secret
from metalimmu.desired.hook_words import texts, title, words
from metalimmu.desired.hooks import Call, Health, Hook, Http, Prometheus, Undo, as_http, as_undo
from metalimmu.desired.render import Filler
from metalimmu.desired.types import Tls
from metalimmu.desired.units import seconds
from metalimmu.errors import HookFailed, SecretError
from metalimmu.service import prometheus
from metalimmu.service.ask import Heard, Request, connect, request
from metalimmu.service.program import Ran, end_by_variable, run
from metalimmu.service.said import last_line
from metalimmu.workflows.calls import Answer, Check, Occasion

if TYPE_CHECKING:
    from pathlib import Path

    from metalimmu.desired.types import HostSpec
    from metalimmu.service.site import OpenSite

KEY = "METALIMMU_HOOK_KEY"

_WITH_BODY = ("POST", "PUT", "PATCH")
_SHOWN = 2000  # characters of an answer's body that are kept


class Caller:
    def __init__(self, site: OpenSite) -> None:
        self._folder: Path = site.folder
        self._site = site.docs.site.name

    def ready(self, spec: HostSpec) -> None:
        for call in _all(spec):
            secrets = self._secrets(call)
            fill = Filler(spec, previous_image="", secrets=secrets)
            found = [fill(text) for _, text, _ in texts(call)]
            for name in call.env:
                if name not in os.environ:
                    raise SecretError(
                        f"{title(call)} wants {name}, which is not set in metalimmu's environment",
                        hint=f"export {name}, or take it out of `env:`",
                    )
            if call.command:
                self._program(found[0])

    def _program(self, name: str) -> None:
        path = self._folder / name if "/" in name else shutil.which(name)
        if path is None or not os.path.isfile(path):  # noqa: PTH113  # text or Path
            raise HookFailed(f"{name}: no such program", hint="write ./NAME for a file of the site's folder")
        if not os.access(path, os.X_OK):
            raise HookFailed(f"{name} may not be executed", hint=f"chmod +x {path}")

    def hook(self, hook: Hook | Undo, occasion: Occasion, *, check: Check) -> Answer:
        limit = seconds(hook.limit)
        if occasion.attempt > 1:
            end_by_variable(KEY, occasion.key)  # of the call that a crash has cut off
        if hook.command:
            return self._command(hook, occasion, limit, check)
        return self._http(as_http(hook.http or ""), hook, occasion, limit, check, "POST")

    def look(self, health: Health, occasion: Occasion, *, check: Check) -> Answer:
        limit = seconds(health.timeout)
        if health.command:
            return self._command(health, occasion, limit, check)
        if health.http:
            return self._http(as_http(health.http), health, occasion, limit, check, "GET")
        fill = self._filler(health, occasion, {})
        if health.prometheus:
            return self._prometheus(health.prometheus, health, occasion, limit, check)
        where = fill(health.tcp or "")
        host, _, port = where.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            return Answer(False, f"{where} is no ADDRESS:PORT")
        heard = connect(host.strip("[]"), int(port), limit=limit, check=check)
        return Answer(heard.status == 1, heard.words, heard.seconds, {"tcp": where})

    # commands

    def _command(self, call: Call, occasion: Occasion, limit: float, check: Check) -> Answer:
        fill = self._filler(call, occasion, {})
        argv = [fill(w) for w in words(call.command or "")]
        secrets = self._secrets(call)
        env = self._environment(call, occasion, secrets)
        text = msgspec.json.encode(occasion.change) + b"\n"
        try:
            ran = run(argv, folder=self._folder, env=env, text=text, limit=limit, check=check)
        except HookFailed as exc:
            return Answer(False, f"{exc.message}: {exc.hint}", 0.0, {"command": argv})
        except BaseException:
            self._escaped(occasion)
            raise
        if ran.ended:
            self._escaped(occasion)
        hidden = (*secrets.values(), *(os.environ.get(n, "") for n in call.env))
        return _judged(call, argv, ran, ran.output.text(hidden))

    def _escaped(self, occasion: Occasion) -> None:
        """What has left its process group, of a call that was ended."""
        if occasion.key:
            end_by_variable(KEY, occasion.key)

    def _environment(self, call: Call, occasion: Occasion, secrets: Mapping[str, str]) -> dict[str, str]:
        own = {k: os.environ[k] for k in ("PATH", "HOME", *call.env) if k in os.environ}
        facts = {f"METALIMMU_{k.upper()}": v for k, v in occasion.facts.items()}
        site = {"METALIMMU_SITE": str(self._folder), "METALIMMU_SITE_NAME": self._site}
        return {"LANG": os.environ.get("LANG", "C.UTF-8"), **own, **secrets, **facts, **site}

    # requests

    def _http(self, http: Http, call: Call, occasion: Occasion, limit: float, check: Check, method: str) -> Answer:
        fill = self._filler(call, occasion, self._secrets(call))
        method = http.method or method
        url = fill(http.url)
        headers = {name: fill(value) for name, value in http.headers.items()}
        body = None
        if http.body is not None:
            body = fill(http.body).encode()
        elif not isinstance(call, Health) and method in _WITH_BODY:
            body = msgspec.json.encode(occasion.change)
            headers.setdefault("Content-Type", "application/json")
        if occasion.phase != "health":
            headers.setdefault("Idempotency-Key", occasion.key)
        asked = Request(method, url, headers, body, http.tls or Tls(), by_environment=not isinstance(call, Health))
        heard = request(asked, folder=self._folder, limit=limit, check=check)
        return _fitting(http, f"{method} {url}", heard)

    def _prometheus(self, wanted: Prometheus, health: Health, occasion: Occasion, limit: float, check: Check) -> Answer:
        fill = self._filler(health, occasion, self._secrets(health))
        query = fill(wanted.query)
        headers = {name: fill(value) for name, value in wanted.headers.items()}
        url = prometheus.url(fill(wanted.url), query)
        asked = Request("GET", url, headers, None, wanted.tls or Tls(), largest=prometheus.LARGEST)
        heard = request(asked, folder=self._folder, limit=limit, check=check)
        good, said = prometheus.judge(heard, wanted)
        return Answer(good, said, heard.seconds, {"query": query, "status": heard.status})

    # templates and secrets

    def _filler(self, call: Call, occasion: Occasion, secrets: dict[str, str]) -> Callable[[str], str]:
        facts = occasion.facts
        return Filler(
            occasion.spec,
            title(call),
            image=facts["image"],
            previous_image=facts["previous_image"],
            secrets=secrets,
        )

    def _secrets(self, call: Call) -> dict[str, str]:
        """Raises SecretError."""
        return {name: secret(ref, folder=self._folder) for name, ref in call.secrets.items()}


def _all(spec: HostSpec) -> list[Call]:
    """Every hook, undo and check of a host."""
    found: list[Call] = []
    for hook in (*spec.before, *spec.after):
        found += [msgspec.structs.replace(hook, undo=None), *([as_undo(hook.undo)] if hook.undo else [])]
    return [*found, *spec.health]


def _judged(call: Call, argv: list[str], ran: Ran, output: str) -> Answer:
    evidence: dict[str, Any] = {"command": argv, "status": ran.status, "output": output, "bytes": ran.output.size}
    if ran.left:
        evidence["left"] = "processes that it left running were ended"
    tail = f": {last_line(output)}" if last_line(output) else ""
    if ran.ended:
        return Answer(False, ran.ended + tail, ran.seconds, evidence)
    if ran.status != 0:
        how = f"exit status {ran.status}" if (ran.status or 0) > 0 else f"killed by signal {-(ran.status or 0)}"
        return Answer(False, how + tail, ran.seconds, evidence)
    if call.output is not None and not re.search(call.output, output, re.MULTILINE):
        return Answer(False, f"its output does not contain {call.output!r}{tail}", ran.seconds, evidence)
    return Answer(True, f"done{tail}", ran.seconds, evidence)


def _fitting(http: Http, what: str, heard: Heard) -> Answer:
    evidence: dict[str, Any] = {"request": what, "status": heard.status, "body": heard.body[:_SHOWN]}
    wanted = [http.status] if isinstance(http.status, int) else http.status
    good = heard.status in wanted if wanted else heard.status // 100 == 2
    if heard.status == 0 or not good:
        said = heard.words if heard.status == 0 else f"answered {heard.words}"
        tail = f": {last_line(heard.body)}" if heard.body.strip() and heard.status else ""
        return Answer(False, said + tail, heard.seconds, evidence)
    if http.expect is not None and not re.search(http.expect, heard.body, re.MULTILINE):
        return Answer(False, f"answered {heard.words}, without {http.expect!r}", heard.seconds, evidence)
    return Answer(True, f"answered {heard.words}", heard.seconds, evidence)
