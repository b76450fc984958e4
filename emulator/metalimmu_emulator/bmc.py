"""One emulated BMC: a machine, its sessions and its faults. The WSGI application in front of sushy-tools' own.

Every request is written to requests.jsonl of the server's folder (time, method, path, status, body of writes,
how it logged in), so that a test can hold what was sent against what was planned.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from metalimmu.errors import LabError
from metalimmu_emulator.faults import Faults
from metalimmu_emulator.qemu import Vm
from metalimmu_emulator.sessions import Sessions

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Wsgi = Callable[[Environ, StartResponse], Iterable[bytes]]

CURRENT: ContextVar[Bmc] = ContextVar("bmc")  # whose request this thread answers
OPEN_PATHS = ("", "/redfish", "/redfish/v1")  # readable without authentication (DSP0266 13.2)
SESSIONS = "/redfish/v1/SessionService/Sessions"
MAX_BODY = 1 << 20


class Bmc:
    def __init__(self, vm: Vm, sessions: Sessions, faults: Faults, app: Wsgi) -> None:
        self.vm = vm
        self.sessions = sessions
        self.faults = faults
        self.cut: Callable[[], None] = lambda: None  # ends all connections; the listener's
        self._app = app
        self._log = threading.Lock()
        self._reboot = threading.Lock()
        reboot = faults.last_reboot()
        self._rebooted = reboot["id"] if reboot else ""

    # faults that are below HTTP ------------------------------------------------------------------------------

    def away(self) -> bool:
        """Rebooting: connections are cut."""
        return "reboot" in self.faults.active()

    def tick(self) -> None:
        """Called often. When a reboot has begun, what a BMC keeps in memory is forgotten."""
        reboot = self.faults.last_reboot()
        with self._reboot:
            if reboot is None or reboot["id"] == self._rebooted:
                return
            self._rebooted = reboot["id"]
        self.sessions.clear()
        if reboot["lose_media"]:
            self.vm.eject()
        self.cut()

    def gate(self, method: str, path: str) -> bool:
        """Before a request is answered. False: cut the connection without an answer."""
        self.tick()
        if self.away():
            return False
        if slow := self.faults.strike("slow", method=method, path=path):
            time.sleep(float(slow["delay"]))
        silent = self.faults.strike("silent", method=method, path=path)
        if silent is None:
            return True
        while self.faults.active().get("silent", {}).get("id") == silent["id"]:
            time.sleep(0.1)
        return False

    # WSGI ----------------------------------------------------------------------------------------------------

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(min(int(environ.get("CONTENT_LENGTH") or 0), MAX_BODY))
        environ["wsgi.input"] = io.BytesIO(body)
        how = self._login(environ)

        def record(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            self._record(environ, body, int(status.split(maxsplit=1)[0]), how or "refused")
            return start_response(status, headers, *rest)

        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        if error := self.faults.strike("error", method=method, path=path):
            return _answer(record, int(error["status"]), "the BMC has a fault")
        if not how:
            return _answer(record, 401, "a session or Basic authentication is needed")
        if body and not isinstance(_json(body), dict):
            return _answer(record, 400, "the body is no JSON object")  # sushy-tools would fail with 500
        token = CURRENT.set(self)
        try:
            return self._app(environ, record)
        finally:
            CURRENT.reset(token)

    def _login(self, environ: Environ) -> str:
        """How the request logged in, or "" when it may not pass."""
        path, method = environ.get("PATH_INFO", "").rstrip("/"), environ["REQUEST_METHOD"]
        if (path in OPEN_PATHS and method in ("GET", "HEAD")) or (path == SESSIONS and method == "POST"):
            return "none"
        if token := environ.get("HTTP_X_AUTH_TOKEN"):
            return "session" if self.sessions.by_token(token) else ""
        if "HTTP_AUTHORIZATION" not in environ:
            return ""
        from sushy_tools.emulator import auth_basic
        from sushy_tools.error import FishyError

        try:
            user, password = auth_basic.parse_token(auth_basic.parse_header(environ))
        except FishyError:
            return ""
        return "basic" if self.sessions.right(user, password.decode(errors="replace")) else ""

    def _record(self, environ: Environ, body: bytes, status: int, how: str) -> None:
        line = {
            "at": round(time.time(), 3),
            "method": environ["REQUEST_METHOD"],
            "path": environ.get("PATH_INFO", ""),
            "status": status,
            "login": how,
            "body": _without_password(body),
        }
        with self._log, (self.vm.folder / "requests.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def requests(folder: Path) -> list[dict[str, Any]]:
    """All requests that a server's BMC has answered, oldest first. Raises LabError."""
    try:
        return [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    except FileNotFoundError:
        return []
    except ValueError as exc:
        raise LabError(f"{folder / 'requests.jsonl'}: {exc}") from exc


def _json(body: bytes) -> Any:
    """None when it is not JSON."""
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None


def _without_password(body: bytes) -> Any:
    value = _json(body)
    return {k: "***" if k == "Password" else v for k, v in value.items()} if isinstance(value, dict) else value


def _answer(start_response: StartResponse, status: int, message: str) -> list[bytes]:
    body = json.dumps({"error": {"code": "Base.1.0.GeneralError", "message": message}}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    if status == 401:
        headers.append(("WWW-Authenticate", 'Basic realm="lab"'))
    start_response(f"{status} Lab", headers)
    return [body]
