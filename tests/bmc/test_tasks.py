"""Waiting for a BMC's background work, in all the ways in which BMCs report it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redfish_server as rs
from redfish_server import RedfishServer

from metalimmu.bmc import tasks
from metalimmu.bmc.redfish import RedfishBmc
from metalimmu.errors import BmcBusy, BmcRefused
from metalimmu.observed.types import PowerAction

Open = Callable[..., RedfishBmc]
MONITOR = "/redfish/v1/TaskService/TaskMonitors/7"


def task(state: str, *messages: str) -> dict[str, Any]:
    return {
        "@odata.id": "/redfish/v1/TaskService/Tasks/7",
        "@odata.type": "#Task.v1_4_0.Task",
        "Id": "7",
        "TaskState": state,
        "Messages": [{"Message": m} for m in messages],
    }


def reset(server: RedfishServer, connect_to: Open, *, headers: dict[str, str], document: Any = None) -> RedfishBmc:
    server.fault("POST", "Reset", rs.status(202, headers, document if document is not None else {}))
    bmc = connect_to(server)
    bmc.set_power(PowerAction.force_restart)
    return bmc


def monitor(server: RedfishServer, *answers: tuple[int, dict[str, str], Any], path: str = MONITOR) -> None:
    for code, headers, document in answers:
        server.fault("GET", path, rs.status(code, headers, document), times=1)


def test_a_monitor_is_asked_until_it_is_done(server: RedfishServer, connect_to: Open, clock: Any) -> None:
    """Numeric Retry-After arrives as text: sushy's own wait raises TypeError at it."""
    monitor(server, (202, {"Retry-After": "3"}, task("New")), (202, {}, {}), (200, {}, {"any": "result"}))
    reset(server, connect_to, headers={"Location": MONITOR, "Retry-After": "2"})
    assert clock.slept == [2.0, 3.0, 1.0]
    assert server.requests.count(("GET", MONITOR)) == 3


@pytest.mark.parametrize("state", sorted(tasks.RUNNING))
def test_a_task_in_place_of_a_monitor(server: RedfishServer, connect_to: Open, state: str) -> None:
    """Lenovo: 200 with a Task that still runs. `New` is not a failure."""
    monitor(server, (200, {}, task(state)), (200, {}, task("Completed")))
    reset(server, connect_to, headers={"Location": MONITOR})
    assert server.requests.count(("GET", MONITOR)) == 2


def test_the_task_in_the_body_where_location_is_missing(server: RedfishServer, connect_to: Open) -> None:
    monitor(server, (200, {}, task("Completed")), path="/redfish/v1/TaskService/Tasks/7")
    reset(server, connect_to, headers={}, document=task("Running"))
    assert ("GET", "/redfish/v1/TaskService/Tasks/7") in server.requests


def test_202_without_any_task_is_taken_as_accepted(server: RedfishServer, connect_to: Open, clock: Any) -> None:
    reset(server, connect_to, headers={}, document=b"")
    assert clock.slept == []


def test_an_absolute_location_on_another_address(server: RedfishServer, connect_to: Open) -> None:
    monitor(server, (204, {}, None))
    reset(server, connect_to, headers={"Location": f"https://10.9.9.9{MONITOR}"})
    assert ("GET", MONITOR) in server.requests


def test_a_task_that_was_forgotten_is_over(server: RedfishServer, connect_to: Open) -> None:
    monitor(server, (202, {}, {}), (404, {}, None))
    reset(server, connect_to, headers={"Location": MONITOR})
    assert server.requests.count(("GET", MONITOR)) == 2


@pytest.mark.parametrize("state", sorted(tasks.FAILED))
def test_a_failed_task_says_why(server: RedfishServer, connect_to: Open, state: str) -> None:
    monitor(server, (200, {}, task(state, "the image is too large")))
    with pytest.raises(BmcRefused, match=f"ended as {state}: the image is too large"):
        reset(server, connect_to, headers={"Location": MONITOR})


def test_a_task_that_never_ends(server: RedfishServer, connect_to: Open, clock: Any) -> None:
    server.fault("GET", MONITOR, rs.status(202, {"Retry-After": "60"}, task("Running")))
    with pytest.raises(BmcBusy, match="not done after 600 s") as caught:
        reset(server, connect_to, headers={"Location": MONITOR})
    assert caught.value.hint
    assert sum(clock.slept) <= 600


def test_a_bmc_that_is_busy_while_it_works(server: RedfishServer, connect_to: Open) -> None:
    monitor(server, (503, {}, None), (200, {}, task("Completed")))
    reset(server, connect_to, headers={"Location": MONITOR})
    assert server.requests.count(("GET", MONITOR)) == 2
