"""Saved plans: `plan --out` and `--file`, `apply`, `approve`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from metalimmu.cli.output import site_option
from metalimmu.cli.targets import confirmed
from metalimmu.desired.problems import visible

if TYPE_CHECKING:
    from metalimmu.plan.saved import Content, Saved
    from metalimmu.plan.types import Plan
    from metalimmu.service.planning import Planner
    from metalimmu.service.saved_plans.approvals import Approvals
    from metalimmu.service.site import OpenSite

F = TypeVar("F", bound=Callable[..., Any])

_FLAGS = ("auto_rollback", "allow_protected", "allow_same_domain", "reason", "max_failures")


def saving(function: F) -> F:
    """Options of `plan`. Passed as `saving`: those that were given."""
    path = click.Path(path_type=Path, dir_okay=False)
    options = (
        click.option("--out", type=path, metavar="FILE", help="Save the plan, complete, for `apply`."),
        click.option("--expires", metavar="TIME", help="With --out: until when, as 30m, 24h or 3d; default 24h."),
        click.option("--key", type=path, metavar="KEY", help="With --out: sign it as its author, with this SSH key."),
        click.option("--skip-refused", is_flag=True, help="With --out: leave hosts out that are refused."),
        click.option("--auto-rollback", is_flag=True, help="With --out: as of `reimage`."),
        click.option("--max-failures", type=click.IntRange(1), help="With --out: as of `reimage`."),
        click.option("--allow-protected", is_flag=True, help="With --out: as of `reimage`; needs --reason."),
        click.option("--allow-same-domain", is_flag=True, help="With --out: as of `reimage`."),
        click.option("--reason", metavar="TEXT", help="With --out: kept in the history."),
        click.option("--rollback", is_flag=True, help="Plan a rollback: each host to the image before."),
        click.option(
            "--from-memory", is_flag=True, help="Ask no BMC: believe what was seen last; `apply` looks again."
        ),
        click.option("--file", type=path, metavar="FILE", help="Print a saved plan; with HOST, that host's in full."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def only_with_out(given: dict[str, Any]) -> None:
    """Raises UsageError for an option that would have no effect."""
    from metalimmu.errors import UsageError

    for name in ("expires", "key", "skip_refused", *_FLAGS):
        if given[name]:
            raise UsageError(f"--{name.replace('_', '-')} says something of a saved plan", hint="--out FILE saves it")


def planner(site: OpenSite, *, from_memory: bool) -> Planner:
    from metalimmu.service.looking import KIND
    from metalimmu.service.planning import Planner

    return Planner(site, memories=site.store.plans.memories(KIND) if from_memory else None)


def one(
    site: OpenSite, planner: Planner, host: str, *, verb: str, image: str | None, force: bool, method: str | None = None
) -> Plan:
    """A single host's plan; says how old a remembered look is."""
    from metalimmu.service.planning import rollback_image

    wanted = rollback_image(site, host) if verb == "rollback" else image
    made = planner.plan(host, image=wanted, verb=verb, force=force, method=method)
    if not planner.asks:
        click.echo(f"from memory: {host} was looked at {_when(made.looked)}", err=True)
    return made.plan


def save(site: OpenSite, names: Sequence[str], *, out: Path, key: Path | None, **given: Any) -> None:
    """Plan, show it, write the file. Raises HostsRefused, GuardRefused."""
    from metalimmu.cli.rollout import looking
    from metalimmu.service.saved_plans import approvals, make

    options = {k: given[k] for k in (*_FLAGS, "batch") if given[k]}
    with looking(names) as looked:
        content = make.make(
            site,
            names,
            verb="rollback" if given["rollback"] else "reimage",
            image=given["image"],
            force=given["force"],
            options=options,
            skip_refused=given["skip_refused"],
            from_memory=given["from_memory"],
            expires=_seconds(given["expires"]),
            key=key,
            progress=looked,
        )
    saved = make.write(site, content, out, key=key)
    describe(content)
    if given["from_memory"]:
        click.echo(f"from memory: {age(content)}; `apply` looks at every host again")
    click.echo(f"\n{saved.digest}\nwritten: {out}, valid until {_when(content.expires)}")
    wanted, pools = make.approvals_wanted(site.docs, content.pools)
    if wanted:
        signed = approvals.read(out, saved.digest, approvals.Signers(site.folder))
        click.echo(_missing(content, signed, wanted, pools, out))
    else:
        click.echo(f"`metalimmu apply {out}` carries it out")


def show(site: OpenSite | None, file: Path, hosts: Sequence[str], fmt: str) -> None:
    """A saved plan as it is; asks nobody."""
    from metalimmu.cli.output import emit
    from metalimmu.cli.reimage import print_plan
    from metalimmu.errors import NotFound
    from metalimmu.service.saved_plans import make

    saved = make.load(file)
    for name in hosts:
        if (found := saved.host(name)) is None:
            raise NotFound(f"the plan {file} has no host {name}", hint=f"`metalimmu plan --file {file}` lists them")
        if fmt in ("json", "yaml"):
            emit([found.plan.encode()], [], fmt)
        else:
            print_plan(_printable(found.plan))
    if not hosts:
        describe(saved.content, fmt)
        if fmt == "table":
            _signed(site, saved, file)


