"""Whole reimages with hooks and health checks, on fakes: in their order, and back again when the run does not go on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from drive import finish, reimage
from hook_rig import Prometheus, Service, script, service, until
from rack import Rack

from metalimmu.errors import GuardRefused, HookFailed, TemplateError, Unhealthy
from metalimmu.service.hosts import release, rows, show
from metalimmu.service.planning import plan_host, rollback_image
from metalimmu.service.proof import prove
from metalimmu.service.runs import cancel, submit
from metalimmu.service.site import OpenSite
from metalimmu.store.records import HostRecord, RunRecord, RunStatus

SHORT = {"power": "3s", "media": "3s", "check_in": "6s", "stall": "4s", "phone_home": "4s", "bmc": "4s"}
QUICK = {"every": "100ms", "timeout": "2s", "limit": "3s"}

# Notes which hook ran in which phase, what it was told, and what the machine was doing.
NOTE = 'printf "%s %s %s\\n" "$METALIMMU_PHASE" "$METALIMMU_HOOK" "$1" >> notes; cat > "said-$METALIMMU_PHASE-$METALIMMU_HOOK"'


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    rack = Rack(tmp_path, limits=SHORT)
    script(rack.site, NOTE, "note")
    return rack


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def edit(rack: Rack, **fields: Any) -> None:
    """Of the role that the hosts have."""
    path = rack.site / "roles/web.yaml"
    rack.write("roles/web.yaml", {**yaml.safe_load(path.read_text()), **fields})


def power_up(rack: Rack, stack: ExitStack, **faults: Any) -> Any:
    return rack.power_up(stack, pace=0.2, faults={"node-1": faults})["node-1"]


def notes(rack: Rack) -> list[str]:
    path = rack.site / "notes"
    return [line.strip() for line in path.read_text().splitlines()] if path.exists() else []


def host(rack: Rack) -> HostRecord:
    site = OpenSite(rack.site)
    try:
        return site.store.host("node-1")
    finally:
        site.close()


def evidence(rack: Rack, run: RunRecord) -> dict[str, Any]:
    return {s.name: s.evidence for s in OpenSite(rack.site).store.steps(run.id)}


def hooks(*before: Any, after: tuple[Any, ...] = ()) -> dict[str, Any]:
    return {"before": list(before), "after": list(after)}


def noted(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": "./note {{ name }}", "undo": {"command": "./note undo"}, **more}


def test_hooks_and_health_in_their_order(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    web = stack.enter_context(service())
    edit(
        rack,
        hooks=hooks(noted("lb"), noted("dns"), after=("./note",)),
        health={"http": web.url + "/healthz/{{ name }}", "for": "400ms", **QUICK},
    )
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error
    assert notes(rack) == ["before lb node-1", "before dns node-1", "after note"]
    names = [s.name for s in OpenSite(rack.site).store.steps(run.id)]
    assert names[:3] == ["preflight", "drain", "media"]
    assert names[-3:] == ["prove", "health", "undrain"]
    found = evidence(rack, run)
    assert [h["hook"] for h in found["drain"]["hooks"]] == ["lb", "dns"]
    (check,) = found["health"]["checks"]
    assert check["good"]
    assert check["good_for"] >= 0.4
    assert len(web.asked) >= 4
    record = host(rack)
    assert (record.state, record.proof) == ("active", "proven")
    assert record.health is not None
    assert (record.health.word, record.health.run) == ("healthy", run.id)


def test_what_a_hook_is_told(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    edit(rack, hooks=hooks("./note"), labels={"tier": "front"})
    assert reimage(rack.site).status is RunStatus.succeeded
    run = reimage(rack.site, image="web@2")
    assert run.status is RunStatus.succeeded, run.error
    told = json.loads((rack.site / "said-before-note").read_text())
    assert told["image"]["name"] == "web@2"
    assert told["image"]["digest"].startswith("sha256:")
    assert told["previous_image"]["name"] == "web@1"
    assert told["labels"]["tier"] == "front"
    assert (told["host"], told["verb"], told["run"], told["serial"]) == ("node-1", "reimage", run.id, "S0001")
    assert told["hook_key"] == f"{run.id}/before/1-note"
    assert told["format"] == 1


def test_the_plan_lists_them_and_only_where_there_are_any(rack: Rack) -> None:
    site = OpenSite(rack.site)
    without = plan_host(site, "node-1")
    assert not {"drain", "health", "undrain"} & {s.name for s in without.steps}
    assert not any(s.calls for s in without.steps)
    undo = {"http": "https://lb/{{ name }}", "when": "untouched"}
    edit(
        rack,
        hooks=hooks(noted("lb", limit="20m", undo=undo)),
        health=[{"tcp": "{{ address }}:22", "for": "10m"}, {"command": "./note x"}],
    )
    plan = plan_host(OpenSite(rack.site), "node-1")
    assert plan.step("drain").calls == (
        "lb: ./note node-1, at most 20m; undo (while the machine is untouched): POST https://lb/node-1",
    )
    assert plan.step("health").calls == (
        "tcp-22: connect to node-1:22, for 10m without a break, within 25 min",
        "note: ./note x, once, within 15 min",
    )
    assert plan.step("drain").limit == 20 * 60 + 60
    assert plan.step("health").seconds == 630
    assert "undrain" not in [s.name for s in plan.steps]


def typed(*argv: str) -> str:
    """In a process of its own: the engine keeps the standard error that it was first launched with."""
    done = subprocess.run(
        [sys.executable, "-m", "metalimmu", *argv], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_on_the_command_line(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    web = stack.enter_context(service())
    edit(rack, hooks=hooks(noted("lb"), after=("./note",)), health={"http": web.url, "for": "300ms", **QUICK})
    said = typed("plan", "--site", str(rack.site), "node-1")
    assert "    drain      hooks before the reimage           about 60 s, at most 6 min\n" in said
    assert "               lb: ./note node-1, at most 5m; undo: ./note undo\n" in said
    assert f"               127.0.0.1: GET {web.url}, for 300ms without a break, within 3s\n" in said
    run = reimage(rack.site)
    said = typed("run", "show", "--site", str(rack.site), run.id)
    assert "lb done" in said
    assert "127.0.0.1 good for 0 s" in said
    assert "healthy" in typed("host", "list", "--site", str(rack.site), "-o", "wide")


def test_a_template_that_does_not_render_is_found_before_a_machine_is_touched(rack: Rack) -> None:
    edit(rack, hooks=hooks({"http": {"url": "https://lb/", "body": "{{ vars.gone }}"}}))
    with pytest.raises(TemplateError, match=r"vars\.gone"):
        plan_host(OpenSite(rack.site), "node-1")


def test_pool_around_role(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    rack.write("pools/p.yaml", {"hooks": hooks(noted("pool"), after=(noted("pool-after"),))})
    edit(rack, hooks=hooks(noted("role"), after=(noted("role-after"),)))
    (one,) = yaml.safe_load((rack.site / "hosts/rack.yaml").read_text())
    rack.write("hosts/rack.yaml", [{**one, "pool": "p"}])
    assert reimage(rack.site).status is RunStatus.succeeded
    assert [n.split()[1] for n in notes(rack)] == ["pool", "role", "role-after", "pool-after"]


# hooks that fail


def test_a_before_hook_that_fails_stops_before_anything_is_written(rack: Rack, stack: ExitStack) -> None:
    machine = power_up(rack, stack)
    assert reimage(rack.site).status is RunStatus.succeeded
    before = machine.machine()
    script(rack.site, "echo 'no such backend' >&2; exit 3", "drain")
    edit(rack, hooks=hooks(noted("dns"), {"command": "./drain", "undo": "./note drain"}, noted("never")))
    run = reimage(rack.site, image="web@2")
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert (run.error.code, run.error.message) == (
        "HookFailed",
        "hook drain (before): exit status 3: no such backend",
    )
    assert notes(rack) == ["before dns node-1", "undo drain drain", "undo dns undo"]  # the newest first
    after = machine.machine()
    assert (after.generation, after.media, after.boot) == (before.generation, before.media, before.boot)
    record = host(rack)
    assert (record.state, record.proof, record.image, record.quarantine) == ("active", "proven", "web@1", None)
    told = json.loads((rack.site / "said-undo-dns").read_text())
    assert (told["machine"], told["outcome"], told["undoes"]) == ("untouched", "failed", "before")
    (drained,) = [h for h in evidence(rack, run)["drain"]["hooks"] if h["hook"] == "drain"]
    assert drained["output"] == "no such backend\n"


def test_what_is_missing_is_found_before_any_hook_runs(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    script(rack.site, "exit 0", "gone")
    edit(rack, hooks=hooks(noted("dns"), "./gone"), health={"command": "./note", "secrets": {"TOKEN": "env:NOT_SET_X"}})
    run = reimage(rack.site)
    assert run.error is not None
    assert (run.error.code, "NOT_SET_X" in run.error.message) == ("SecretError", True)
    run = reimage(rack.site, planned=(rack.site / "gone").unlink)
    assert run.error is not None
    assert (run.error.code, run.error.message) == ("HookFailed", "./gone: no such program")
    assert notes(rack) == []


def test_an_undo_that_fails_is_said(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    script(rack.site, "echo 'lb is away'; exit 1", "broken")
    edit(rack, hooks=hooks(noted("lb", undo="./broken"), noted("dns"), "./broken"))
    run = reimage(rack.site)
    assert run.error is not None
    assert "hook broken (before): exit status 1" in run.error.message
    assert "undo of hook lb: exit status 1: lb is away" in run.error.message
    assert notes(rack)[-1] == "undo dns undo"  # the others run all the same


def test_an_undo_for_untouched_machines_is_left_out_once_it_was_started(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack, no_check_in="")
    edit(rack, hooks=hooks(noted("lb", undo={"command": "./note undo", "when": "untouched"}), noted("dns")))
    run = reimage(rack.site)
    assert run.status is RunStatus.failed
    assert notes(rack) == ["before lb node-1", "before dns node-1", "undo dns undo"]
    assert json.loads((rack.site / "said-undo-dns").read_text())["machine"] == "started"
    texts = [e.text for e in OpenSite(rack.site).store.history("node-1", run=run.id, kind="hook")]
    assert "undo of lb is left out: the machine is started" in texts


def test_cancel_in_a_hook_that_hangs(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    script(rack.site, "touch hanging; sleep 600", "drain")
    edit(rack, hooks=hooks(noted("dns"), {"command": "./drain", "undo": "./note drain"}))
    site = OpenSite(rack.site)
    run = submit(site, plan_host(site, "node-1"))

    def when_hanging() -> None:
        until((rack.site / "hanging").exists, 30)
        cancel(OpenSite(rack.site), run.id)

    thread = threading.Thread(target=when_hanging, daemon=True)
    thread.start()
    began = time.monotonic()
    (done,) = finish(site, [run.id])
    thread.join(30)
    assert done.status is RunStatus.cancelled
    assert time.monotonic() - began < 30
    assert notes(rack) == ["before dns node-1", "undo drain drain", "undo dns undo"]
    assert json.loads((rack.site / "said-undo-dns").read_text())["outcome"] == "cancelled"
    assert host(rack).quarantine is None


def test_an_after_hook_that_fails_leaves_a_proven_host_in_quarantine(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    script(rack.site, "exit 1", "undrain")
    edit(rack, hooks=hooks(noted("lb"), after=("./undrain",)))
    run = reimage(rack.site)
    assert run.status is RunStatus.failed
    record = host(rack)
    assert (record.state, record.proof, record.image) == ("active", "proven", "web@1")
    assert record.quarantine is not None
    assert record.quarantine.reason == "undrain: hook undrain (after): exit status 1"
    assert notes(rack) == ["before lb node-1", "undo lb undo"]
    assert json.loads((rack.site / "said-undo-lb").read_text())["machine"] == "proven"


# health


def test_an_unhealthy_host_is_proven_and_in_quarantine_and_not_active(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    assert reimage(rack.site).status is RunStatus.succeeded
    web = stack.enter_context(service(lambda _: (503, b"warming up\n")))
    edit(rack, hooks=hooks(noted("lb"), after=("./note",)), health={"name": "healthz", "http": web.url, **QUICK})
    run = reimage(rack.site, image="web@2")
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert run.error.code == "Unhealthy"
    assert "healthz: not good within 3 s; last: answered 503 Service Unavailable: warming up" in run.error.message
    assert "rollback" in run.error.hint
    record = host(rack)
    assert (record.state, record.proof, record.image) == ("enrolled", "proven", "web@2")
    assert record.quarantine is not None
    assert record.health is not None
    assert record.health.word == "unhealthy"
    assert record.health.checks[0]["last"].startswith("answered 503")
    assert "after note" not in notes(rack)
    assert evidence(rack, run)["health"]["checks"][0]["looks"] > 3
    (row,) = rows(OpenSite(rack.site))
    assert row["health"] == "unhealthy"
    assert show(OpenSite(rack.site), "node-1")["health"]["word"] == "unhealthy"
    assert rollback_image(OpenSite(rack.site), "node-1") == "web@1"


def test_back_to_the_version_before_ends_it(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    assert reimage(rack.site).status is RunStatus.succeeded
    web = stack.enter_context(service(lambda _: (503, b"")))
    edit(rack, health={"http": web.url, **QUICK})
    assert reimage(rack.site, image="web@2").status is RunStatus.failed
    web.answer = lambda _: (200, b"")
    run = reimage(rack.site, image=rollback_image(OpenSite(rack.site), "node-1"), verb="rollback")
    assert run.status is RunStatus.succeeded, run.error
    record = host(rack)
    assert (record.state, record.proof, record.image, record.quarantine) == ("active", "proven", "web@1", None)
    assert record.health is not None
    assert record.health.word == "healthy"


def test_prove_looks_at_health_before_it_ends_the_quarantine(
    rack: Rack, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metalimmu.service.proof._system_says", lambda *_: {})  # a simulated system reports once
    power_up(rack, stack)
    web = stack.enter_context(service(lambda _: (503, b"")))
    edit(rack, health={"http": web.url, **QUICK})
    assert reimage(rack.site).status is RunStatus.failed
    with pytest.raises(Unhealthy):
        prove(OpenSite(rack.site), "node-1")
    record = host(rack)
    assert (record.state, record.proof) == ("enrolled", "proven")
    assert record.quarantine is not None
    web.answer = lambda _: (200, b"")
    assert "healthy" in prove(OpenSite(rack.site), "node-1")
    record = host(rack)
    assert (record.state, record.proof, record.quarantine) == ("active", "proven", None)
    assert record.health is not None
    assert record.health.word == "healthy"


def test_released_is_not_healthy(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    web = stack.enter_context(service(lambda _: (503, b"")))
    edit(rack, health={"http": web.url, **QUICK})
    assert reimage(rack.site).status is RunStatus.failed
    release(OpenSite(rack.site), "node-1", "I know better")
    record = host(rack)
    assert (record.state, record.proof, record.quarantine) == ("enrolled", "unproven", None)


def test_health_that_flaps_begins_anew(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    looked = 0

    def flapping(_: Any) -> tuple[int, bytes]:
        nonlocal looked
        looked += 1
        return (500, b"oops\n") if looked in (3, 5) else (200, b"")

    web = stack.enter_context(service(flapping))
    edit(rack, health={"http": web.url, "for": "1s", "every": "200ms", "timeout": "2s", "limit": "20s"})
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error
    (check,) = evidence(rack, run)["health"]["checks"]
    assert check["breaks"] == 2
    assert check["bad"] == 2
    assert [b["words"] for b in check["history"]] == ["answered 500 Internal Server Error: oops"] * 2
    events = [e.text for e in OpenSite(rack.site).store.history("node-1", run=run.id, kind="health")]
    assert len(events) == 2
    assert "then: answered 500" in events[0]


def test_all_checks_must_be_good_at_once(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    fake = Prometheus()
    fake.samples["up"] = [({"instance": "node-1"}, "0")]
    prom = stack.enter_context(service(fake.answer))
    web = stack.enter_context(service())
    script(rack.site, 'test "$METALIMMU_PHASE" = health', "look")
    edit(
        rack,
        health=[
            {"http": web.url, **QUICK},
            {"tcp": f"127.0.0.1:{web.port}", **QUICK},
            {"command": "./look", **QUICK},
            {"prometheus": {"url": prom.url, "query": "up", "equals": 1}, **QUICK},
        ],
    )
    run = reimage(rack.site)
    assert run.error is not None
    assert "prometheus: not good within 3 s; last: {instance=node-1} is 0, wanted equal to 1" in run.error.message
    assert [c["good"] for c in evidence(rack, run)["health"]["checks"]] == [True, True, True, False]
    fake.samples["up"] = [({"instance": "node-1"}, "1")]
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error


def test_cancel_while_health_is_looked_at(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    web = stack.enter_context(service())
    edit(rack, hooks=hooks(noted("lb")), health={"http": web.url, "for": "10m"})
    site = OpenSite(rack.site)
    run = submit(site, plan_host(site, "node-1"))

    def when_looking() -> None:
        until(lambda: web.asked, 60)
        cancel(OpenSite(rack.site), run.id)

    thread = threading.Thread(target=when_looking, daemon=True)
    thread.start()
    (done,) = finish(site, [run.id])
    thread.join(60)
    assert done.status is RunStatus.cancelled
    record = host(rack)
    assert (record.state, record.proof) == ("enrolled", "proven")  # what its health is, nobody has seen to the end
    assert record.quarantine is not None
    assert record.health is None
    assert notes(rack) == ["before lb node-1", "undo lb undo"]


def test_a_role_without_proof_is_active_when_healthy(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack, no_report="")
    web = stack.enter_context(service())
    edit(rack, proof={"by": "none"}, health={"http": web.url, **QUICK})
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error
    record = host(rack)
    assert (record.state, record.proof) == ("active", "unproven")


def test_errors_are_what_they_say() -> None:
    assert not issubclass(HookFailed, GuardRefused)
    assert Unhealthy("x").code == "Unhealthy"


def test_secrets_are_in_no_file(rack: Rack, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LB_TOKEN", "sesame-open-sesame-4711")
    power_up(rack, stack)
    web: Service = stack.enter_context(service(lambda a: (200, a.headers.get("authorization", "").encode())))
    script(rack.site, 'echo "token is $TOKEN"; exit 0', "leak")
    headers = {"Authorization": "Bearer {{ secrets.t }}"}
    edit(
        rack,
        hooks=hooks(
            {"command": "./leak", "secrets": {"TOKEN": "env:LB_TOKEN"}},
            {"http": {"url": web.url, "headers": headers}, "secrets": {"t": "env:LB_TOKEN"}},
        ),
        health={"http": {"url": web.url, "headers": headers}, "secrets": {"t": "env:LB_TOKEN"}, **QUICK},
    )
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error
    assert {a.headers["authorization"] for a in web.asked} == {"Bearer sesame-open-sesame-4711"}
    opened = OpenSite(rack.site)
    for file in opened.state.glob("*.sqlite*"):
        assert b"sesame-open-sesame-4711" not in file.read_bytes(), file
