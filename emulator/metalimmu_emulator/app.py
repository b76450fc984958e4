"""sushy-tools' Flask application with our drivers and with what it lacks: sessions, serial numbers, real Once, drives.

Its routes speak of one global application, so there is one per process; which BMC is asked is in `bmc.CURRENT`.
The `sushy-emulator` command is not used: it installs a SIGCHLD handler that reaps every child, also our QEMUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, cast

from metalimmu_emulator import resources
from metalimmu_emulator.bmc import CURRENT, Wsgi
from metalimmu_emulator.machine import ServerSpec
from metalimmu_emulator.sessions import IDLE_SECONDS
from metalimmu_emulator.systems import Indicators, Systems, VirtualMedia, bmc, set_boot


@cache
def build() -> Wsgi:
    """Once per process: sushy-tools' application is a module's global."""
    from sushy_tools.emulator import main

    app = main.app
    for name, driver in (("systems", Systems()), ("vmedia", VirtualMedia()), ("indicators", Indicators())):
        setattr(main.Application, name, driver)
    views = app.view_functions
    views["root_resource"] = _root(views["root_resource"])
    views["system_resource"] = _system(views["system_resource"])
    views["processor"] = _processor
    views["storage_collection"] = _storage_collection
    views["storage"] = _storage
    views["drive_resource"] = _drive
    app.register_blueprint(_extra())
    return cast("Wsgi", app)


def _server() -> ServerSpec:
    """The server as its BMC describes it: with the fault wrong-serial it is another one's."""
    current = CURRENT.get()
    wrong = current.faults.strike("wrong-serial")
    spec = current.vm.spec
    if wrong is None:
        return spec
    return replace(spec, serial=str(wrong["serial"]), uuid=str(wrong["uuid"] or spec.uuid))


def _root(original: Callable[[], Any]) -> Callable[[], Any]:
    def view() -> Any:
        return resources.root(original().get_json(), _server())

    return view


def _system(original: Callable[[str], Any]) -> Callable[[str], Any]:
    def view(identity: str) -> Any:
        import flask
        from sushy_tools import error

        machine = bmc(identity)
        if flask.request.method == "GET":
            return resources.system(original(identity).get_json(), _server(), machine.vm.state.override)
        boot = (flask.request.get_json(silent=True) or {}).get("Boot")
        if not isinstance(boot, dict) or not boot:
            raise error.BadRequest("only Boot can be changed")
        set_boot(machine, boot)
        return "", 204

    return view


def _processor(identity: str, processor_id: str) -> Any:
    _only(processor_id, [resources.CPU])
    return resources.processor(bmc(identity).vm.spec, _path(identity))


def _storage_collection(identity: str) -> Any:
    bmc(identity)
    return resources.storage_collection(_path(identity))


def _storage(identity: str, storage_id: str) -> Any:
    _only(storage_id, ["1"])
    return resources.storage(bmc(identity).vm.spec, _path(identity))


def _drive(identity: str, stg_id: str, drv_id: str) -> Any:
    spec = bmc(identity).vm.spec
    _only(stg_id, ["1"])
    _only(drv_id, [str(i) for i in range(len(spec.disks))])
    return resources.drive(spec, _path(identity), int(drv_id))


def _path(identity: str) -> str:
    return f"/redfish/v1/Systems/{identity}"


def _only(value: str, known: list[str]) -> None:
    from sushy_tools import error

    if value not in known:
        raise error.NotFound(f"no {value} here")


def _extra() -> Any:
    """Sessions and firmware inventory."""
    import flask
    from sushy_tools import error

    extra = flask.Blueprint("lab", __name__, url_prefix="/redfish/v1")

    @extra.get("/SessionService")
    def session_service() -> Any:
        return resources.session_service(IDLE_SECONDS)

    @extra.get("/SessionService/Sessions")
    def session_collection() -> Any:
        return resources.session_collection(CURRENT.get().sessions.ids())

    @extra.post("/SessionService/Sessions")
    def login() -> Any:
        sessions = CURRENT.get().sessions
        asked = flask.request.get_json(silent=True)
        asked = asked if isinstance(asked, dict) else {}
        user, password = str(asked.get("UserName", "")), str(asked.get("Password", ""))
        if not sessions.right(user, password):
            raise error.Unauthorized("wrong user name or password")
        session = sessions.open(user)
        if session is None:
            raise error.FishyError("all sessions are taken: SessionLimitExceeded", code=503)
        answer = resources.session(session.id, user)
        return answer, 201, {"X-Auth-Token": session.token, "Location": answer["@odata.id"]}

    @extra.get("/SessionService/Sessions/<number>")
    def session(number: str) -> Any:
        found = CURRENT.get().sessions.get(number)
        if found is None:
            raise error.NotFound(f"no session {number}")
        return resources.session(found.id, found.user)

    @extra.delete("/SessionService/Sessions/<number>")
    def logout(number: str) -> Any:
        if not CURRENT.get().sessions.delete(number):
            raise error.NotFound(f"no session {number}")
        return "", 204

    @extra.get("/UpdateService/FirmwareInventory")
    def firmware_collection() -> Any:
        return resources.firmware_collection(_firmware())

    @extra.get("/UpdateService/FirmwareInventory/<item>")
    def firmware_item(item: str) -> Any:
        _only(item, list(_firmware()))
        return _firmware()[item]

    return extra


def _firmware() -> dict[str, dict[str, Any]]:
    legacy = CURRENT.get().vm.state.override.mode == "Legacy"
    return resources.firmware_items("bios" if legacy else "uefi")
