"""/v1/system/config: the new run-time config of a system that runs, for who has its token and its own key.

The token says which deployment it is; it is on the seed, and can be derived from the site's key. The key pair was made on
the machine at its first boot, its public half came with the report that proved the system, and the private half has
never left the machine: a copy of the seed, or of the site's key, gets no secrets from here.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from aiohttp import web

from metalimmu import log
from metalimmu.boot import answers, config_rules
from metalimmu.boot.answers import Refused
from metalimmu.boot.desk import Desk
from metalimmu.boot.ports import Deployment
from metalimmu.plan.push import fetched
from metalimmu.wire.messages import ConfigAsk, ConfigOffer, Refusal, SystemReport, config_claim

logger = log.get("boot")


class ConfigApi:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/system/config", self.package)]

    async def offer(self, d: Deployment, said: SystemReport) -> ConfigOffer | None:
        """Part of the answer to a report."""
        offer = config_rules.wanted(d, said)
        if offer is None:
            return None
        why = config_rules.keyless(d, said) or await self._desk.call(self._desk.content.withheld, d)
        await self._note(d, offer.serial, why=why)
        return None if why else offer

    async def package(self, request: web.Request) -> web.StreamResponse:
        d = await self._desk.find("proof", answers.bearer(request))
        if d is None:
            return answers.nothing()
        said = await answers.body(request, ConfigAsk)
        if not signed(d.host_key, said):
            raise Refused(
                403, Refusal("AgentRefused", "this is not signed by the key that this machine has registered")
            )
        if d.push is None or not d.push.open or d.push.serial != said.serial:
            raise Refused(409, Refusal("AgentRefused", f"no config {said.serial} waits for this machine"))
        why = await self._desk.call(self._desk.content.withheld, d)
        if why:
            await self._note(d, said.serial, why=why)
            raise Refused(409, Refusal("AgentRefused", why))
        package = await self._desk.call(self._desk.content.package, d)
        await self._note(d, said.serial, **fetched(d.push, self._desk.now()))
        logger.info("%s fetches config %s", d.host, package.digest[:12])
        return answers.message(package)

    async def _note(self, d: Deployment, serial: int, **fields: Any) -> None:
        """Keep what happened to this push, unless a newer one is there by now."""

        def change(now: Deployment) -> dict[str, Any]:
            if now.push is None or not now.push.open or now.push.serial != serial:
                return {}
            after = msgspec.structs.replace(now.push, **fields)
            return {} if after == now.push else {"push": after}

        if d.push is not None and all(getattr(d.push, k) == v for k, v in fields.items()):
            return
        await self._desk.call(self._desk.deployments.update_deployment, d.id, change)
        self._desk.changes.notify(d.id)


def signed(key: str, said: ConfigAsk) -> bool:
    """By this public key?"""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    raw = config_rules.key_bytes(key)
    if raw is None:
        return False
    try:
        signature = base64.b64decode(said.signature, validate=True)
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, config_claim(said.serial))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
