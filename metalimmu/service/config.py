"""Run-time config as it is kept, and as a machine is served: secrets and tokens are filled in last, and kept nowhere.

In what the store keeps, `(secret REF HASH)` stands for a secret. The hash is keyed by the site's key: it says that the
secret has changed, and nothing about it. With secrets goes the file `metalimmu.salt`, 160 bits that only this site's key
gives: so the digest over the machine's files, which is kept and shown, cannot be used to guess a short secret either.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2.utils import htmlsafe_json_dumps

from metalimmu.bmc import credentials
from metalimmu.boot.tokens import SiteKey
from metalimmu.desired.problems import Problem
from metalimmu.desired.render import Secret, attempt, digest, named, render
from metalimmu.desired.types import HostSpec, Urls
from metalimmu.errors import SecretError, TemplateError
from metalimmu.plan.config import MARK_HEX, SALT_FILE
from metalimmu.wire.messages import PROOF_FILE, ConfigFile, RunTimeConfig

PHONE_HOME = "http://phone-home.invalid/"  # stands for the address with the deployment's token
ANSWERS = "http://answers.invalid/"  # stands for where an installer finds its files, and ends in /

_FAILURES = 3  # in a row, after which a vault is not asked again


@dataclass(frozen=True)
class Rendered:
    """One config twice. `digest` is the same in both: over the files that the machine gets."""

    kept: RunTimeConfig
    served: RunTimeConfig  # without PROOF_FILE
    secrets: tuple[str, ...] = ()  # the texts that are in it, as they may be written there

    @property
    def digest(self) -> str:
        return self.served.digest


class Secrets:
    """What references point to, each read once: a scan of a fleet asks a vault once for what all its hosts share."""

    def __init__(self, folder: Path, read: Callable[..., str] = credentials.secret) -> None:
        self._folder = folder
        self._read = read
        self._known: dict[str, str | SecretError] = {}
        self._failures = 0

    def __call__(self, ref: str) -> str:
        """Raises SecretError; TemplateError for what is no reference."""
        named(ref)
        if ref not in self._known:
            self._known[ref] = self._ask(ref)
        found = self._known[ref]
        if isinstance(found, SecretError):
            raise found
        return found

    def _ask(self, ref: str) -> str | SecretError:
        vault = ref.startswith("vault:")
        if vault and self._failures >= _FAILURES:
            return SecretError(f"secret {ref} was not asked for: {_FAILURES} others could not be read")
        try:
            value = self._read(ref, folder=self._folder)
        except SecretError as exc:
            self._failures += vault
            return exc
        self._failures = 0 if vault else self._failures
        return value


class Renderer:
    """Configs of a site's hosts. What is compared and what is served must say the same addresses."""

    def __init__(self, key: SiteKey, secrets: Secret, urls: Urls) -> None:
        self._key = key
        self._secrets = secrets
        self._machines = urls.machines
        self._open = (urls.boot or urls.chunks or urls.bmc).rstrip("/")  # where cloud-init phones home in the clear

    def render(self, spec: HostSpec, deployment: str) -> Rendered:
        """Raises TemplateError; SecretError when a secret cannot be read."""
        about = controller(self._machines, deployment)
        refs: set[str] = set()

        def seen(ref: str) -> str:
            refs.add(ref)
            return named(ref)

        plain = render(spec, controller=about, secret=seen)
        if not refs:
            served = self.filled(made(plain), deployment)
            return Rendered(replace(made(plain), digest=served.digest), served)
        kept = self._with_secrets(spec, about, lambda ref: self._mark(spec.name, ref, self._secrets(ref)))
        real = self._with_secrets(spec, about, self._secrets)
        served = self.filled(made({**real, SALT_FILE: f"{self._salt(deployment)}\n"}), deployment)
        values = tuple(sorted({text for ref in refs for text in _written(self._secrets(ref))}))
        return Rendered(replace(made({**kept, SALT_FILE: "(salt)\n"}), digest=served.digest), served, values)

    def filled(self, config: RunTimeConfig, deployment: str) -> RunTimeConfig:
        """cloud-init knows no pinned certificate: it phones home in the clear, by an address that nobody else knows."""
        files = {f.path: f.content for f in config.files}
        for mark, address in (
            (PHONE_HOME, f"{self._open}/p/{self._key.secret('proof', deployment)}"),
            (ANSWERS, self.answers(deployment)),
        ):
            files = {path: content.replace(mark, address) for path, content in files.items()}
        return made(files)

    def answers(self, deployment: str) -> str:
        """Where an installer of this deployment finds its files: as secret as they are. Ends in /."""
        return f"{self._open}/i/{self._key.secret('answers', deployment)}/"

    def _with_secrets(self, spec: HostSpec, about: dict[str, str], secret: Secret) -> dict[str, str]:
        failed: list[SecretError] = []

        def read(ref: str) -> str:
            try:
                return secret(ref)
            except SecretError as exc:  # a template's errors become problems, and this one is none of the template's
                failed.append(exc)
                raise

        files, problems = attempt(spec, controller=about, secret=read)
        if failed:
            raise failed[0]
        if problems:
            raise TemplateError(
                f"run-time config of {spec.name} does not render once its secrets are filled in: {_where(problems)}",
                hint="{{ secret('...') | tojson }} quotes any text; what is wrong is not shown, since it has secrets",
            )
        return files

    def _mark(self, host: str, ref: str, value: str) -> str:
        return f"(secret {ref} {self._key.keyed('config-secret', host, ref, value)[:MARK_HEX]})"

    def _salt(self, deployment: str) -> str:
        return self._key.keyed("config-salt", deployment)[:40]


def _written(value: str) -> tuple[str, str]:
    """As it is, and as `| tojson` writes it."""
    return value, str(htmlsafe_json_dumps(value, ensure_ascii=False))[1:-1]


def _where(problems: Iterable[Problem]) -> str:
    """Without what was found there: it may quote a secret."""
    return "; ".join(f"{p.file}:{p.line}: expected {p.expected}" for p in problems)


def controller(machines_url: str, deployment: str) -> dict[str, str]:
    """`controller` in the templates."""
    return {"url": machines_url.rstrip("/"), "deployment": deployment, "phone_home": PHONE_HOME, "answers": ANSWERS}


def made(files: dict[str, str]) -> RunTimeConfig:
    return RunTimeConfig(files=tuple(ConfigFile(k, v) for k, v in sorted(files.items())), digest=digest(files))


def has_secrets(config: RunTimeConfig) -> bool:
    """Is it kept without secrets that the machine has?"""
    return any(f.path == SALT_FILE for f in config.files)


def texts(config: RunTimeConfig) -> dict[str, str]:
    return {f.path: f.content for f in config.files}


def with_proof(config: RunTimeConfig, proof: dict[str, str]) -> RunTimeConfig:
    """With the proof unit's file, which is no part of the digest that it carries."""
    text = json.dumps({**proof, "config_digest": config.digest}, indent=1, sort_keys=True)
    return replace(config, files=(*config.files, ConfigFile(PROOF_FILE, text)))
