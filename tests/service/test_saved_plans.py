"""Saved plans on fake BMCs: what was planned is what runs, or nothing does and each difference is said."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from saved_site import SavedSite

from metalimmu.errors import (
    GuardRefused,
    ImageRevoked,
    MetalimmuError,
    NotApproved,
    NotFound,
    PlanDiffers,
    PlanError,
)
from metalimmu.plan.saved import SavedGuards, encode
from metalimmu.plan.types import Plan
from metalimmu.plan.waves import RolloutState
from metalimmu.service.freezes import freeze
from metalimmu.service.guarding import Guards, act
from metalimmu.service.planning import plan_host
from metalimmu.service.runs import submit
from metalimmu.service.saved_plans import apply as applying
from metalimmu.service.saved_plans import make
from metalimmu.store.protocol_plans import PlanRecord
from metalimmu.store.records import RunStatus


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def fleet(tmp_path: Path, stack: ExitStack) -> SavedSite:
    return SavedSite(tmp_path, stack)


def refused(fleet: SavedSite, **options: Any) -> PlanError:
    with pytest.raises(PlanError) as raised:
        fleet.check(**options)
    assert fleet.site.store.runs() == []
    assert fleet.site.store.rollouts.find() == []
    return raised.value


def differences(fleet: SavedSite, **options: Any) -> tuple[str, ...]:
    found = refused(fleet, **options)
    assert isinstance(found, PlanDiffers)
    return found.problems


def test_one_host_is_a_run_of_exactly_this_plan(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 1)
    fleet.power_up()
    saved = fleet.plan()
    record = fleet.finish(fleet.apply())
    assert record.status is RunStatus.succeeded, record.error
    assert Plan.decode(record.plan) == saved.content.hosts[0].plan
    assert record.options["plan"] == saved.digest
    assert fleet.site.store.host("node-1").proof == "proven"


def test_many_hosts_are_a_rollout_of_exactly_these_plans(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 3, batch=2)
    fleet.power_up()
    saved = fleet.plan(options={"reason": "the new version"})
    work = fleet.apply()
    record = fleet.finish(work)
    assert record.state is RolloutState.done, (record.reason, fleet.states(work))
    assert record.plan_digest == saved.digest
    runs = {r.host: r for r in fleet.site.store.runs()}
    for host in saved.content.hosts:
        assert Plan.decode(runs[host.host].plan) == host.plan
        assert runs[host.host].options["reason"] == "the new version"
    assert [r.wave for r in fleet.site.store.rollouts.hosts(work)] == [h.wave for h in saved.content.hosts] == [1, 2, 2]


def test_what_a_plan_says_of_itself(fleet: SavedSite) -> None:
    before = time.time()
    content = fleet.plan(expires=3600.0).content
    assert content.site == "rack"
    assert before <= content.created <= time.time()
    assert content.expires == content.created + 3600
    assert "@" in content.author.name
    assert content.guards == SavedGuards(site={"mode": "read-write", "max_hosts": 1000}, pools={"web": {}})
    assert list(content.images) == ["web@1"]
    assert [len(h.config) for h in content.hosts] == [64, 64]


def test_nothing_is_written_to_a_bmc_by_plan_or_by_a_refused_apply(fleet: SavedSite) -> None:
    before = [fleet.rack.machine(n) for n in fleet.rack.names]
    fleet.plan()
    fleet.edit("hosts/rack.yaml", "serial: S0001", "serial: S0001\n  protected: true")
    differences(fleet)
    after = [fleet.rack.machine(n) for n in fleet.rack.names]
    assert [msgspec.structs.replace(m, sessions=0) for m in before] == [
        msgspec.structs.replace(m, sessions=0) for m in after
    ]


def test_every_difference_host_by_host(fleet: SavedSite) -> None:
    fleet.plan()
    fleet.machine("node-1", serial="S9999")
    fleet.edit("hosts/rack.yaml", "serial: S0002", "serial: S0002\n  root_disk: {serial: D1}")
    fleet.edit("site.yaml", "max_hosts: 1000", "max_hosts: 999")
    fleet.rack.write("pools/web.yaml", {"min_active": 1})
    assert differences(fleet) == (
        "site: guards.max_hosts: planned 1000, now 999",
        "pool web: guards.min_active: planned nothing, now 1",
        "node-1: identity.serial: planned S0001, now S9999",
        "node-2: document.root_disk.serial: planned nothing, now D1",
    )


def test_waves_that_another_program_made(tmp_path: Path, stack: ExitStack) -> None:
    """The first host alone, then batches: no plan can leave that out."""
    fleet = SavedSite(tmp_path, stack, 3, batch=1)
    content = fleet.plan().content
    hosts = tuple(msgspec.structs.replace(h, wave=1) for h in content.hosts)
    make.write(fleet.site, msgspec.structs.replace(content, hosts=hosts), fleet.file)
    assert differences(fleet) == ("node-2: wave: planned 1, now 2", "node-3: wave: planned 1, now 3")


def test_the_rendered_config(fleet: SavedSite) -> None:
    """A variable is in the documents; a change in our own defaults is only in what is rendered."""
    fleet.plan()
    saved = make.load(fleet.file)
    hosts = tuple(msgspec.structs.replace(h, config="0" * 64) for h in saved.content.hosts)
    make.write(fleet.site, msgspec.structs.replace(saved.content, hosts=hosts), fleet.file)
    found = differences(fleet)
    assert [line.split(": planned")[0] for line in found] == ["node-1: config", "node-2: config"]


def test_a_host_that_is_gone_or_cannot_be_asked(fleet: SavedSite) -> None:
    fleet.plan()
    fleet.rack.fault("node-1", "identity", "unreachable", times=None)
    documents = (fleet.rack.site / "hosts/rack.yaml").read_text()
    (fleet.rack.site / "hosts/rack.yaml").write_text(documents[: documents.index("- name: node-2")])
    [first, second] = differences(fleet)
    assert first.startswith("node-1: look: planned a plan, now ")
    assert second.startswith("node-2: look: planned a plan, now no host 'node-2'")


def test_an_image_that_was_revoked(fleet: SavedSite) -> None:
    fleet.plan()
    fleet.site.catalogue.revoke("web@1", "it leaks")
    for line in differences(fleet):
        assert line.endswith("look: planned a plan, now web@1 is revoked: it leaks")


def test_an_image_that_was_replaced(fleet: SavedSite) -> None:
    fleet.plan()
    import shutil

    shutil.rmtree(fleet.rack.site / ".metalimmu/images/catalogue/web/1")
    fleet.rack.image("web@1", 5)
    found = differences(fleet)
    assert any(line.startswith("node-1: image.digest: planned sha256:") for line in found)


def test_a_freeze_and_a_protected_host(fleet: SavedSite) -> None:
    fleet.plan()
    freeze(fleet.site, reason="the sales week", selector="name=node-2")
    [line] = differences(fleet)
    assert line.startswith("node-2: guards.freeze: planned nothing forbids it, now node-2 is frozen")


def test_somebody_else_works_on_it(fleet: SavedSite) -> None:
    """Two people apply overlapping plans."""
    fleet.plan()
    other = fleet.file.with_name("other.plan")
    make.write(fleet.site, make.make(fleet.site, ["node-2"]), other)
    first = fleet.apply()
    with pytest.raises(PlanDiffers) as raised:
        applying.check(fleet.open(), make.load(other), other)
    [line] = raised.value.problems
    assert line.startswith(f"node-2: work: planned nothing, now rollout {first} of ")


def test_a_run_that_works_on_it(fleet: SavedSite) -> None:
    fleet.plan()
    run = submit(fleet.site, plan_host(fleet.site, "node-1"))
    with pytest.raises(PlanDiffers) as raised:
        fleet.check()
    assert raised.value.problems[0].startswith(f"node-1: work: planned nothing, now run {run.id} of ")


def test_a_plan_is_carried_out_once(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 1)
    fleet.power_up()
    saved = fleet.plan()
    work = fleet.apply()
    assert work == applying.work_of(saved)
    with pytest.raises(PlanError, match=f"was applied at .* by .*: {work}"):
        fleet.check()
    fleet.finish(work)
    with pytest.raises(PlanError, match="was applied at"):
        fleet.check()


def test_applied_at_the_same_moment_twice(fleet: SavedSite) -> None:
    """Both have looked before either has begun."""
    fleet.plan()
    one, two = fleet.check(), fleet.check()
    assert applying.carry_out(fleet.site, one) == applying.carry_out(fleet.site, two)
    assert len(fleet.site.store.rollouts.find()) == 1


def test_killed_between_keeping_the_plan_and_beginning(fleet: SavedSite) -> None:
    saved = fleet.plan()
    work = applying.work_of(saved)
    hosts = [(h.host, msgspec.json.encode(h)) for h in saved.content.hosts]
    fleet.site.store.plans.keep(PlanRecord(digest=saved.digest, by="me", work=work), hosts)
    assert fleet.apply() == work


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"site": "other"}, "for the site other, this is rack"),
        ({"created": 1.0, "expires": 2.0}, "has expired at 1970-01-01 00:00:02Z"),
        ({"created": 4e9, "expires": 5e9}, "was made at 2096-"),
    ],
)
def test_another_site_another_time(fleet: SavedSite, fields: dict[str, Any], said: str) -> None:
    content = fleet.plan().content
    make.write(fleet.site, msgspec.structs.replace(content, **fields), fleet.file)
    assert said in refused(fleet).message


def test_a_clock_that_was_set_back_makes_no_plan_young_again(fleet: SavedSite) -> None:
    saved = fleet.plan(expires=7200.0)
    yesterday = saved.content.created - 30 * 3600
    assert "was made at" in refused(fleet, now=yesterday).message
    assert "has expired" in refused(fleet, now=saved.content.expires + 1).message
    fleet.site.store.add_event("node-1", "note", "something happened now")
    old = msgspec.structs.replace(saved.content, created=yesterday, expires=yesterday + 7200)
    make.write(fleet.site, old, fleet.file)
    assert "the newest event of the site is of" in refused(fleet, now=yesterday + 60).message


def test_a_file_that_is_not_there_or_no_plan(fleet: SavedSite, tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none", "there is no plan"), (tmp_path, "there is no plan")):
        with pytest.raises(PlanError, match=said):
            make.load(path)
    (tmp_path / "huge").touch()
    import os

    os.truncate(tmp_path / "huge", make.MAX_BYTES + 1)
    with pytest.raises(PlanError, match="has 512 MiB"):
        make.load(tmp_path / "huge")


def test_a_machine_that_was_switched_off(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 1)
    fleet.plan()
    fleet.machine("node-1", power="Off", booted_from="none")
    found = refused(fleet)
    assert "--accept-power" in found.hint
    [line] = found.problems
    assert "steps.power.requests" in line
    fleet.power_up()
    record = fleet.finish(fleet.apply(accept_power=True))
    assert record.status is RunStatus.succeeded, record.error
    [request] = Plan.decode(record.plan).step("power").requests
    assert request.body == {"ResetType": "On"}


def test_power_is_not_accepted_where_approvals_are_wanted(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 1, approvals=1)
    fleet.plan(author="alice")
    fleet.approve("bob")
    fleet.machine("node-1", power="Off", booted_from="none")
    assert "nobody approved that" in refused(fleet, accept_power=True).message


def test_refused_hosts_are_left_out_when_that_was_said(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 3)
    fleet.edit("hosts/rack.yaml", "serial: S0002", "serial: S0002\n  protected: true")
    fleet.rack.fault("node-3", "identity", "unreachable", times=None)
    fleet.open()
    with pytest.raises(GuardRefused, match="2 of 3 hosts are refused: node-2 is protected"):
        fleet.plan()
    assert not fleet.file.exists()
    content = fleet.plan(skip_refused=True).content
    assert [h.host for h in content.hosts] == ["node-1"]
    assert {r.host: bool(r.hint) for r in content.refused} == {"node-2": True, "node-3": True}
    assert fleet.check().again.differences == ()


def test_nothing_to_do_is_no_plan(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 1)
    fleet.power_up()
    fleet.plan()
    fleet.finish(fleet.apply())
    with pytest.raises(GuardRefused, match="nothing to do: node-1 is already proven"):
        fleet.plan()


def test_a_host_that_was_done_by_others_in_between_is_said(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 1)
    fleet.power_up()
    run = submit(fleet.site, plan_host(fleet.site, "node-1"))
    fleet.plan()
    fleet.finish(run.id)
    with pytest.raises(PlanDiffers) as raised:
        fleet.check()
    assert "now nothing is to do: node-1 is already proven at web@1" in raised.value.problems[0]


def test_a_site_edited_during_a_run_changes_nothing_of_it(tmp_path: Path, stack: ExitStack) -> None:
    """Hooks, disk, image and variables of the documents are others when the second host's turn comes."""
    fleet = SavedSite(tmp_path, stack, 2)
    fleet.power_up()
    saved = fleet.plan()
    work = fleet.apply()
    edited: list[int] = []

    def tick() -> None:
        if not edited and fleet.site.store.runs(host="node-1"):
            edited.append(1)
            fleet.rack.write("roles/web.yaml", {"image": "web@2", "ramdisk": "fake", "vars": {"x": 1}})
            fleet.edit("hosts/rack.yaml", "serial: S0002", "serial: S0002\n  root_disk: {serial: NONE}")

    record = fleet.finish(work, tick=tick)
    assert record.state is RolloutState.done, (record.reason, fleet.states(work))
    assert edited
    [run] = fleet.site.store.runs(host="node-2")
    assert Plan.decode(run.plan) == saved.content.hosts[1].plan
    assert fleet.site.store.host("node-2").image == "web@1"


