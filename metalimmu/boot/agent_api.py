"""/v1: what agents and proof units say, see wire.messages. Decisions are in rules; here they meet store and HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from metalimmu import log
from metalimmu.boot import answers, rules
from metalimmu.boot.answers import Refused
from metalimmu.boot.config_api import ConfigApi
from metalimmu.boot.desk import Desk
from metalimmu.boot.ports import Deployment, Secret
from metalimmu.boot.rules import Verdict
from metalimmu.boot.salvage_api import SalvageApi
from metalimmu.wire.messages import CheckIn, Failure, Progress, Refusal, Report, SystemAnswer, SystemReport

logger = log.get("boot")


class AgentApi:
    """Every handler raises MetalimmuError for our own troubles (answered 503) and Refused for the machine's."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._config = ConfigApi(desk)
        self._salvage = SalvageApi(desk)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/check-in", self.check_in),
            web.get("/v1/manifest/{sha}", self.manifest, allow_head=False),
            web.get("/v1/config", self.config, allow_head=False),
            web.post("/v1/progress", self.progress),
            web.post("/v1/report", self.report),
            web.post("/v1/failure", self.failure),
            web.post("/v1/system", self.system),
            web.get("/v1/controller", self.controller, allow_head=False),
            *self._config.routes(),
            *self._salvage.routes(),
        ]

    def open_routes(self) -> list[web.RouteDef]:
        """For clients that cannot pin a certificate: served where chunks are, in the clear."""
        return [web.post("/p/{secret}", self.phone_home)]

    async def check_in(self, request: web.Request) -> web.StreamResponse:
        d = await self._deployment(request)
        said = await answers.body(request, CheckIn)
        image = await self._desk.image(d.digest)
        now = self._desk.now()
        d = await self._decide(d, lambda it: rules.check_in(it, said, image.manifest, now))
        await self._its_turn(d)
        logger.info("%s checked in as %s", d.host, said.identity.serial)
        return answers.message(rules.assignment(d, self._desk.chunk_base(d), now))

    async def _its_turn(self, d: Deployment) -> None:
        """Raises Refused for an agent that has to wait with its writing; it says so on its console, and asks again."""
        if d.stage != "write" or d.stop or d.report is not None:
            return
        why = self._desk.turns.ask(d.id)
        now = self._desk.now()
        if bool(why) is (d.queued is None):
            await self._change(d, lambda it: rules.queued(it, now, waits=bool(why)))
        if why:
            raise Refused(409, Refusal("AgentWaits", f"{d.host} waits for its turn: {why}", "nothing is to be done"))

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        d = self._running(await self._deployment(request))
        digest = f"sha256:{request.match_info['sha']}"
        if digest not in (
            d.digest,
            d.assignment.previous_digest,
        ):  # the previous one tells the agent what is on the disk
            return answers.nothing()
        image = await self._desk.image(digest)
        return web.Response(body=image.encoded, content_type="application/json")

    async def config(self, request: web.Request) -> web.StreamResponse:
        d = self._running(await self._deployment(request))
        if d.check_in is None:
            raise Refused(409, Refusal("AgentRefused", "run-time config is for a machine that has checked in"))
        return answers.message(await self._desk.call(self._desk.content.config, d))

    async def progress(self, request: web.Request) -> web.StreamResponse:
        d = await self._deployment(request)
        said = await answers.body(request, Progress)
        verdict = rules.progressing(d, said)
        if verdict.changes:
            await self._change(d, lambda _: verdict.changes)
        self._raise(verdict)
        if rules.writes(d, said):
            self._desk.turns.heard(d.id)
        else:
            self._desk.turns.done(d.id)
        kept = rules.progress(said)
        if self._desk.recorder.progress(d.id, kept, rules.log_lines(said), self._desk.now()):
            await self._desk.flush()
        return await self._orders(d)

    async def report(self, request: web.Request) -> web.StreamResponse:
        d = await self._deployment(request)
        said = await answers.body(request, Report)
        image = await self._desk.image(d.digest)
        now = self._desk.now()
        await self._desk.flush()
        d = await self._decide(d, lambda it: rules.report(it, said, image.manifest, now))
        self._desk.turns.done(d.id)
        return await self._orders(d)

    async def failure(self, request: web.Request) -> web.StreamResponse:
        d = await self._deployment(request)
        said = await answers.body(request, Failure)
        now = self._desk.now()
        await self._desk.flush()
        d = await self._decide(d, lambda it: rules.failure(it, said, now))
        self._desk.turns.done(d.id)
        return await self._orders(d)

    async def system(self, request: web.Request) -> web.StreamResponse:
        d = await self._desk.find("proof", answers.bearer(request))
        if d is None:
            await self._unknown("proof", request)
            return answers.nothing()
        said = await answers.body(request, SystemReport)
        image = await self._desk.image(d.digest)
        now = self._desk.now()
        before, boot = d.push, d.system.boot_id if d.system else ""
        d = await self._decide(d, lambda it: rules.system(it, said, image.manifest, now))
        if d.push is not None and before is not None and (d.push.serial, d.push.state) != (before.serial, before.state):
            await self._desk.call(self._desk.content.settled, d)
        heard = rules.acknowledges(d, said, image.manifest)
        ours = d.system_ok and not rules.another_system(d, said, image.manifest)
        if ours and said.boot_id != boot:
            await self._desk.call(self._desk.content.booted, d)
        offer = await self._config.offer(d, said) if ours else None
        return answers.message(SystemAnswer(heard, round(self._desk.again), offer))

    async def controller(self, request: web.Request) -> web.StreamResponse:
        """For another controller with this site's key: see service.presence."""
        if not self._desk.is_controller(answers.bearer(request) or ""):
            return answers.nothing()
        return web.json_response(await self._desk.call(self._desk.content.controller))

    async def phone_home(self, request: web.Request) -> web.StreamResponse:
        d = await self._desk.find("proof", request.match_info["secret"])
        if d is None:
            return answers.nothing()
        form = await request.post()
        instance, hostname, serial = (str(form.get(k, ""))[:200] for k in ("instance_id", "hostname", "serial"))
        now = self._desk.now()
        verdict = rules.phoned_home(d, instance, hostname, now, serial)
        if verdict.status == HTTPStatus.NOT_FOUND:
            return answers.nothing()
        await self._decide(d, lambda it: rules.phoned_home(it, instance, hostname, now, serial))
        return web.Response(text="heard")

    async def _orders(self, d: Deployment) -> web.StreamResponse:
        orders = rules.orders(d)
        if orders.go and d.went is None:
            now = self._desk.now()
            await self._change(d, lambda it: {} if it.went else {"went": now})
        return answers.message(orders)

    async def _deployment(self, request: web.Request) -> Deployment:
        found = await self._desk.find("agent", answers.bearer(request))
        if found is None:
            await self._unknown("agent", request)
            raise web.HTTPNotFound
        return found

    async def _unknown(self, kind: Secret, request: web.Request) -> None:
        """A token that we once gave, for a deployment that we do not know: the store was restored from a backup that is
        older. Raises Refused, with words for the machine's console; strangers get none.
        """
        deployment = answers.deployment_of(request)
        if not deployment or not self._desk.made(kind, answers.bearer(request) or "", deployment):
            return
        said: SystemReport | CheckIn | None = None
        if request.path.endswith("/v1/system"):
            said = await answers.body(request, SystemReport)
        elif request.path.endswith("/v1/check-in"):
            said = await answers.body(request, CheckIn)
        why = await self._desk.call(self._desk.content.unknown, deployment, said)
        raise Refused(403, Refusal("AgentRefused", why, "`metalimmu host list` on the controller shows this machine"))

    def _running(self, d: Deployment) -> Deployment:
        if d.ended is not None:
            raise web.HTTPNotFound
        return d

    async def _decide(self, d: Deployment, rule: Callable[[Deployment], Verdict]) -> Deployment:
        """Apply a rule to the record as it is inside the store's transaction: two machines cannot both be first."""
        verdict = Verdict()

        def change(now: Deployment) -> Mapping[str, Any]:
            nonlocal verdict
            verdict = rule(now)
            return verdict.changes

        after = await self._change(d, change)
        self._raise(verdict)
        return after

    async def _change(self, d: Deployment, change: Callable[[Deployment], Mapping[str, Any]]) -> Deployment:
        after = await self._desk.call(self._desk.deployments.update_deployment, d.id, change)
        self._desk.changes.notify(d.id)
        return after

    def _raise(self, verdict: Verdict) -> None:
        if verdict.refusal is not None:
            raise Refused(verdict.status, verdict.refusal)
