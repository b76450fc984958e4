"""One notice to one receiver, now: HTTP or SMTP, TLS verified, every wait limited. Raises AlertError."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import smtplib
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from metalimmu.bmc import credentials
from metalimmu.bmc.answers import clean
from metalimmu.desired.alerts import Alert, Alertmanager, Email
from metalimmu.desired.units import seconds
from metalimmu.errors import AlertError, MetalimmuError
from metalimmu.log import redact
from metalimmu.service.alerts import render
from metalimmu.service.alerts.notice import Notice

TOTAL = 20.0  # seconds for one delivery by HTTP
SMTP = 15.0  # seconds for each answer of a mail server

_AGENT = "metalimmu"
_LONGEST_ANSWER = 2000


def send(alert: Alert, notice: Notice, folder: Path, *, now: float | None = None) -> None:
    """`folder` is the site's, for relative paths. Raises AlertError, whose message holds no secret."""
    at = time.time() if now is None else now
    try:
        if alert.email:
            _mail(alert.email, notice, folder)
        else:
            url, body, headers, ca = _request(alert, notice, folder, at)
            asyncio.run(_post(url, body, headers, _context(ca, folder)))
    except MetalimmuError as exc:
        raise AlertError(redact(exc.message), hint=redact(exc.hint)) from exc
    except (OSError, ValueError, smtplib.SMTPException) as exc:
        raise AlertError(clean(redact(f"{type(exc).__name__}: {exc}"), 300)) from exc


def _request(alert: Alert, notice: Notice, folder: Path, at: float) -> tuple[str, bytes, dict[str, str], str | None]:
    if alert.webhook:
        body = msgspec.json.encode(notice)
        key = credentials.secret(alert.webhook.secret, folder=folder)
        return alert.webhook.url, body, signature(notice.id, int(at), body, key), alert.webhook.ca
    if alert.slack:
        url = credentials.secret(alert.slack.url, folder=folder)
        if urlsplit(url).scheme not in ("https", "http"):
            raise AlertError(
                f"alert {alert.name}: what slack.url refers to is no URL", hint="store the whole URL there"
            )
        return url, msgspec.json.encode(render.slack(notice)), {}, alert.slack.ca
    if alert.alertmanager:
        return _alertmanager(alert.alertmanager, notice, folder, at)
    raise AlertError(f"alert {alert.name} has no receiver", hint="`metalimmu check`")


def _alertmanager(
    to: Alertmanager, notice: Notice, folder: Path, at: float
) -> tuple[str, bytes, dict[str, str], str | None]:
    alerts = render.alertmanager(notice, labels=to.labels, hold=seconds(to.hold), now=at)
    headers = {}
    if to.credentials:
        login = credentials.read(to.credentials, folder=folder)
        basic = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
        headers["Authorization"] = f"Basic {basic}"
    return f"{to.url.rstrip('/')}/api/v2/alerts", msgspec.json.encode(alerts), headers, to.ca


def signature(notice: str, timestamp: int, body: bytes, secret: str) -> dict[str, str]:
    """Headers by https://www.standardwebhooks.com: HMAC-SHA256 over id, time and body, so that a receiver can refuse what is
    forged or old, and drop what it has by its id.
    """
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error as exc:
            raise AlertError("the webhook's secret begins with whsec_ and goes on with what is no base64") from exc
    digest = hmac.new(key, f"{notice}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": notice,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        "Idempotency-Key": notice,
    }


async def _post(url: str, body: bytes, headers: Mapping[str, str], context: ssl.SSLContext) -> None:
    """A redirect is a failure: the message, with its signature, is for the address that somebody wrote down."""
    import aiohttp

    sent = {"Content-Type": "application/json", "User-Agent": _AGENT, **headers}
    timeout = aiohttp.ClientTimeout(total=TOTAL)
    connector = aiohttp.TCPConnector(ssl=context)
    try:
        # trust_env: a controller in a management network reaches the world through HTTPS_PROXY.
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=True) as session,
            session.post(url, data=body, headers=sent, allow_redirects=False) as answer,
        ):
            if answer.status // 100 != 2:
                text = clean((await answer.content.read(_LONGEST_ANSWER)).decode(errors="replace"), 200)
                raise AlertError(f"{urlsplit(url).hostname} answered {answer.status}: {text}")
    except TimeoutError as exc:
        raise AlertError(f"{urlsplit(url).hostname} did not answer within {TOTAL:g} s") from exc
    except aiohttp.ClientError as exc:
        raise AlertError(clean(f"{urlsplit(url).hostname}: {exc}", 300)) from exc


def _context(ca: str | None, folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / ca) if ca else None)


def _mail(to: Email, notice: Notice, folder: Path) -> None:
    """A server that does not offer STARTTLS gets nothing: it may be somebody in between who took the offer out."""
    server = urlsplit(f"//{to.server}")
    host, port = server.hostname or "", server.port or 587
    message = render.email(notice, sender=to.sender, to=to.to)
    login = credentials.read(to.credentials, folder=folder) if to.credentials else None
    with _connected(to, host, port, folder) as smtp:
        if login:
            smtp.login(login.username, login.password)
        refused: Mapping[str, Any] = smtp.send_message(message, from_addr=to.sender, to_addrs=to.to)
        if refused:  # the others have it, and a repetition has the same Message-ID
            raise AlertError(f"{host} refused {', '.join(sorted(refused))}")


def _connected(to: Email, host: str, port: int, folder: Path) -> smtplib.SMTP:
    if to.tls == "implicit":
        return smtplib.SMTP_SSL(host, port, timeout=SMTP, context=_context(to.ca, folder))
    smtp = smtplib.SMTP(host, port, timeout=SMTP)
    try:
        if to.tls == "starttls":
            smtp.starttls(context=_context(to.ca, folder))
    except BaseException:
        smtp.close()
        raise
    return smtp