def test_a_machine_that_has_changed_when_its_turn_comes_stops_the_rollout(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 3, batch=1)
    fleet.power_up()
    fleet.plan()
    work = fleet.apply()
    fleet.machine("node-2", uuid="00000000-0000-4000-8000-999999999999")
    record = fleet.finish(work)
    assert record.state is RolloutState.stopped
    assert fleet.states(work) == {"node-1": "done", "node-2": "failed", "node-3": "waiting"}
    reason = fleet.site.store.rollouts.hosts(work)[1].reason
    assert reason.startswith("node-2 is not as it was planned: identity.uuid: planned 00000000-")
    assert fleet.site.store.runs(host="node-2") == []


def test_an_image_revoked_in_the_middle_begins_no_further_host(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 2)
    fleet.power_up()
    fleet.plan()
    work = fleet.apply()

    def tick() -> None:
        image = fleet.site.catalogue.get("web@1")
        if not image.revoked and any(
            s.name == "verify" for r in fleet.site.store.runs() for s in fleet.site.store.steps(r.id)
        ):
            fleet.site.catalogue.revoke("web@1", "it leaks")

    record = fleet.finish(work, tick=tick)
    assert record.state is not RolloutState.done
    assert "it leaks" in record.reason
    assert fleet.site.store.runs(host="node-2") == []
    with pytest.raises(ImageRevoked):
        plan_host(fleet.site, "node-2")


