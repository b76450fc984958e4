"""sushy's models over our connector.

sushy knows how requests that change something must look on real BMCs: parameters that some want and others refuse,
weak and strong ETags, settings objects. It does not know our rules of connection, and it raises on answers of real
machines; so it is given documents that were read and cleaned before, and sends through our connector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import sushy.connector
import sushy.exceptions

from metalimmu.bmc import answers, tasks, uris
from metalimmu.bmc.answers import Answer
from metalimmu.bmc.connector import Connector
from metalimmu.bmc.document import Doc
from metalimmu.bmc.retries import READS
from metalimmu.errors import BmcBroken, BmcError, BmcUnsupported

NO_RAISE = frozenset(range(300, 600))


class Bridge(sushy.connector.Connector):  # type: ignore[misc]
    """What sushy takes for its connector. `known` are answers that need not be asked for again, by URI."""

    def __init__(self, connector: Connector, known: Mapping[str, Answer]) -> None:  # the base's would open a session
        self._ours = connector
        self._known = {uris.key(uri): answer for uri, answer in known.items()}

    def _op(
        self, method: str, path: str = "", data: Any = None, headers: Mapping[str, str | None] | None = None, **_: Any
    ) -> Answer:
        if method in READS and uris.key(path) in self._known:
            return self._known[uris.key(path)]
        if method == "POST" and data is None:
            data = {}  # an action without parameters has an empty object for body (DSP0266); iLO insists
        given = {k: v for k, v in (headers or {}).items() if v}
        answer = self._ours.request(method, path, data, headers=given, accept=NO_RAISE)
        if answer.status_code >= 300:
            raise _Refusal(method, path, answer)
        return answer if method in READS else tasks.finish(self._ours, answer, what=f"{method} {uris.path(path)}")

    def patch(
        self, path: str = "", data: Any = None, headers: dict[str, str] | None = None, etag: str | None = None, **_: Any
    ) -> Any:
        """Sushy tries a weak ETag as a strong one, and then none, but only where it was given as `etag`."""
        given = dict(headers or {})
        etag = etag or given.pop("If-Match", None)
        return super().patch(path, data, given, etag)


class _Refusal(sushy.exceptions.HTTPError):  # type: ignore[misc]
    """What sushy's models look at when they decide to ask in other words, and the answer for our own error."""

    def __init__(self, method: str, path: str, answer: Answer) -> None:
        super().__init__(method, path, _plain(answer))
        self.answer = answer
        self.method = method
        self.path = uris.path(path)


def _plain(answer: Answer) -> Answer:
    """The same refusal in the one shape that sushy's HTTPError reads without falling over."""
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        found = {}
    error = Doc(found if isinstance(found, dict) else {}, answer.url).part("error")
    info = error.raw("@Message.ExtendedInfo")
    entries = [e for e in (info if isinstance(info, list) else [info]) if isinstance(e, dict)]
    body = {
        "code": error.text("code") or "Base.1.0.GeneralError",
        "message": error.text("message"),
        "@Message.ExtendedInfo": [_plain_message(Doc(e, answer.url)) for e in entries],
    }
    return Answer(answer.status_code, answer.headers, msgspec.json.encode({"error": body}), url=answer.url)


def _plain_message(entry: Doc) -> dict[str, Any]:
    texts = {k: entry.text(k) for k in ("MessageId", "Message", "Severity")}
    return texts | {k: entry.texts(k) for k in ("MessageArgs", "RelatedProperties")}


def known(document: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
    return Answer(200, headers, msgspec.json.encode(document))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """From sushy's errors to ours, and its accidents with odd answers too."""
    try:
        yield
    except BmcError:
        raise
    except _Refusal as exc:
        raise answers.error(exc.answer, exc.method, exc.path) from exc
    except (
        sushy.exceptions.MissingActionError,
        sushy.exceptions.MissingAttributeError,
        sushy.exceptions.InvalidParameterValueError,
    ) as exc:
        raise BmcUnsupported(f"{what}: {answers.clean(str(exc))}") from exc
    except (sushy.exceptions.SushyError, AttributeError, KeyError, TypeError, ValueError) as exc:
        raise BmcBroken(f"{what}: {type(exc).__name__}: {answers.clean(str(exc))}") from exc
