"""Schedules and alerts that are wrong: named with file and line before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from metalimmu.desired.check import check
from metalimmu.desired.load import load

MakeSite = Callable[[Mapping[str, str]], Path]

HEAD = 'name: ams1\nurls: {bmc: "http://10.0.0.5:8080", machines: "https://10.1.0.5:8443"}\n'

GOOD = """schedules:
  nightly-drift: {verb: scan, cron: "0 2 * * *", timezone: Europe/Berlin, splay: 30m, scope: "pool=web", window: {start: "22:00", end: "06:00", days: [sat, sun]}}
  hourly: {cron: "17 * * * *"}
alerts:
  - {name: hook, webhook: {url: "https://alerts.example.org/m", secret: "env:HOOK"}, news: [drift, fixed], severity: critical}
  - {name: chat, slack: {url: "file:slack"}}
  - {name: mail, email: {server: "smtp.example.org:587", sender: m@example.org, to: [ops@example.org], credentials: "env:SMTP"}}
  - {name: am, alertmanager: {url: "http://127.0.0.1:9093", credentials: "env:AM", labels: {team: metal}}, unknown_scans: 5}
textfile: /var/lib/node_exporter/metalimmu.prom
listen: {serve: "[::]:9464"}
"""


def test_good_ones_load(make_site: MakeSite) -> None:
    site = load(make_site({"site.yaml": HEAD + GOOD})).site
    assert site.schedules["nightly-drift"].splay == "30m"
    assert site.schedules["hourly"].verb == "scan"
    assert [a.name for a in site.alerts] == ["hook", "chat", "mail", "am"]


S = "schedules:\n  nightly: {{{}}}\n"
A = "alerts:\n  - {{name: ops, {}}}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (S.format('cron: "0 2 * *"'), 'site.yaml:4: schedules.nightly.cron: expected minute, hour, day of month, month, day of week, got "0 2 * *" (4 fields): write "0 2 * * *" for 02:00 each day'),
        (S.format('cron: "61 2 * * *"'), "Bad minute"),
        (S.format('cron: "0 0 30 2 *"'), "schedules.nightly.cron"),
        (S.format("cron: daily"), "(1 fields)"),
        (S.format('cron: "0 2 * * *", timezone: Europe/Berln'), 'site.yaml:4: schedules.nightly.timezone: expected an IANA time zone, got "Europe/Berln": write Europe/Berlin'),
        (S.format('cron: "*/10 * * * *", splay: 10m'), "schedules.nightly.splay: expected at most half of the time between two scans, got 10m where 600 s lie between two: write 300s, or less"),
        (S.format('cron: "0 2 * * *", scope: "pool="'), "schedules.nightly.scope: expected a selector"),
        (S.format('cron: "0 2 * * *", verb: reimage'), "schedules.nightly.verb: expected scan"),
        (S.format('cron: "0 2 * * *", window: {start: 22:00, end: "06:00"}'), 'schedules.nightly.window.start: expected a time of the day, quoted, got a number 1320: write "22:00" in quotes'),
        (S.format('cron: "0 2 * * *", window: {start: "22:00", end: "24:00"}'), "schedules.nightly.window.end"),
        (S.format('cron: "0 2 * * *", window: {start: "22:00", end: "23:00", days: [sunday]}'), "write sun"),
        (S.format("timezone: UTC"), "schedules.nightly.cron"),
        (A.format("news: [drift]"), "alerts[0]: expected one of webhook, slack, email, alertmanager, got none"),
        (A.format('slack: {url: "env:A"}, webhook: {url: "https://a", secret: "env:B"}'), "got webhook and slack"),
        (A.format('slack: {url: "https://hooks.slack.com/services/T/B/verysecret"}'), "alerts[0].slack.url: expected a reference to credentials, never the credentials"),
        (A.format('webhook: {url: "ftp://a", secret: "env:B"}'), "alerts[0].webhook.url: expected an http:// or https:// URL"),
        (A.format('webhook: {url: "https://a", secret: "hunter22"}'), "alerts[0].webhook.secret: expected a reference"),
        (A.format('webhook: {url: "https://a", secret: "env:B", ca: none.pem}'), 'alerts[0].webhook.ca: expected a PEM file, got "none.pem", which is not there'),
        (A.format('email: {server: "smtp.example.org", sender: a@b.c, to: [a@b.c]}'), "alerts[0].email.server: expected HOST:PORT of an SMTP server"),
        (A.format('email: {server: "smtp:25", sender: "a@b.c", to: ["a@b.c, d@e.f"]}'), "alerts[0].email.to: expected an e-mail address"),
        (A.format('email: {server: "smtp:25", sender: "a@b.c", to: []}'), "alerts[0].email.to"),
        (A.format('email: {server: "smtp:25", tls: none, credentials: "env:S", sender: a@b.c, to: [a@b.c]}'), "expected a password that does not travel in the clear"),
        (A.format('alertmanager: {url: "http://am:9093", credentials: "env:A"}'), "expected https:// where there is a password"),
        (A.format('slack: {url: "env:A"}, news: [drfit]'), "write drift"),
        (A.format('slack: {url: "env:A"}, unknown_scans: 0'), "alerts[0].unknown_scans"),
        (A.format('slack: {url: "env:A"}, scope: ","'), "alerts[0].scope: expected a selector"),
        ('alerts: [{name: a, slack: {url: "env:A"}}, {name: a, slack: {url: "env:A"}}]\n', 'alerts[1].name: expected one alert of that name, got "a" again'),
        ("listen: {serve: 9464}\n", "listen.serve: expected text"),
        ('listen: {serve: "9464"}\n', "listen.serve: expected ADDRESS:PORT"),
    ],
)  # fmt: skip
def test_wrong_ones_are_named(make_site: MakeSite, text: str, said: str) -> None:
    problems = [str(p) for p in check(make_site({"site.yaml": HEAD + text})).problems]
    assert len(problems) == 1, problems
    assert said in problems[0]
    assert "verysecret" not in problems[0]
    assert "hunter22" not in problems[0]
