"""What the driver of rollouts asks of a real site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metalimmu.errors import ImageError
from metalimmu.service.health import unwell
from metalimmu.service.planning import plan_host
from metalimmu.service.runs import announce
from metalimmu.service.saved_plans.again import next_plan

if TYPE_CHECKING:
    from metalimmu.plan.types import Plan
    from metalimmu.service.site import OpenSite
    from metalimmu.store.records import RunRecord
    from metalimmu.store.rollout_records import RolloutHost, RolloutRecord


class SiteAround:
    """rollout_driver.Around on a real site."""

    def __init__(self, site: OpenSite) -> None:
        self._site = site

    def plan(self, rollout: RolloutRecord, row: RolloutHost, *, back: bool) -> Plan:
        """The host as it is now, and the very image that was asked for. Raises MetalimmuError."""
        if rollout.plan_digest and not back:
            return next_plan(self._site, rollout, row.host)
        image, digest = (row.before_image, row.before_digest) if back else (row.image, row.digest)
        verb = "rollback" if back else rollout.verb
        plan = plan_host(
            self._site, row.host, image=image, verb=verb, force=bool(rollout.options.get("force")) and not back
        )
        if digest and plan.image.digest != digest:
            raise ImageError(
                f"{image} was {digest[:19]}… when this was asked for, and is {plan.image.digest[:19]}… now",
                hint="somebody made another image under this name: find out who",
            )
        return plan

    def admitted(self, run: RunRecord, plan: Plan) -> None:
        announce(self._site, run, plan)

    def unwell(self, host: str) -> str:
        return unwell(self._site, self._site.spec(host), self._site.store.host(host))
