"""`power` and `prove` of one host or of many: who is refused, the question, what came of each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from metalimmu.cli.targets import confirmed

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite

_AT_ONCE = 8  # hosts; the budget of the BMCs holds beside that
_LOST = {"off": "what runs there is lost", "reset": "what runs there is lost"}


def power_status(site: OpenSite, names: Sequence[str], *, retry_login: bool) -> None:
    from metalimmu.service import hosts

    _each(names, lambda host: str(hosts.power_status(site, host, retry_login=retry_login)), site=site)


def power(
    site: OpenSite,
    names: Sequence[str],
    verb: str,
    *,
    one: bool,
    yes: bool,
    confirm: int | None,
    skip_refused: bool,
    **options: Any,
) -> None:
    """Raises GuardRefused before anything is done, HostsRefused where it came in between."""
    from metalimmu.service import hosts
    from metalimmu.service.guarding import Guards, act

    guards = Guards(site)
    if one:
        guards.check(act(f"power {verb}", names[0], options))
        if verb in _LOST and confirm is None and not yes:
            click.confirm(f"Power {verb} of {names[0]}: {_LOST[verb]}. Go on?", abort=True)
        elif confirm is not None:
            confirmed(site, 1, _will(verb), yes=yes, confirm=confirm)
    else:
        world = guards.world()
        refused = {n: r for n in names if (r := guards.refusals(act(f"power {verb}", n, options), world))}
        names = _others(names, {n: "; ".join(r.text for r in found) for n, found in refused.items()}, skip=skip_refused)
        if not names:
            return
        if verb in _LOST or len(names) > site.docs.site.guards.max_hosts:
            confirmed(site, len(names), _will(verb), yes=yes, confirm=confirm)
    at_once = max(1, min(_AT_ONCE, site.docs.site.guards.max_hosts))
    _each(names, lambda host: str(hosts.power(site, host, verb, **options)), site=site, workers=at_once)


def _will(verb: str) -> str:
    return f"will be reset: {_LOST[verb]}" if verb == "reset" else f"will be switched {verb}"


def _others(names: Iterable[str], refused: dict[str, str], *, skip: bool) -> list[str]:
    from metalimmu.errors import HostsRefused

    names = list(names)
    problems = tuple(f"{name}: {text}" for name, text in refused.items())
    left = [n for n in names if n not in refused]
    if refused and not (skip and left):
        hint = "" if left else "nothing was done"
        raise HostsRefused(f"{len(refused)} of {len(names)} hosts are refused", problems=problems, hint=hint)
    for problem in problems:
        click.echo(f"refused: {problem}", err=True)
    return left


def prove(site: OpenSite, names: Sequence[str]) -> None:
    from metalimmu.service import proof
    from metalimmu.service.worker import Worker

    click.echo(
        f"asking {names[0] if len(names) == 1 else f'{len(names)} hosts'}; a system reports by itself every few minutes "
        "(limits.report_again), Ctrl-C stops asking",
        err=True,
    )
    worker = Worker(site, runs=False)
    lock = threading.Lock()

    def listening() -> None:
        with lock:
            worker.try_start()

    try:
        # All wait together: their systems report when they report.
        _each(names, lambda host: proof.prove(site, host, listening=listening), site=site, workers=min(len(names), 64))
    finally:
        worker.stop()


def _each(names: Sequence[str], act: Callable[[str], str], *, site: OpenSite, workers: int = _AT_ONCE) -> None:
    """A line for each as it comes. One host's error is raised; of many, how many there were."""
    from metalimmu.errors import HostsRefused, MetalimmuError
    from metalimmu.service.brownfield.many import each

    if len(names) == 1:
        click.echo(f"{names[0]}: {act(names[0])}")
        return
    site.docs, site.store, site.budget  # noqa: B018  # opened once, before the threads
    problems = []
    for name, result in each(names, act, workers=workers):
        if isinstance(result, MetalimmuError):
            problems.append(f"{name}: {result.message}")
            click.echo(f"{name}: {result.code}: {result.message}", err=True)
        else:
            click.echo(f"{name}: {result}")
    if problems:
        raise HostsRefused(
            f"{len(problems)} of {len(names)} hosts: not done",
            problems=tuple(sorted(problems)),
            hint="the others are done; what is refused may be asked again when there is more to spare",
        )
