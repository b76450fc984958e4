"""Reading requests and answering them: sizes, time limits, JSON; nothing that says what we are."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from aiohttp import web

from metalimmu.errors import MetalimmuError
from metalimmu.wire import codec
from metalimmu.wire.codec import WireError
from metalimmu.wire.messages import Refusal

MAX_BODY = 1 << 20  # bytes
BODY_TIME = 30.0  # seconds for a whole body to arrive

T = TypeVar("T")


class Refused(Exception):
    """Carries a Refusal out of a handler."""

    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.status = status
        self.refusal = refusal


def nothing() -> web.Response:
    """What strangers get."""
    return web.Response(status=404)


def message(value: Any) -> web.Response:
    return web.Response(body=codec.encode(value), content_type="application/json")


def refuse(status: int, refusal: Refusal) -> web.Response:
    return web.Response(status=status, body=codec.encode(refusal), content_type="application/json")


def unavailable(exc: MetalimmuError) -> web.Response:
    """Our own trouble (a full disk, an image that is gone): the machine asks again."""
    return refuse(503, Refusal(exc.code, exc.message, exc.hint))


def bearer(request: web.Request) -> str | None:
    """The secret of the token, see tokens.SiteKey.token."""
    return _bearer(request)[0] or None


def deployment_of(request: web.Request) -> str:
    """The deployment that the token names; empty: none. Nothing is believed before the secret was compared."""
    return _bearer(request)[1]


def _bearer(request: web.Request) -> tuple[str, str]:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    secret, _, deployment = token.strip().partition(".") if scheme.lower() == "bearer" else ("", "", "")
    return secret, deployment[:200]


async def body(request: web.Request, kind: type[T]) -> T:
    """The message in the body. Raises Refused when it is none; aiohttp answers 413 to one that is too large."""
    try:
        async with asyncio.timeout(BODY_TIME):
            data = await request.read()
    except TimeoutError:
        raise Refused(408, Refusal("AgentRefused", f"the body did not arrive within {BODY_TIME:g} s")) from None
    try:
        return codec.decode(kind, data)
    except WireError as exc:
        raise Refused(400, Refusal("AgentRefused", f"not a {kind.__name__}: {exc}"[:500])) from exc
