"""What the units of an installed system do: report, and fetch a newer run-time config, as pxe/proof does it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import ssl
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from metalimmu.wire import codec
from metalimmu.wire.messages import (
    PROOF_FILE,
    ConfigAsk,
    ConfigFile,
    ConfigOffer,
    ConfigPackage,
    SystemAnswer,
    SystemReport,
    config_claim,
)
from metalimmu_emulator.simulated_agent import Platter
from metalimmu_emulator.simulated_http import BROKEN, Answer, Connection


class Machinery(Protocol):
    """The machine around the system."""

    disk: Platter
    context: ssl.SSLContext

    def pause(self, seconds: float) -> None: ...

    def fault(self, word: str) -> str | None: ...


class SimulatedSystem:
    """`run` returns when the controller wants to hear nothing more. What it reports of its image comes from `report`."""

    def __init__(self, around: Machinery, report: Callable[[], SystemReport], say: Callable[[str], None]) -> None:
        self._around = around
        self._report = report
        self._say = say
        self._failed: tuple[int, str] = (0, "")
        self._own: Ed25519PrivateKey = host_key(around.disk)
        self._open: tuple[str, Connection] | None = None  # kept, with the settings that it was opened by

    def run(self) -> None:
        try:
            self._run()
        finally:
            self._close()

    def _run(self) -> None:
        while True:  # as often as the controller wants to hear it
            said = self._until_acknowledged()
            if said.config is not None and self._fetch(said.config):
                continue
            if not said.again:
                return
            self._around.pause(said.again)

    def _until_acknowledged(self) -> SystemAnswer:
        wait = 2.0
        while True:
            answer = self._ask("/v1/system", self._told())
            if answer is not None and answer.status == 200:
                said = codec.decode(SystemAnswer, answer.data)
                if said.acknowledged:
                    self._say("acknowledged")
                    return said
                if said.config is not None and self._fetch(said.config):
                    continue
            self._around.pause(wait)
            wait = min(wait * 1.5, 15)

    def _told(self) -> SystemReport:
        said = dataclasses.replace(self._report(), config_failed=self._failed[0], config_why=self._failed[1])
        other = self._around.fault("other-config")
        if other is not None:
            said = dataclasses.replace(said, config_digest=hashlib.sha256(other.encode()).hexdigest())
        return said if self._around.fault("no-unit") is not None else dataclasses.replace(said, key=public(self._own))

    def _fetch(self, offer: ConfigOffer) -> bool:
        """True: report at once, whatever came of it."""
        disk = self._around.disk
        if offer.serial == self._failed[0]:
            return False
        if offer.serial <= disk.applied:
            self._failed = (offer.serial, f"config {offer.serial} is not newer than {disk.applied}, which is applied")
            return True
        if self._around.fault("config-cut") is not None:
            self._say("the fetch was cut")
            return False
        key = Ed25519PrivateKey.generate() if self._around.fault("other-key") is not None else self._own
        signature = base64.b64encode(key.sign(config_claim(offer.serial))).decode()
        answer = self._ask("/v1/system/config", ConfigAsk(offer.serial, signature))
        if answer is None or answer.status != 200:
            self._say(f"no config: {answer.status if answer else 'no answer'}")
            return False
        package = codec.decode(ConfigPackage, answer.data)
        if digest(package.files) != package.digest:
            self._failed = (offer.serial, "the files do not have the digest that they came with")
            return True
        before = dict(disk.seed)
        disk.seed = {f.path: f.content for f in package.files}
        why = self._around.fault("config-fails")
        if why is None and self._reaches():
            disk.applied, self._failed = offer.serial, (0, "")
            self._say(f"config {package.digest[:12]} applied by {' '.join(package.apply) or 'cloud-init'}")
        else:
            disk.seed = before
            self._failed = (offer.serial, why if why is not None else "the controller was not reached after the change")
            self._say(f"config not applied: {self._failed[1]}")
        return True

    def _reaches(self) -> bool:
        """Can the controller be reached with the new config?"""
        if self._around.fault("config-cuts-off") is not None:
            return False
        answer = self._ask("/v1/system", self._told())
        return answer is not None and answer.status == 200

    def _ask(self, path: str, said: Any) -> Answer | None:
        settings = self._around.disk.seed[PROOF_FILE]
        where = json.loads(settings)
        if self._open is None or self._open[0] != settings:
            self._close()
            self._open = settings, Connection(where["url"], where["pin"], self._around.context)
        headers = {"Authorization": f"Bearer {where['token']}"}
        try:
            base = urlsplit(where["url"]).path.rstrip("/")
            return self._open[1].request("POST", base + path, body=codec.encode(said), headers=headers)
        except BROKEN as exc:
            self._say(f"{path}: {exc}")
            return None

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
        self._open = None


def host_key(disk: Platter) -> Ed25519PrivateKey:
    """Made at the first boot of what was written, and kept on its disk."""
    deployment = json.loads(disk.seed[PROOF_FILE])["token"]
    known: Ed25519PrivateKey | None = disk.host_keys.get(deployment)
    if known is None:
        known = Ed25519PrivateKey.generate()
        disk.host_keys = {deployment: known}
        disk.applied = 0
    return known


def public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def digest(files: tuple[ConfigFile, ...]) -> str:
    total = hashlib.sha256()
    for file in sorted(files, key=lambda f: f.path):
        if file.path != PROOF_FILE:
            total.update(file.path.encode() + b"\0" + file.content.encode() + b"\0")
    return total.hexdigest()
