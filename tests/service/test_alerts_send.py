"""Each channel, against a receiver on this machine: what arrives, what is verified, and what is never sent."""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import hmac
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from alert_sinks import Sink, alert, http_sink, own_certificate

from metalimmu.errors import AlertError
from metalimmu.service.alerts import render
from metalimmu.service.alerts.notice import Notice, Told
from metalimmu.service.alerts.send import send

HOSTILE = 'x`y <!channel> <https://evil|ok> @here *b* & "q" \x1b[31m\r\nBcc: all@example.org'


def notice(kind: str = "drift", actual: str = "Enabled", hosts: int = 2, causes: int = 1, **fields: Any) -> Notice:
    told = [
        Told(
            cause=f"c{i}",
            kind="drift",
            severity="warning",
            setting=f"bios.S{i}",
            expected="Disabled",
            actual=actual,
            since=1000.0,
            revision=1,
            hosts=tuple(f"n{h}" for h in range(hosts)),
            hosts_total=hosts,
            new_hosts_total=hosts,
        )
        for i in range(causes)
    ]
    return Notice(id="0123456789abcdef", site="ams1", kind=kind, at=2000.0, causes=tuple(told), **fields)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with http_sink() as sink:
        yield sink


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    key = tmp_path / "key"
    key.write_text("whsec_" + base64.b64encode(b"k" * 24).decode() + "\n")
    key.chmod(0o600)
    return tmp_path


def webhook(url: str, **fields: object) -> dict[str, Any]:
    return {"slack": None, "webhook": {"url": url, "secret": "file:key", **fields}}


