"""Which hosts a verb is for: by name, or by one selector. A verb that changes something never guesses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite

F = TypeVar("F", bound=Callable[..., Any])


def targets(function: F) -> F:
    """`HOST...` or `-l KEY=VALUE,…`. Passed as `hosts` and `selector`."""
    selector = click.option(
        "-l", "--selector", metavar="KEY=VALUE,…", help="Labels, and pool, role, rack, model, image, state, proof."
    )
    return click.argument("hosts", nargs=-1, metavar="[HOST]...")(selector(function))


def chosen(site: OpenSite, hosts: Sequence[str], selector: str | None, verb: str) -> list[str]:
    """Names, each once, in the order of the documents for a selector. Raises UsageError, NotFound."""
    from metalimmu.errors import UsageError

    if hosts and selector:
        raise UsageError("hosts by name, or by -l; not both", hint="a selector can name hosts too: -l name=r12-u07")
    if not hosts and not selector:
        raise UsageError(
            f"{verb} of which hosts?", hint=f"`metalimmu {verb} HOST...`, or `metalimmu {verb} -l KEY=VALUE`"
        )
    if selector:
        return _selected(site, selector)
    for name in hosts:
        site.spec(name)  # a misspelt name is said before anything is done to the others
    return list(dict.fromkeys(hosts))


def _selected(site: OpenSite, selector: str) -> list[str]:
    """Says on standard error what it means when it means nothing or everything."""
    from metalimmu.errors import UsageError
    from metalimmu.service.hosts import rows

    found = [str(row["name"]) for row in rows(site, selector)]
    count = len(site.docs.hosts)
    if not found:
        raise UsageError(
            f"no host of {count} matches -l {selector}", hint="`metalimmu host list -o wide` shows what they are"
        )
    if len(found) == count:
        click.echo(f"note: -l {selector} matches every host of this site ({count})", err=True)
    return found


def confirmed(site: OpenSite, count: int, what: str, *, yes: bool, confirm: int | None) -> None:
    """`what`: "will be erased". Raises UsageError, GuardRefused, click.Abort.

    `--yes` is for few: a script that selects too much is stopped. `--confirm N` says that one knows how many.
    """
    from metalimmu.errors import GuardRefused, UsageError

    most = site.docs.site.guards.max_hosts
    if confirm is not None:
        if confirm != count:
            raise GuardRefused(
                f"{count} hosts {what}, and --confirm says {confirm}",
                hint="look at the list: `metalimmu plan` with the same hosts",
            )
        return
    if yes:
        if count > most:
            raise UsageError(
                f"{count} hosts {what}: --yes is for up to {most} (guards.max_hosts)",
                hint=f"if you mean it: --confirm {count}",
            )
        return
    typed = click.prompt(f"\n{count} hosts {what}. Type their number to go on", default="", show_default=False)
    if typed.strip() != str(count):
        raise click.Abort


def batch_option(function: F) -> F:
    return click.option("--batch", metavar="N|P%", callback=_batch, help="Hosts of a wave; default: the pool's.")(
        function
    )


def _batch(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | int | None:
    import re

    if value is None:
        return None
    if re.fullmatch(r"[1-9][0-9]{0,5}", value):
        return int(value)
    if re.fullmatch(r"(100|[1-9][0-9]?)%", value):
        return value
    raise click.BadParameter(f"{value!r} is no number of hosts above 0, and no percentage")
