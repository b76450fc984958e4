"""`alert list | test | send`: who is told of drift, of what, and whether it arrived."""

from __future__ import annotations

from pathlib import Path

import click

from metalimmu import structs
from metalimmu.cli.output import emit, output_option, site_option


@click.group()
def alert() -> None:
    """Alerts of the site: `alerts:` in site.yaml, decided and sent by `metalimmu serve`."""


@alert.command("list")
@site_option
@click.option("--limit", default=20, show_default=True, help="The newest so many messages.")
@output_option
def list_(site: Path, limit: int, fmt: str) -> None:
    """List what receivers were told, and what still waits for them."""
    from metalimmu.cli.runs import when
    from metalimmu.service.alerts.notice import Notice
    from metalimmu.service.alerts.render import headline
    from metalimmu.service.site import OpenSite

    rows = [
        {
            "id": m.key,
            "alert": m.alert,
            "decided": when(m.created),
            "status": "sent" if m.sent else "given up" if m.dropped else "waiting",
            "tries": m.attempts,
            "message": headline(structs.convert(m.body, Notice)),
            "error": m.error,
            "next": when(None if m.sent or m.dropped else m.next_at),
        }
        for m in OpenSite(site).store.triggers.messages(limit=limit)
    ]
    emit(rows, ["alert", "decided", "status", "tries", "message", "error"], fmt, name="id", wide=["next", "id"])


@alert.command()
@site_option
@click.argument("name")
def test(site: Path, name: str) -> None:
    """Send a test message to the receiver NAME now."""
    from metalimmu.service.alerts import evaluate
    from metalimmu.service.site import OpenSite

    evaluate.test(OpenSite(site), name)
    click.echo(f"{name} has taken a test message")


@alert.command()
@site_option
def send(site: Path) -> None:
    """Decide on alerts and send what is due, once: for sites that scan by cron, without `serve`."""
    from metalimmu.errors import AlertError
    from metalimmu.service.alerts import evaluate, outbox
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    evaluate.evaluate(opened)
    evaluate.refresh(opened)
    sent, failed = outbox.deliver(opened.store.triggers, opened.docs.site.alerts, opened.folder)
    click.echo(f"{sent} messages sent")
    if failed:
        raise AlertError(f"{failed} receivers did not take their messages", hint="`metalimmu alert list` says why")