# --- approvals


def test_a_pool_that_wants_approvals_refuses_direct_runs(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 1, approvals=1)
    plan = plan_host(fleet.site, "node-1")
    with pytest.raises(GuardRefused, match="pool web wants a saved plan, signed by its author and 1 other") as raised:
        submit(fleet.site, plan)
    assert "metalimmu approve FILE" in raised.value.hint
    assert fleet.site.store.runs() == []
    [one] = Guards(fleet.site).refusals(act("rollback", "node-1", {"allow_protected": True, "reason": "x"}))
    assert one.guard == "approvals"
    assert Guards(fleet.site).refusals(act("power reset", "node-1", {})) == ()
    assert Guards(fleet.site).refusals(act("rollback", "node-1", {"returning": True})) == ()


def test_approved_and_applied(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 1, approvals=1)
    fleet.power_up()
    saved = fleet.plan(author="alice")
    assert saved.content.author.name == "alice@example.org"
    assert saved.content.author.key.startswith("SHA256:")
    found = refused(fleet)
    assert isinstance(found, NotApproved)
    assert "it was signed by alice@example.org" in found.message
    fleet.approve("bob")
    record = fleet.finish(fleet.apply())
    assert record.status is RunStatus.succeeded, record.error
    assert record.options["approved_by"] == ["alice@example.org", "bob@example.org"]
    kept = fleet.site.store.plans.get(saved.digest)
    assert kept is not None
    assert kept.approvals.count("BEGIN SSH SIGNATURE") == 2
    asked = next(e for e in fleet.site.store.history("node-1") if e.kind == "run")
    assert asked.data["approved_by"] == ["alice@example.org", "bob@example.org"]