def test_a_webhook_is_signed_so_that_a_receiver_can_verify_it(sink: Sink, folder: Path) -> None:
    said = notice(actual=HOSTILE)
    send(alert(**webhook(sink.url)), said, folder, now=1700000000.9)
    (request,) = sink.requests
    assert request.headers["webhook-id"] == request.headers["idempotency-key"] == said.id
    assert request.headers["webhook-timestamp"] == "1700000000"
    # As https://www.standardwebhooks.com tells a receiver to do it.
    signed = f"{said.id}.1700000000.".encode() + request.body
    digest = base64.b64encode(hmac.new(b"k" * 24, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{digest}"
    body = request.json()
    assert (body["version"], body["kind"], body["site"]) == (1, "drift", "ams1")
    assert body["causes"][0]["actual"] == HOSTILE  # JSON carries any text
    assert body["causes"][0]["hosts"] == ["n0", "n1"]


def test_a_webhooks_certificate_is_verified(folder: Path, tmp_path: Path) -> None:
    context, ca = own_certificate(tmp_path)
    with http_sink(context) as sink:
        with pytest.raises(AlertError, match="certificate verify failed"):
            send(alert(**webhook(sink.url)), notice(), folder)
        assert sink.requests == []
        send(alert(**webhook(sink.url, ca=ca.name)), notice(), folder)
        assert len(sink.requests) == 1


def test_a_certificate_of_another_is_refused(folder: Path, tmp_path: Path) -> None:
    context, ca = own_certificate(tmp_path, address="127.0.0.2")
    with http_sink(context) as sink:
        with pytest.raises(AlertError, match="certificate verify failed"):
            send(alert(**webhook(sink.url, ca=ca.name)), notice(), folder)
        assert sink.requests == []


@pytest.mark.parametrize("status", [301, 307, 400, 404, 500, 503])
def test_anything_but_success_is_a_failure(sink: Sink, folder: Path, status: int) -> None:
    sink.statuses = [status]
    sink.headers = {"Location": sink.url}
    with pytest.raises(AlertError, match=f"answered {status}"):
        send(alert(**webhook(sink.url)), notice(), folder)
    assert len(sink.requests) == 1  # a redirect is not followed


def test_slack_gets_text_that_is_only_text(sink: Sink, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK", sink.url)
    send(alert(), notice(actual=HOSTILE), folder)
    (request,) = sink.requests
    text = request.json()["text"]
    assert "<!channel>" not in text
    assert "<https" not in text
    assert "@here" not in text
    (line,) = [part for part in text.splitlines() if part.startswith("actual: ")]
    assert line.startswith("actual: `x'y &lt;!channel&gt; &lt;https://evil|ok&gt;")
    assert line.count("`") == 2
    assert "\x1b" not in text
    assert "webhook-signature" not in request.headers


def test_slacks_address_never_shows_in_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK", "http://127.0.0.1:1/services/T000/B000/verysecret")
    with pytest.raises(AlertError) as caught:
        send(alert(), notice(), folder)
    assert "verysecret" not in caught.value.message + caught.value.hint
    monkeypatch.setenv("SLACK", "verysecret is no URL")
    with pytest.raises(AlertError, match="no URL") as caught:
        send(alert(), notice(), folder)
    assert "verysecret" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(("ref", "said"), [("env:NOT_SET", "NOT_SET is not set"), ("file:absent", "cannot be read"), ("file:open", "open to others")])  # fmt: skip
def test_a_secret_that_cannot_be_read(folder: Path, sink: Sink, ref: str, said: str) -> None:
    (folder / "open").write_text("x")
    (folder / "open").chmod(0o644)
    with pytest.raises(AlertError, match=said):
        send(alert(**webhook(sink.url, secret=ref)), notice(), folder)
    assert sink.requests == []


def test_alertmanager_knows_an_alert_by_labels_that_stay(
    sink: Sink, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AM_USERNAME", "metalimmu")
    monkeypatch.setenv("AM_PASSWORD", "s3cret")
    to = alert(
        slack=None,
        alertmanager={"url": sink.url + "/", "credentials": "env:AM", "hold": "2d", "labels": {"team": "metal"}},
    )
    send(to, notice(hosts=2), folder, now=5000.5)
    send(to, notice("fixed", hosts=1), folder, now=9000.0)
    firing, over = sink.requests
    assert firing.path == "/hook/api/v2/alerts"
    assert base64.b64decode(firing.headers["authorization"].removeprefix("Basic ")) == b"metalimmu:s3cret"
    (a,), (b,) = firing.json(), over.json()
    assert a["labels"] == b["labels"]
    assert a["labels"] == {
        "alertname": "MetalimmuDrift", "site": "ams1", "severity": "warning", "cause": "c0", "setting": "bios.S0", "team": "metal",
    }  # fmt: skip
    assert a["startsAt"] == b["startsAt"] == "1970-01-01T00:16:40.000Z"
    assert a["endsAt"] == "1970-01-03T01:23:20.500Z"
    assert b["endsAt"] == "1970-01-01T02:30:00.000Z"
    assert all(isinstance(v, str) for v in (a["labels"] | a["annotations"]).values())


# e-mail


class Inbox:
    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.secure: list[bool] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.refuse: str | None = None

    async def handle_RCPT(  # noqa: N802
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if address == self.refuse:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append((envelope, email.message_from_bytes(envelope.content, policy=email.policy.default)))
        self.secure.append(session.ssl is not None)
        return "250 OK"

    def login(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=True)


class Mailer(Controller):
    def __init__(self, inbox: Inbox, **options: Any) -> None:
        self.options = options
        self.inbox = inbox
        super().__init__(inbox, hostname="127.0.0.1", port=0)

    def factory(self) -> SMTP:
        return SMTP(self.handler, ident="sink", **self.options)

    def _trigger_server(self) -> None:  # the port is known only now
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[tuple[Inbox, Mailer]]:
    inbox = Inbox()
    context, _ = own_certificate(tmp_path)
    mailer = Mailer(inbox, tls_context=context, require_starttls=True, authenticator=inbox.login, auth_require_tls=True)
    mailer.start()
    yield inbox, mailer
    mailer.stop()


def mail(port: int, **fields: object) -> dict[str, Any]:
    document = {"server": f"127.0.0.1:{port}", "sender": "metal@example.org", "to": ["ops@example.org"], "ca": "cert.pem"}  # fmt: skip
    return {"slack": None, "email": document | fields}


def test_mail_travels_by_starttls_and_has_one_id(
    inbox: tuple[Inbox, Mailer], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_USERNAME", "u")
    monkeypatch.setenv("SMTP_PASSWORD", "p4ss")
    box, mailer = inbox
    to = alert(**mail(mailer.port, credentials="env:SMTP", to=["ops@example.org", "dba@example.org"]))
    send(to, notice(actual=HOSTILE), folder)
    send(to, notice(actual=HOSTILE), folder)
    (envelope, first), (_, second) = box.mails
    assert box.secure == [True, True]
    assert box.logins[0] == (b"u", b"p4ss")
    assert envelope.mail_from == "metal@example.org"
    assert envelope.rcpt_tos == ["ops@example.org", "dba@example.org"]
    assert first["Message-ID"] == second["Message-ID"] == "<0123456789abcdef@ams1.metalimmu.invalid>"
    assert first["Subject"] == "[ams1] warning: bios.S0 drifted on 2 hosts"
    assert first["Auto-Submitted"] == "auto-generated"
    assert first["Bcc"] is None
    assert first.get_content_type() == "text/plain"
    text = first.get_content()
    assert "\x1b" not in text
    (line,) = [part for part in text.splitlines() if "actual" in part]
    assert "Bcc: all@example.org" in line  # in its place, and not a line of its own


def test_mail_without_verified_tls_is_not_sent(inbox: tuple[Inbox, Mailer], folder: Path) -> None:
    box, mailer = inbox
    with pytest.raises(AlertError, match="certificate verify failed"):
        send(alert(**mail(mailer.port, ca=None)), notice(), folder)
    assert box.mails == []


def test_a_server_without_starttls_gets_nothing(folder: Path, tmp_path: Path) -> None:
    own_certificate(tmp_path)
    box = Inbox()
    mailer = Mailer(box)
    mailer.start()
    try:
        with pytest.raises(AlertError, match="STARTTLS"):
            send(alert(**mail(mailer.port)), notice(), folder)
        assert box.mails == []
        send(
            alert(**mail(mailer.port, tls="none")), notice(), folder
        )  # a server on this machine: said in so many words
        assert len(box.mails) == 1
    finally:
        mailer.stop()


def test_implicit_tls(folder: Path, tmp_path: Path) -> None:
    context, _ = own_certificate(tmp_path)
    box = Inbox()

    class Smtps(Mailer):
        def _create_server(self) -> Any:
            self.ssl_context = context
            return super()._create_server()

        def _trigger_server(self) -> None:
            self.port = self.server.sockets[0].getsockname()[1]
            import socket

            with socket.create_connection((self.hostname, self.port), 5) as raw, client().wrap_socket(raw, server_hostname="127.0.0.1") as tls:  # fmt: skip
                assert tls.recv(100).startswith(b"220")

    def client() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))

    mailer = Smtps(box)
    mailer.start()
    try:
        send(alert(**mail(mailer.port, tls="implicit")), notice(), folder)
    finally:
        mailer.stop()
    assert len(box.mails) == 1


def test_a_recipient_that_is_refused_is_named(inbox: tuple[Inbox, Mailer], folder: Path) -> None:
    box, mailer = inbox
    box.refuse = "gone@example.org"
    with pytest.raises(AlertError, match=r"gone@example\.org"):
        send(alert(**mail(mailer.port, to=["ops@example.org", "gone@example.org"])), notice(), folder)


# words


def test_many_causes_and_many_hosts_stay_readable() -> None:
    said = notice(hosts=500, causes=300)
    text = render.plain(said)
    assert "300 new causes of drift" in text
    assert "and 280 more: `metalimmu drift` shows them all" in text
    assert "n0, n1, " in text
    assert "and 480 more" in text
    assert len(text) < 20_000
    assert len(render.slack(said)["text"]) < 20_000


@pytest.mark.parametrize(
    ("said", "headline"),
    [
        (notice("fixed"), "[ams1] drift over: bios.S0 on 2 hosts"),
        (notice("test", causes=0), "[ams1] a test of this alert: nothing has happened"),
        (notice("fixed", causes=3), "[ams1] 3 causes are over"),
        (
            Notice(id="i", site="ams1", kind="unknown", at=1.0, causes=(Told(cause="c", kind="unknown", severity="warning", reason="BmcUnreachable", since=1.0, revision=1, hosts_total=1),)),
            "[ams1] 1 host cannot be read: unreachable",
        ),
    ],
)  # fmt: skip
def test_headlines(said: Notice, headline: str) -> None:
    assert render.headline(said) == headline
