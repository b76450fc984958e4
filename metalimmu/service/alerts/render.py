"""A notice in the words of each channel. Pure. What came from a BMC cannot leave its place: each channel escapes in its own way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from metalimmu.bmc.answers import clean
from metalimmu.service import reasons
from metalimmu.service.alerts.notice import Notice, Told

MOST_CAUSES = 20  # named in one text for people
MOST_NAMES = 20
MOST_TEXT = 200  # characters of one value


def headline(notice: Notice) -> str:
    """One line: what happened, to how many."""
    if notice.kind == "test":
        return f"[{notice.site}] a test of this alert: nothing has happened"
    if len(notice.causes) != 1:
        words = {"drift": "new causes of drift", "fixed": "causes are over", "unknown": "reasons why hosts are unknown"}
        return f"[{notice.site}] {len(notice.causes)} {words.get(notice.kind, 'causes')}"
    cause = notice.causes[0]
    return f"[{notice.site}] {_title(notice, cause)}"


def _title(notice: Notice, cause: Told) -> str:
    hosts = _count(cause.hosts_total)
    if cause.kind == "unknown":
        verb = "can be read again" if notice.kind == "fixed" else "cannot be read"
        if cause.reason == reasons.PARTLY and notice.kind != "fixed":
            return f"{hosts} can be read in part only"
        if cause.how == "changed":
            return f"{hosts} cannot be read for another reason now, it was: {reasons.words(cause.reason)}"
        return f"{hosts} {verb}: {reasons.words(cause.reason)}"
    if notice.kind == "fixed":
        over = cause.how if cause.how in ("waived", "changed") else "over"
        return f"drift {over}: {_text(cause.setting)} on {hosts}"
    return f"{cause.severity}: {_text(cause.setting)} drifted on {hosts}"


def _count(hosts: int) -> str:
    return f"{hosts} host" + ("" if hosts == 1 else "s")


def _text(value: str) -> str:
    return clean(value, MOST_TEXT)


def plain(notice: Notice) -> str:
    """For e-mail: text alone, so that nothing in it can be more than text."""
    lines = [headline(notice), ""]
    for cause in notice.causes[:MOST_CAUSES]:
        lines += [_title(notice, cause), *(f"  {name:<10}{value}" for name, value in _facts(notice, cause)), ""]
    if len(notice.causes) > MOST_CAUSES:
        lines += [f"and {len(notice.causes) - MOST_CAUSES} more: `metalimmu drift` shows them all", ""]
    return "\n".join([*lines, f"decided {_utc(notice.at)}; notice {notice.id}", ""])


def _facts(notice: Notice, cause: Told) -> list[tuple[str, str]]:
    names = ", ".join(_text(h) for h in cause.hosts[:MOST_NAMES])
    more = cause.hosts_total - min(len(cause.hosts), MOST_NAMES)
    joined = cause.new_hosts_total if cause.revision > 1 and notice.kind != "fixed" else 0
    facts = {
        "setting": _text(cause.setting),
        "named": _text(", ".join(n for n in cause.settings if n != cause.setting)),
        "expected": _text(cause.expected),
        "actual": _text(cause.actual),
        "reason": _text(cause.detail or cause.reason),
        "owner": _text(cause.owner),
        "since": _utc(cause.since),
        "by": _text(", ".join(cause.by)),
        "joined": _count(joined) if joined else "",
        "hosts": names + (f" and {more} more" if more > 0 else ""),
    }
    return [(name, value) for name, value in facts.items() if value]


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def slack(notice: Notice) -> dict[str, Any]:
    """For Slack and those that take its messages. Values stand in code spans: neither links, nor mentions, nor markup."""
    icon = {"fixed": ":large_green_circle:", "test": ":information_source:"}.get(notice.kind, ":red_circle:")
    lines = [f"{icon} *{_mrkdwn(headline(notice))}*"]
    several = len(notice.causes) > 1
    for cause in notice.causes[:MOST_CAUSES]:
        if several:
            lines.append(f"• *{_mrkdwn(_title(notice, cause))}*")
        lines += [f"{'    ' if several else ''}{name}: `{_mrkdwn(value)}`" for name, value in _facts(notice, cause)]
    if len(notice.causes) > MOST_CAUSES:
        lines.append(f"and {len(notice.causes) - MOST_CAUSES} more")
    return {"text": "\n".join(lines), "unfurl_links": False, "unfurl_media": False, "link_names": False}


def _mrkdwn(text: str) -> str:
    """Slack's three entities; and no character that would end a code span or begin markup (`@` is a mention in Mattermost)."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.translate({ord("`"): "'", ord("*"): "\u2217", ord("@"): "@\u200b"})


def email(notice: Notice, *, sender: str, to: list[str]) -> EmailMessage:
    """The Message-ID is the notice's: mail systems drop a second copy."""
    import datetime as dt

    mail = EmailMessage()
    mail["Subject"] = clean(headline(notice), 200)
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Date"] = format_datetime(dt.datetime.fromtimestamp(notice.at, dt.UTC))
    mail["Message-ID"] = f"<{notice.id}@{notice.site}.metalimmu.invalid>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation answers
    mail.set_content(plain(notice))
    return mail


def alertmanager(notice: Notice, *, labels: Mapping[str, str], hold: float, now: float) -> list[dict[str, Any]]:
    """The body of POST /api/v2/alerts. Labels are the same as long as the cause is: they are what it knows an alert by."""
    return [
        {
            "labels": {
                **labels,
                "alertname": "MetalimmuDrift" if cause.kind == "drift" else "MetalimmuHostsUnknown",
                "site": notice.site,
                "severity": cause.severity,
                "cause": cause.cause,
                **({"setting": _text(cause.setting)} if cause.setting else {}),
                **({"reason": _text(cause.reason)} if cause.reason else {}),
                **({"owner": _text(cause.owner)} if cause.owner else {}),
            },
            "annotations": {
                "summary": headline(Notice(id="", site=notice.site, kind=notice.kind, at=now, causes=(cause,))),
                "description": "\n".join(f"{name}: {value}" for name, value in _facts(notice, cause)),
            },
            "startsAt": _rfc3339(cause.since),
            "endsAt": _rfc3339(max(now, cause.since) if notice.kind == "fixed" else now + hold),
        }
        for cause in notice.causes
    ]


def _rfc3339(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"
