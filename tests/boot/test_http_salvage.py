"""Files of the old system that come in: from a machine that has checked in and not written yet, bounded, whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import pytest
from boot_rig import until
from test_http_agents import CHECK_IN, Agent, good_report

from metalimmu.boot import salvage_api
from metalimmu.errors import SalvageFailed
from metalimmu.wire.messages import DISK_WORK, Failure, RootDisk, Salvage

CAN = dataclasses.replace(CHECK_IN, can=DISK_WORK)


class Kept:
    """What the service side is, here: a list."""

    def __init__(self) -> None:
        self.data, self.state = b"", "open"

    def write(self, data: bytes) -> None:
        self.data += data

    def finish(self) -> None:
        self.state = "finished"

    def abandon(self) -> None:
        self.state = "abandoned"


@pytest.fixture
def agent(rig, monkeypatch):
    rig.digest = rig.images.add("web", "1")
    d = rig.deploy("n1", rig.digest)
    wanted = dataclasses.replace(d.assignment, salvage=Salvage(("/var/log",), 1000))
    rig.store.update_deployment("n1", assignment=wanted)
    rig.kept = {}

    def salvage(deployment, name):
        if name == "full":
            raise SalvageFailed("no room", hint="make some")
        return rig.kept.setdefault((deployment.id, name), Kept())

    rig.salvage = salvage
    monkeypatch.setattr(salvage_api, "_HEADERS", 1 << 20)
    return Agent(rig)


def put(rig, agent, name: str, body, *, token: str | None = None, headers=None) -> tuple[int, dict]:
    status, _, answer = rig.ask("PUT", f"/v1/salvage/{name}", token=token or agent.token, body=body, headers=headers)
    return status, json.loads(answer) if answer else {}


def test_an_archive_comes_in_whole(rig, agent):
    agent.check_in(CAN)
    parts = [b"x" * 100_000, b"y" * 50_000]
    connection = rig.secure()
    try:
        connection.request("PUT", "/v1/salvage/sda2", iter(parts), {"Authorization": f"Bearer {agent.token}"})
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["stage"]) == (200, "write")
    finally:
        connection.close()
    assert (rig.kept["n1", "sda2"].data, rig.kept["n1", "sda2"].state) == (b"".join(parts), "finished")


def test_more_than_was_asked_for_is_refused_and_nothing_of_it_stays(rig, agent):
    agent.check_in(CAN)
    connection = rig.secure()
    try:
        # As the agent does: the answer may come before all was sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(
                "PUT", "/v1/salvage/sda2", iter([b"z" * 250_000] * 20), {"Authorization": f"Bearer {agent.token}"}
            )
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.loads(answer.read())["code"] == "SalvageFailed"
    finally:
        connection.close()
    assert rig.kept["n1", "sda2"].state == "abandoned"


def test_one_that_breaks_off_is_dropped(rig, agent):
    agent.check_in(CAN)
    connection = rig.secure()
    connection.putrequest("PUT", "/v1/salvage/sda2")
    connection.putheader("Authorization", f"Bearer {agent.token}")
    connection.putheader("Content-Length", "100000")
    connection.endheaders(b"x" * 10_000)
    until(lambda: rig.kept.get(("n1", "sda2")), what="the first bytes")
    connection.close()
    until(lambda: rig.kept["n1", "sda2"].state == "abandoned", what="its end")


@pytest.mark.parametrize("name", ["..", "a/b", "%2e%2e%2fx", "x" * 61, "a b", ".hidden"])
def test_names_are_names(rig, agent, name):
    agent.check_in(CAN)
    assert put(rig, agent, name.replace(" ", "%20"), b"x")[0] in (400, 404)
    assert not rig.kept


def test_who_may_not(rig, agent):
    assert put(rig, agent, "sda2", b"x", token="nobody")[0] == 404
    assert put(rig, agent, "sda2", b"x")[0] == 409, "it has not checked in"
    agent.check_in(CAN)
    assert put(rig, agent, "full", b"x") == (413, {"code": "SalvageFailed", "message": "no room", "hint": "make some"})
    agent.post("report", good_report(rig))
    assert put(rig, agent, "sda2", b"x")[0] == 409, "it has written already"
    rig.store.update_deployment("n1", ended=1.0)
    assert put(rig, agent, "sda2", b"x")[0] == 403
    assert not rig.kept


def test_asking_first_takes_nothing(rig, agent):
    agent.check_in(CAN)
    assert agent.post("salvage/sda2", CAN).stage == "write"
    assert rig.kept["n1", "sda2"].state == "abandoned"
    assert agent.post("salvage/full", CAN, dict, status=413)["message"] == "no room"


def test_a_deployment_that_asks_for_no_files_takes_none(rig, agent):
    d = rig.store.deployment("n1")
    rig.store.update_deployment("n1", assignment=dataclasses.replace(d.assignment, salvage=None))
    agent.check_in(CAN)
    assert put(rig, agent, "sda2", b"x")[0] == 409


class TestOldAgents:
    """A ramdisk of an older version ignores what it does not know: it would write a disk that is to be kept."""

    def test_one_that_cannot_do_what_is_asked_is_refused(self, rig, agent):
        refusal = agent.post("check-in", CHECK_IN, dict, status=409)
        assert "does not know salvage" in refusal["message"]
        assert "ramdisk build" in refusal["hint"]
        assert rig.store.deployment("n1").check_in is None

    def test_only_what_is_asked_counts(self, rig, agent):
        d = rig.store.deployment("n1")
        kept = dataclasses.replace(d.assignment, salvage=None, keep=(RootDisk(serial="x"),))
        rig.store.update_deployment("n1", assignment=kept)
        assert "does not know keep" in agent.post("check-in", CHECK_IN, dict, status=409)["message"]
        agent.check_in(dataclasses.replace(CHECK_IN, can=("keep",)))


@pytest.mark.parametrize(
    ("phase", "begun"),
    [("identify", ""), ("salvage", ""), ("erase", "erase"), ("write", "write"), ("erase-after", "write")],
)
def test_a_machine_that_restarts_is_told_how_far_it_came(rig, agent, phase, begun):
    from metalimmu.wire.messages import Progress

    agent.check_in(CAN)
    agent.post("progress", Progress(phase, 1, 2, boot_id="boot-1"))
    until(lambda: (p := rig.store.deployment("n1").progress) and p.phase == phase)
    assert agent.check_in(dataclasses.replace(CAN, boot_id="boot-2")).begun == begun


def test_a_failure_says_where_it_was(rig, agent):
    agent.check_in(CAN)
    agent.post("failure", Failure("BurnInFailed", "slow", boot_id="boot-1", phase="burn-in"))
    assert rig.store.deployment("n1").failure.phase == "burn-in"