def _printable(plan: Plan) -> Plan:
    """Anybody can have written the file: what moves the cursor is shown instead."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return "".join(c if c.isprintable() or c == "\n" else visible(c) for c in value)
        if isinstance(value, list | tuple):
            return [clean(v) for v in value]
        return {k: clean(v) for k, v in value.items()} if isinstance(value, dict) else value

    return type(plan).decode(clean(plan.encode()))


def describe(content: Content, fmt: str = "table", *, most: int | None = None) -> None:
    from metalimmu.cli.output import emit
    from metalimmu.cli.rollout import as_data, print_proposals, totals
    from metalimmu.service.saved_plans.apply import proposals

    found = proposals(content)
    if fmt in ("json", "yaml"):
        emit([as_data(p) for p in found], [], fmt)
        return
    if fmt == "table":
        given = content.options.given().items()
        options = ", ".join(f"{k} {visible(str(v), 200)}" if v is not True else k for k, v in given)
        by = visible(content.author.name, 200)
        click.echo(f"{content.verb} in {visible(content.site)}, planned by {by} at {_when(content.created)}")
        click.echo(f"  valid until {_when(content.expires)}; {options}")
        for ref, digest in sorted(content.images.items()):
            click.echo(f"  {visible(ref, 200)}  {visible(digest)}")
    print_proposals(found, fmt, most=most)
    if fmt != "name":
        click.echo(totals(found))


@click.command()
@site_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--check", is_flag=True, help="Only verify and compare; change nothing.")
@click.option("--accept-power", is_flag=True, help="Go on where machines are on that were off, or off that were on.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; for up to guards.max_hosts hosts.")
@click.option("--confirm", type=int, metavar="N", help="Do not ask, if it is exactly N hosts.")
@click.option("--no-wait", is_flag=True, help="Queue it for a running worker and return.")
def apply(
    site: Path, file: Path, check: bool, accept_power: bool, yes: bool, confirm: int | None, no_wait: bool
) -> None:
    """Carry out a saved plan exactly as it is, if everything is still as it was planned.

    Refused when it was changed, has expired, is another site's, lacks approvals, was applied before, or when a host, its
    documents or its guards differ from the plan: then each difference is said and nothing is done.
    """
    from metalimmu.cli.reimage import check_worker, work
    from metalimmu.cli.rollout import looking
    from metalimmu.service.saved_plans import apply as applying
    from metalimmu.service.saved_plans import make
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    saved = make.load(file)
    check_worker(opened, no_wait=no_wait)
    with looking([h.host for h in saved.content.hosts]) as looked:
        checked = applying.check(opened, saved, file, accept_power=accept_power, progress=looked)
    describe(saved.content, most=60)
    if checked.approvals.people:
        click.echo(f"signed by {', '.join(checked.approvals.people)}")
    if check:
        click.echo("everything is as it was planned")
        return
    confirmed(opened, len(saved.content.hosts), "will be erased", yes=yes, confirm=confirm)
    found = applying.carry_out(opened, checked)
    click.echo(f"{'rollout' if found.startswith('o-') else 'run'} {found}")
    if not no_wait:
        work(opened, found)


@click.command()
@site_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--key", type=click.Path(path_type=Path, dir_okay=False), metavar="KEY", help="SSH key; default ~/.ssh/id_ed25519."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def approve(site: Path, file: Path, key: Path | None, yes: bool) -> None:
    """Sign a saved plan with your SSH key. Signatures are kept in FILE.approvals; `allowed_signers` of the site says whose
    count.

    The same by hand: echo DIGEST | ssh-keygen -Y sign -n metalimmu-plan -f KEY >> FILE.approvals
    """
    from metalimmu.service.saved_plans import apply as applying
    from metalimmu.service.saved_plans import approvals, make
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    saved = make.load(file)
    applying.verify(opened, saved)
    describe(saved.content)
    chosen = key or Path.home() / ".ssh" / "id_ed25519"
    if not yes:
        click.confirm(f"\nSign {saved.digest} with {chosen}?", abort=True)
    signers = approvals.Signers(opened.folder)
    name = approvals.add(file, saved.digest, chosen, signers)
    click.echo(f"signed by {name}" if name else "you have signed this plan before: nothing was added")
    wanted, pools = make.approvals_wanted(opened.docs, saved.content.pools)
    if wanted:
        click.echo(_missing(saved.content, approvals.read(file, saved.digest, signers), wanted, pools, file))


def age(content: Content) -> str:
    looked = sorted((h.looked, h.host) for h in content.hosts)
    (oldest, which), (newest, _) = looked[0], looked[-1]
    return f"the oldest look is of {_when(oldest)} ({which}), the newest of {_when(newest)}"


def _signed(site: OpenSite | None, saved: Saved, file: Path) -> None:
    from metalimmu.service.saved_plans import approvals

    click.echo(f"\n{saved.digest}")
    if site is None:
        return
    found = approvals.read(file, saved.digest, approvals.Signers(site.folder))
    click.echo(f"signed by {', '.join(found.people) or 'nobody'}")
    for problem in found.problems:
        click.echo(f"  {problem}")


def _missing(content: Content, signed: Approvals, wanted: int, pools: tuple[str, ...], file: Path) -> str:
    left = wanted + 1 - len(signed.people)
    if left <= 0:
        return f"it has all signatures that pool {', '.join(pools)} wants: `metalimmu apply {file}`"
    who = "its author's" if content.author.name not in signed.people else ""
    others = f"{wanted} other{'s' if wanted > 1 else ''}"
    text = f"pool {', '.join(pools)} wants its author's signature and that of {others}; {left} missing"
    return text + (f", {who} among them" if who else "") + f": `metalimmu approve {file}`"


def _seconds(text: str | None) -> float:
    from metalimmu.desired.units import seconds
    from metalimmu.service.saved_plans.make import EXPIRES

    if text is None:
        return EXPIRES
    try:
        found = seconds(text)
    except ValueError:
        found = 0.0
    if not found:
        raise click.BadParameter(f"{text!r} is no time above 0", param_hint="--expires")
    return found


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(moment))