def test_a_rollout_of_a_pool_that_wants_two(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 2, approvals=2)
    fleet.power_up()
    fleet.plan(author="alice")
    fleet.approve("bob")
    assert isinstance(refused(fleet), NotApproved)
    fleet.approve("carol")
    record = fleet.finish(work := fleet.apply())
    assert record.state is RolloutState.done, (record.reason, fleet.states(work))


def test_approvals_of_the_plan_before_do_not_count(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 1, approvals=1)
    fleet.plan(author="alice")
    fleet.approve("bob")
    fleet.plan(author="alice")
    found = refused(fleet)
    assert any("bob@example.org does not count: it is of another digest" in p for p in found.problems)


def test_approvals_that_are_wanted_since(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 1)
    fleet.plan()
    fleet.rack.write("pools/web.yaml", {"approvals": 1})
    assert isinstance(refused(fleet), NotApproved)


def test_an_author_whose_signature_would_not_count(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 1)
    (fleet.rack.site / "allowed_signers").write_text("")
    with pytest.raises(NotApproved, match="its signature would not count"):
        fleet.plan(author="alice")
    assert not fleet.file.exists()


# --- secrets


def test_no_secret_is_in_the_file(tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMC_USERNAME", "root")
    monkeypatch.setenv("BMC_PASSWORD", "planted-bmc-password")
    monkeypatch.setenv("LB", "planted-hook-secret")
    fleet = SavedSite(tmp_path, stack, 2)
    for name in fleet.rack.names:
        fleet.machine(name, username="root", password="planted-bmc-password")
    (fleet.rack.site / "drain").write_text("#!/bin/sh\n")
    (fleet.rack.site / "drain").chmod(0o755)
    fleet.rack.write("site.yaml", {**read(fleet, "site.yaml"), "credentials": [{"ref": "env:BMC"}]})
    hook = {
        "http": {"url": "https://lb.invalid/drain", "headers": {"Authorization": "Bearer {{ secrets.LB }}"}},
        "secrets": {"LB": "env:LB"},
    }
    fleet.rack.write("pools/web.yaml", {"hooks": {"before": [hook]}})
    fleet.open()
    fleet.plan(author="alice")
    data = fleet.file.read_text() + fleet.file.with_name("fleet.plan.approvals").read_text()
    assert "planted" not in data
    assert "env:BMC" in data
    assert "env:LB" in data
    key = fleet.keys["alice"].read_text().splitlines()[1]
    assert key not in data
    fleet.site.catalogue.revoke("web@1", "no")
    assert not any("planted" in line for line in differences(fleet))


def read(fleet: SavedSite, name: str) -> Any:
    import yaml

    return yaml.safe_load((fleet.rack.site / name).read_text())


# --- from memory


def test_from_memory_no_bmc_is_asked(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 2)
    live = fleet.plan()
    for name in fleet.rack.names:
        fleet.rack.state(name).rename(fleet.rack.state(name).with_suffix(".away"))
    remembered = fleet.plan(from_memory=True)
    assert [h.plan.steps for h in remembered.content.hosts] == [h.plan.steps for h in live.content.hosts]
    assert all(h.looked <= live.content.created for h in remembered.content.hosts)
    for line in differences(fleet):
        assert "no fake BMC at" in line
    for name in fleet.rack.names:
        fleet.rack.state(name).with_suffix(".away").rename(fleet.rack.state(name))
    fleet.power_up()
    record = fleet.finish(fleet.apply())
    assert record.state is RolloutState.done


def test_memory_knows_what_the_store_knows(tmp_path: Path, stack: ExitStack) -> None:
    """Plans from memory and live ones agree after a run: image, proof, quarantine, how long steps took."""
    fleet = SavedSite(tmp_path, stack, 2)
    fleet.power_up()
    fleet.finish(submit(fleet.site, plan_host(fleet.site, "node-1")).id)
    live = fleet.plan(image="web@2")
    remembered = fleet.plan(image="web@2", from_memory=True)
    for one, two in zip(live.content.hosts, remembered.content.hosts, strict=True):
        assert plain(one) == plain(two)
    assert {h.host: h.plan.previous for h in live.content.hosts} == {"node-1": "web@1", "node-2": None}


def plain(host: Any) -> Any:
    plan = msgspec.structs.replace(host.plan, created=0.0)
    return msgspec.structs.replace(host, plan=plan, looked=0.0)


def test_a_host_that_was_never_looked_at(fleet: SavedSite) -> None:
    with pytest.raises(GuardRefused, match="node-1 was never looked at for a plan"):
        fleet.plan(from_memory=True)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("site.yaml", "bmc: http://127.0.0.1", "bmc: http://127.0.0.2", "its urls.bmc was"),
        ("hosts/rack.yaml", "bmc: fake://", "bmc: fake:///.", "its BMC address was"),
        ("roles/web.yaml", "ramdisk: fake", "ramdisk: fake\nfirmware: bios", "its firmware was uefi"),
    ],
)
def test_what_is_remembered_must_fit(fleet: SavedSite, file: str, old: str, new: str, said: str) -> None:
    fleet.plan()
    fleet.edit(file, old, new)
    fleet.open()
    with pytest.raises(MetalimmuError, match=said):
        fleet.plan(from_memory=True)


# --- what the store keeps


def test_plans_of_hosts_are_dropped_when_their_rollout_has_ended(tmp_path: Path, stack: ExitStack) -> None:
    fleet = SavedSite(tmp_path, stack, 2)
    fleet.power_up()
    saved = fleet.plan()
    record = fleet.finish(work := fleet.apply())
    assert record.state is RolloutState.done, (record.reason, fleet.states(work))
    store = fleet.site.store.plans
    assert store.of_host(saved.digest, "node-1") is not None
    store.keep(PlanRecord(digest="sha256:1", work="r-x"), [("a", b"x")])
    assert store.of_host(saved.digest, "node-1") is None
    assert store.get(saved.digest) is not None
    assert store.of_host("sha256:1", "a") == b"x"
    assert store.of_host("sha256:1", "b") is None
    assert store.get("sha256:2") is None


def test_the_file_is_what_encode_says(fleet: SavedSite) -> None:
    saved = fleet.plan()
    assert fleet.file.read_bytes() == encode(saved.content)[1]
    assert json.loads(fleet.file.read_text())["digest"] == saved.digest
    assert not list(fleet.file.parent.glob(".fleet.plan*"))
    with pytest.raises(NotFound):
        fleet.site.store.run(applying.work_of(saved))
