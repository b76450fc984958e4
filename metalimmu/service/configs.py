"""Run-time config of a site's hosts: what was deployed, what the documents give now, and whether they are the same."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from metalimmu.boot.tokens import SiteKey
from metalimmu.desired.render import render
from metalimmu.errors import NotFound, SecretError, TemplateError
from metalimmu.lifecycle import State
from metalimmu.plan import config as compared
from metalimmu.plan.config import FileChange, Has, Says, masked
from metalimmu.service.config import Renderer, Secrets, controller, texts

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec
    from metalimmu.plan.push import Push
    from metalimmu.plan.types import Finding
    from metalimmu.service.config import Rendered
    from metalimmu.service.site import OpenSite
    from metalimmu.store.records import DeploymentRecord, HostRecord

NOT_READ = "its secrets were not read here; `metalimmu config diff` reads them"


class Configs:
    """Lives as long as one request or one scan: secrets are read once in it, or not at all (`secrets=False`)."""

    def __init__(self, site: OpenSite, *, secrets: bool = True) -> None:
        self._site = site
        self._secrets = secrets

    @cached_property
    def _renderer(self) -> Renderer:
        read = Secrets(self._site.folder) if self._secrets else _unread
        return Renderer(self.key, read, self._site.docs.site.urls)

    @cached_property
    def key(self) -> SiteKey:
        return SiteKey.at(self._site.state / "tls" / "site.key")

    def deployment(self, host: str, record: HostRecord | None = None) -> DeploymentRecord | None:
        """The one that the host's present system came from."""
        store = self._site.store
        record = record or store.host(host)
        run = str(record.proof_evidence.get("run", ""))
        if not run or record.image is None:
            return None
        try:
            found = store.deployment(run)
        except NotFound:  # made after the backup that this controller was restored from
            return None
        return found if found.digest == record.digest else None

    def has(self, host: str) -> Has | None:
        record = self._site.store.host(host)
        d = self.deployment(host, record)
        if d is None or d.config is None:
            return None
        return Has(
            deployment=d.id,
            digest=d.config_digest,
            files=texts(d.config),
            key=d.config_key,
            at=d.config_at or d.created,
            seen=d.config_seen,
            seen_at=d.config_seen_at or 0.0,
            pushed=_pushed(d.push),
            why="it is being deployed" if record.state is State.deploying else "",
        )

    def rendered(self, spec: HostSpec, deployment: str) -> Rendered:
        """Raises TemplateError, SecretError."""
        return self._renderer.render(spec, deployment)

    def says(self, spec: HostSpec, deployment: str) -> Says:
        try:
            found = self.rendered(spec, deployment)
        except TemplateError as exc:
            return Says(files={}, why=exc.message)
        except SecretError as exc:
            about = controller(self._site.docs.site.urls.machines, deployment)
            try:
                return Says(files=render(spec, controller=about), why=exc.message)
            except TemplateError as wrong:
                return Says(files={}, why=wrong.message)
        return Says(files=texts(found.kept), digest=found.digest, key=self.key.id)

    def finding(self, spec: HostSpec) -> Finding:
        """`config.digest` of one host, see plan.config."""
        return self._compared(spec, self.has(spec.name))[0]

    def compare(self, spec: HostSpec) -> tuple[Finding, list[FileChange]]:
        has = self.has(spec.name)
        found, says = self._compared(spec, has)
        return found, compared.changes(has, says) if has and says.files else []

    def _compared(self, spec: HostSpec, has: Has | None) -> tuple[Finding, Says]:
        says = self.says(spec, has.deployment) if has else Says(files={})
        return compared.finding(spec.name, has, says, now=time.time()), says

    def scanned(self, spec: HostSpec) -> tuple[Finding, ...]:
        """For scans: nothing is said of hosts that nobody wants or has made into anything."""
        has = self.has(spec.name) if spec.role is not None else None
        return () if has is None else (self._compared(spec, has)[0],)


def brief(site: OpenSite, spec: HostSpec) -> dict[str, str] | None:
    """For `host show`: without secrets, so that no vault is asked."""
    configs = Configs(site, secrets=False)
    has = configs.has(spec.name)
    if has is None or spec.role is None:
        return None
    found = configs.finding(spec)
    told = {"digest": has.digest, "word": str(found.word), "reason": found.reason}
    return {k: v for k, v in told.items() if v}


def _unread(_ref: str) -> str:
    raise SecretError(NOT_READ)


def _pushed(push: Push | None) -> str:
    if push is None:
        return ""
    if push.state == "failed":
        return f"a push has failed: {push.why}"
    if not push.open:
        return ""
    word = "is being applied" if push.state == "fetched" else "waits for the machine to fetch it"
    return f"a push of {push.digest[:12]} {word}" + (f" ({push.why})" if push.why else "")


def show(site: OpenSite, host: str) -> dict[str, Any]:
    """What was deployed, as it is kept: secrets by their references. Raises NotFound."""
    spec = site.spec(host)
    configs = Configs(site, secrets=False)
    d = configs.deployment(host)
    if d is None or d.config is None:
        raise NotFound(
            f"no deployment of {host} is recorded", hint=f"`metalimmu config render {host}` says what it would get"
        )
    found = configs.finding(spec)
    push = d.push
    return {
        "host": host,
        "deployment": d.id,
        "at": d.config_at or d.created,
        "digest": d.config_digest,
        "reported": d.config_seen or None,
        "reported_at": d.config_seen_at,
        "now": str(found.word),
        "reason": found.reason,
        "key": "made" if d.host_key else None,
        "push": {
            "state": push.state,
            "digest": push.digest,
            "asked_at": push.at,
            "by": push.by,
            "reason": push.reason,
            "ended_at": push.done,
            "why": push.why,
        }
        if push
        else None,
        "secrets": compared.secrets(texts(d.config)),
        "files": {path: masked(text) for path, text in texts(d.config).items() if path != compared.SALT_FILE},
    }


def render_now(site: OpenSite, host: str, *, with_secrets: bool = False) -> dict[str, str]:
    """File -> content that a push would bring. Raises NotFound, TemplateError; SecretError only `with_secrets`."""
    spec = site.spec(host)
    configs = Configs(site)
    d = configs.deployment(host)
    deployment = d.id if d else ""
    if with_secrets:
        return texts(configs.rendered(spec, deployment).served)
    return render(spec, controller=controller(site.docs.site.urls.machines, deployment))
