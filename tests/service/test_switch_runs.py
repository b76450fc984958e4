"""Runs of switches on simulated ones: through ONIE, between two slots, and each thing that goes wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from drive import reimage
from hook_rig import script
from switch_shell import LocalShell
from switches import SwitchRack, until

from metalimmu.lifecycle import Proof
from metalimmu.service import switches
from metalimmu.service.planning import plan_host, rollback_image
from metalimmu.service.site import OpenSite
from metalimmu.store.records import Quarantine, RunStatus


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def fabric(tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(*, ssh: bool = False, **options: Any) -> SwitchRack:
        """`ssh`: by a child process and a real shell; else in this process, which takes a tenth of the time."""
        made = SwitchRack(tmp_path, **options)
        if ssh:
            monkeypatch.setenv("PATH", f"{made.ssh}:{os.environ['PATH']}")
        else:
            monkeypatch.setattr(LocalShell, "folder", tmp_path / "switch", raising=False)
            monkeypatch.setattr(switches, "Ssh", LocalShell)
        for switch in made.switches.values():
            stack.enter_context(switch)
        return made

    return make


def site(made: SwitchRack) -> OpenSite:
    return OpenSite(made.site)


def test_from_one_nos_to_another_and_back_through_onie(fabric: Any) -> None:
    made = fabric(boot="onie")
    leaf = made.switches["leaf-1"]
    plan = plan_host(site(made), "leaf-1")
    assert plan.method == "onie"
    first = reimage(made.site, "leaf-1")
    assert first.status is RunStatus.succeeded, first.error
    record = site(made).store.host("leaf-1")
    assert (record.state, record.proof, record.image) == ("active", "proven", "lab-nos@2")
    proof = record.proof_evidence
    assert proof["nos"] == "lab 2"
    assert proof["nos_mode"] == "yes"
    assert proof["neighbours"] == ["Ethernet0 to spine-1 Ethernet4", "Ethernet1 to spine-2 Ethernet4"]
    assert proof["deliveries"] == 1
    assert leaf.read("onie_mode") == "unknown"  # a stray boot into ONIE must not install again
    assert '"hostname": "leaf-1"' in leaf.read("etc/sonic/config_db.json")
    second = reimage(made.site, "leaf-1", image="lab-nos@3")
    assert second.status is RunStatus.succeeded, second.error
    back = reimage(made.site, "leaf-1", image=rollback_image(site(made), "leaf-1"), verb="rollback")
    assert back.status is RunStatus.succeeded, back.error
    assert leaf.read("etc/os-release").endswith("VERSION_ID=2")
    assert leaf.ask("/switch") is None


def test_between_two_slots_and_back_by_a_reboot(fabric: Any) -> None:
    made = fabric()
    leaf = made.switches["leaf-1"]
    plan = plan_host(site(made), "leaf-1")
    assert plan.method == "two-slot"
    assert [s.name for s in plan.steps][-6:] == ["back", "settled", "unshift", "soak", "keep", "record"]
    first = reimage(made.site, "leaf-1")
    assert first.status is RunStatus.succeeded, first.error
    proof = site(made).store.host("leaf-1").proof_evidence
    assert proof["slot"] == "LAB-OS-2"
    assert proof["config_hash"] == proof["config_hash_before"] != ""
    assert (leaf.read("slots/current"), leaf.read("slots/default")) == ("LAB-OS-2", "LAB-OS-2")
    assert leaf.read("etc/sonic/config_db.json") == '{"OLD": {"table": "1"}}'  # nothing was wiped
    assert leaf.installs == 0
    site(made).store.update_host("leaf-1", previous_image="lab-nos@1", previous_digest=digest(made, "lab-nos@1"))
    site(made).store.observe("leaf-1", "switch-slots", {digest(made, "lab-nos@1"): "LAB-OS-1"})
    sent = len(leaf.read("log").splitlines())
    back = reimage(made.site, "leaf-1", image=rollback_image(site(made), "leaf-1"), verb="rollback")
    assert back.status is RunStatus.succeeded, back.error
    assert leaf.read("slots/current") == "LAB-OS-1"
    assert not any("wget" in line for line in leaf.read("log").splitlines()[sent:])  # the slot still had it


def test_a_slot_that_does_not_boot_leaves_the_old_one_as_the_default(fabric: Any) -> None:
    made = fabric(ssh=True)
    leaf = made.switches["leaf-1"]
    leaf.bad_slots.add("LAB-OS-2")
    run = reimage(made.site, "leaf-1")
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert "came back in LAB-OS-1 and not in LAB-OS-2" in run.error.message
    assert leaf.read("slots/default") == "LAB-OS-1"
    record = site(made).store.host("leaf-1")
    assert record.quarantine is not None
    assert record.proof == "unproven"


def test_an_installer_that_fails_is_offered_as_often_as_the_role_says(fabric: Any) -> None:
    made = fabric(boot="onie", installs=2)
    leaf = made.switches["leaf-1"]
    leaf.failures = 1
    run = reimage(made.site, "leaf-1")
    assert run.status is RunStatus.succeeded, run.error
    deployment = site(made).store.switches.get(run.id)
    assert (deployment.delivered, deployment.failures, leaf.installs) == (2, 1, 2)
    leaf.failures = 5
    again = reimage(made.site, "leaf-1", image="lab-nos@3")
    assert again.status is RunStatus.failed
    assert again.error is not None
    assert "failed 2 times" in again.error.message
    record = site(made).store.host("leaf-1")
    assert record.quarantine is not None
    assert (record.state, record.image, record.previous_image) == ("enrolled", None, "lab-nos@2")
    assert leaf.installs == 4  # and not once more, however often it asks
    deployment = site(made).store.switches.get(again.id)
    assert (deployment.armed, deployment.delivered) == (False, 2)


def test_a_switch_that_is_in_onie_already_is_installed_without_its_nos(fabric: Any) -> None:
    made = fabric(boot="onie")
    leaf = made.switches["leaf-1"]
    (leaf.root / "up").unlink()
    leaf.refresh()
    plan = plan_host(site(made), "leaf-1")
    assert "onie" not in [s.name for s in plan.steps]
    assert any("its NOS does not answer" in w for w in plan.warnings)
    leaf.put("onie_mode", "install")
    leaf.put("reboot", "")  # it sits in ONIE, and asks
    run = reimage(made.site, "leaf-1")
    assert run.status is RunStatus.succeeded, run.error


def test_rescue_as_the_default_of_onie_is_found_out(fabric: Any) -> None:
    made = fabric(boot="onie")
    made.switches["leaf-1"].rescue = True
    run = reimage(made.site, "leaf-1")
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert "came back with its old NOS" in run.error.message
    record = site(made).store.host("leaf-1")
    assert record.quarantine is not None
    assert record.image is None  # nothing of ours was there before


def refused(made: SwitchRack, words: str, **options: Any) -> None:
    """The run fails, and nothing was done to the switch."""
    leaf = made.switches["leaf-1"]
    boot = leaf.read("boot_id")
    run = reimage(made.site, "leaf-1", **options)
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert words in run.error.message
    assert (leaf.read("boot_id"), leaf.read("traffic"), leaf.read("onie_mode")) == (boot, "normal", "unknown")
    record = site(made).store.host("leaf-1")
    assert (record.quarantine, record.state) == (None, "enrolled")


def test_a_pair_that_is_not_well_stops_it(fabric: Any) -> None:
    made = fabric()
    peer = made.switches["leaf-2"]
    peer.put("broken", "")
    peer.refresh()
    refused(made, "leaf-2's session is down")
    (peer.root / "broken").unlink()
    peer.put("bond-down", "")
    peer.refresh()
    refused(made, "down: bond2")
    (peer.root / "bond-down").unlink()
    (peer.root / "up").unlink()
    peer.refresh()
    refused(made, "pair.peer")


@pytest.mark.parametrize("boot", ["onie", "two-slot"])
def test_a_pair_that_breaks_while_the_run_waits_stops_the_restart(
    fabric: Any, monkeypatch: pytest.MonkeyPatch, boot: str
) -> None:
    made = fabric(boot=boot)
    leaf, peer = made.switches.values()

    def breaks() -> None:
        peer.put("broken", "")
        peer.refresh()

    before(monkeypatch, "restart", breaks)
    refused(made, "leaf-2's session is down")
    assert "reboot" not in leaf.read("log").splitlines()
    assert (leaf.read("slots/next"), leaf.read("slots/default")) == ("LAB-OS-1", "LAB-OS-1")


def test_a_reboot_that_may_have_been_asked_is_not_asked_again_while_the_pair_is_broken(
    fabric: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller died between the intent and the reboot; when it is back, the peer carries nothing."""
    from metalimmu.workflows.switch_steps import ASKING

    made = fabric(boot="onie")
    settings = made.site / "site.yaml"
    settings.write_text(settings.read_text().replace("power: 10s", "power: 2s"))
    leaf, peer = made.switches.values()
    opened = site(made)

    def died() -> None:
        (run,) = opened.store.switches.running()
        opened.store.switches.update(run.id, intent=ASKING, intent_at=time.time() - 600)
        peer.put("broken", "")
        peer.refresh()

    before(monkeypatch, "restart", died)
    run = reimage(made.site, "leaf-1")
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert "leaf-2's session is down" in run.error.message
    assert "reboot" not in leaf.read("log").splitlines()


def before(monkeypatch: pytest.MonkeyPatch, name: str, does: Callable[[], None]) -> None:
    """What happens between the run's check and its act."""
    from metalimmu.workflows import reimage as workflow
    from metalimmu.workflows.step import perform

    def performed(step: Any, c: Any, limit: float) -> Any:
        if step.name == name:
            does()
        return perform(step, c, limit)

    monkeypatch.setattr(workflow, "perform", performed)


def test_what_answers_as_the_peer_must_be_it(fabric: Any) -> None:
    made = fabric()
    made.switches["leaf-2"].put("eeprom-s", "LAB0009")
    refused(made, "the serial of what answers as leaf-2 is LAB0009, not LAB0002")


def test_another_switch_at_the_address_and_a_way_that_leads_through_it(fabric: Any) -> None:
    made = fabric()
    leaf = made.switches["leaf-1"]
    leaf.put("way", "Ethernet0")
    refused(made, "the controller's own path goes through this switch")
    leaf.put("way", "eth0")
    leaf.put("eeprom-s", "OTHER")
    refused(made, "its serial is OTHER, not LAB0001")


def test_a_config_that_cannot_be_read_is_not_taken_for_none(fabric: Any) -> None:
    from metalimmu.errors import GuardRefused
    from metalimmu.service.planning import check_seen

    made = fabric()
    leaf = made.switches["leaf-1"]
    leaf.put("sealed", "")
    with pytest.raises(GuardRefused, match=r"config: unknown .sudo: a password is required"):
        check_seen(plan_host(site(made), "leaf-1"))
    refused(made, "cannot be kept: sudo: a password is required")
    (leaf.root / "sealed").unlink()
    (leaf.root / "etc/sonic/config_db.json").unlink()
    run = reimage(made.site, "leaf-1")
    assert run.status is RunStatus.succeeded, run.error
    look = next(s for s in site(made).store.steps(run.id) if s.name == "look")
    assert look.evidence["backup"] == "no configuration"


def test_absent_and_unreadable_are_two_things_in_a_real_shell(fabric: Any) -> None:
    from metalimmu.service.switches import connect

    made = fabric(ssh=True)
    leaf = made.switches["leaf-1"]
    opened = site(made)

    def config() -> tuple[str, str]:
        facts = connect(opened, opened.spec("leaf-1"), mode="read-only").facts("config")
        return facts.config.strip(), facts.unknown.get("config", "")

    assert config() == ('{"OLD": {"table": "1"}}', "")
    file = leaf.root / "etc/sonic/config_db.json"
    file.unlink()
    assert config() == ("", "")
    file.mkdir()  # there, and not to be read by whatever login
    said, why = config()
    assert (said, "directory" in why) == ("", True)


def test_memory_and_space_that_nobody_says_count_as_too_little(fabric: Any) -> None:
    made = fabric()
    leaf = made.switches["leaf-1"]
    leaf.put("free", "unsaid")
    plan = plan_host(site(made), "leaf-1")
    assert (plan.method, "does not say how much space is free" in plan.why) == ("onie", True)
    leaf.put("meminfo", "nothing")
    refused(made, "it does not say how much memory it has (no MemTotal)")


def test_a_new_slot_is_kept_when_its_health_was_seen(fabric: Any) -> None:
    made = fabric()
    leaf = made.switches["leaf-1"]
    check = {"command": "./healthy", "every": "100ms", "timeout": "2s", "limit": "3s"}
    role = yaml.safe_load((made.site / "roles/leaf.yaml").read_text())
    made.write("roles/leaf.yaml", {**role, "health": check})
    default = f"echo $(cat {leaf.root}/slots/current) $(cat {leaf.root}/slots/default)"
    script(made.site, f"{default} >> looks; test -e well", "healthy")
    run = reimage(made.site, "leaf-1")
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert "unhealthy with lab-nos@2, which is not kept" in run.error.message
    assert (leaf.read("slots/current"), leaf.read("slots/default")) == ("LAB-OS-2", "LAB-OS-1")
    record = site(made).store.host("leaf-1")
    assert (record.proof, record.image, record.quarantine is None) == ("unproven", None, False)
    (made.site / "well").touch()
    leaf.put("reboot", "")  # leads back
    until(lambda: leaf.read("slots/current") == "LAB-OS-1")
    (made.site / "looks").unlink()
    run = reimage(made.site, "leaf-1")
    assert run.status is RunStatus.succeeded, run.error
    assert (made.site / "looks").read_text().split() == ["LAB-OS-2", "LAB-OS-1"]  # asked before it was made the default
    assert leaf.read("slots/default") == "LAB-OS-2"
    record = site(made).store.host("leaf-1")
    assert (record.state, record.proof, record.image) == ("active", "proven", "lab-nos@2")
    assert record.health is not None
    assert record.health.word == "healthy"


def test_a_host_key_that_changed_by_itself_is_refused(fabric: Any) -> None:
    from metalimmu.errors import HostKeyChanged
    from metalimmu.service.switches import forget_keys

    made = fabric()
    plan_host(site(made), "leaf-1")
    site(made).store.update_host("leaf-1", image="lab-nos@1", digest=digest(made, "lab-nos@1"))
    made.switches["leaf-1"].put("key", "ssh-ed25519 AAAAother")
    with pytest.raises(HostKeyChanged):
        plan_host(site(made), "leaf-1")
    assert "next SSH host key" in forget_keys(site(made), "leaf-1")
    assert plan_host(site(made), "leaf-1").steps


def test_what_never_fits(fabric: Any) -> None:
    from metalimmu.errors import ImageError, UsageError

    made = fabric()
    made.image("9", platforms=("x86_64-other_*",))
    with pytest.raises(ImageError, match="is for x86_64-other_"):
        plan_host(site(made), "leaf-1", image="lab-nos@9")
    made.image("8", min_ram=1 << 40)
    refused(made, "MiB of memory", image="lab-nos@8")
    made.write("roles/leaf.yaml", {"image": "lab-nos@2", "boot": "two-slot"})
    made.switches["leaf-1"].put("free", "10")
    with pytest.raises(UsageError, match="two images need"):
        plan_host(site(made), "leaf-1")
    assert plan_host(site(made), "leaf-1", method="onie").method == "onie"
    with pytest.raises(UsageError, match="--method pxe is not for leaf-1, which is a switch"):
        plan_host(site(made), "leaf-1", method="pxe")


def digest(made: SwitchRack, ref: str) -> str:
    return site(made).catalogue.get(ref).digest


ONIE = (
    "look",
    "pair",
    "shift",
    "assign",
    "onie",
    "restart",
    "fetched",
    "back",
    "ztp",
    "settled",
    "unshift",
    "soak",
    "record",
)


SLOTS = (
    "look",
    "pair",
    "shift",
    "assign",
    "slot",
    "next",
    "restart",
    "back",
    "settled",
    "unshift",
    "soak",
    "keep",
    "record",
)


@pytest.mark.parametrize(("boot", "steps"), [("onie", ONIE), ("two-slot", SLOTS)])
def test_a_controller_that_dies_after_each_step(
    fabric: Any, monkeypatch: pytest.MonkeyPatch, boot: str, steps: tuple[str, ...]
) -> None:
    """All of the step was done, and nothing of it was noted: the next one looks, and repeats what must be repeated."""
    from drive import PACE

    from metalimmu.engine.durable import Interrupted
    from metalimmu.service.runs import submit
    from metalimmu.service.worker import Worker
    from metalimmu.store.records import FINAL
    from metalimmu.workflows import reimage as workflow

    made = fabric(boot=boot)
    leaf = made.switches["leaf-1"]
    dead: list[str] = []
    perform = workflow.perform

    def dying(step: Any, c: Any, limit: float) -> Any:
        result = perform(step, c, limit)
        if step.name not in dead:
            dead.append(step.name)
            raise Interrupted
        return result

    monkeypatch.setattr(workflow, "perform", dying)
    opened = site(made)
    run = submit(opened, plan_host(opened, "leaf-1"))
    for _ in range(len(steps) + 2):
        worker = Worker(opened, pace=PACE)
        before = len(dead)
        try:
            worker.try_start()
            until(lambda before=before: len(dead) > before or opened.store.run(run.id).status in FINAL, 60)
        finally:
            worker.stop()
        if opened.store.run(run.id).status in FINAL:
            break
    assert tuple(dead) == steps
    record = opened.store.run(run.id)
    assert record.status is RunStatus.succeeded, record.error
    assert leaf.installs == (1 if boot == "onie" else 0)
    assert leaf.read("log").count("\nreboot") == 1
    assert leaf.read("slots/default") == "LAB-OS-2"


def test_the_two_of_a_pair_never_go_at_once(fabric: Any) -> None:
    from metalimmu.service.guarding import Guards, act
    from metalimmu.service.runs import submit

    made = fabric()
    opened = site(made)
    submit(opened, plan_host(opened, "leaf-1"))
    (refusal,) = Guards(opened).refusals(act("reimage", "leaf-2", {}))
    assert "pair leaf-1 and leaf-2" in refusal.text
    again = plan_host(opened, "leaf-2")
    assert [(f.setting, f.word) for f in again.findings if f.setting == "pair.run"] == [("pair.run", "differs")]


def test_prove_asks_the_switch_again(fabric: Any) -> None:
    from metalimmu.errors import StepFailed
    from metalimmu.service.proof import prove
    from metalimmu.service.switch_proof import show

    made = fabric()
    leaf = made.switches["leaf-1"]
    run = reimage(made.site, "leaf-1")
    assert run.status is RunStatus.succeeded, run.error
    site(made).store.update_host("leaf-1", settles=time.time() + 600)  # its BMC was asked for a reset
    assert prove(site(made), "leaf-1") == "proven at lab-nos@2"
    assert site(made).store.host("leaf-1").settles is None
    leaf.neighbours({"Ethernet0": ("spine-1", "Ethernet4")})
    with pytest.raises(StepFailed, match="missing: Ethernet1 to spine-2 Ethernet4"):
        prove(site(made), "leaf-1")
    assert site(made).store.host("leaf-1").proof == "unproven"
    leaf.neighbours({"Ethernet0": ("spine-1", "Ethernet4"), "Ethernet1": ("spine-2", "Ethernet4")})
    leaf.put("etc/sonic/config_db.json", '{"OLD": {"table": "2"}}')
    with pytest.raises(StepFailed, match="its config is not the one that was proven"):
        prove(site(made), "leaf-1")
    said = show(site(made), "leaf-1")
    assert (said["may_go"], said["nos"], said["version"]) == (True, "lab", "2")


def test_prove_looks_at_the_health_of_a_switch_that_was_unwell(fabric: Any) -> None:
    from metalimmu.errors import Unhealthy
    from metalimmu.service.proof import prove

    made = fabric()
    check = {"command": "./healthy", "every": "100ms", "timeout": "2s", "limit": "3s"}
    role = yaml.safe_load((made.site / "roles/leaf.yaml").read_text())
    made.write("roles/leaf.yaml", {**role, "health": check})
    script(made.site, "test -e well", "healthy")
    (made.site / "well").touch()
    run = reimage(made.site, "leaf-1")
    assert run.status is RunStatus.succeeded, run.error
    opened = site(made)
    opened.store.update_host("leaf-1", quarantine=Quarantine(reason="unhealthy", since=time.time()))
    (made.site / "well").unlink()
    with pytest.raises(Unhealthy):
        prove(opened, "leaf-1")
    assert opened.store.host("leaf-1").quarantine is not None
    (made.site / "well").touch()
    assert prove(opened, "leaf-1").startswith("proven at lab-nos@2; healthy: ")
    assert opened.store.host("leaf-1").quarantine is None


def test_what_the_operator_sees(fabric: Any) -> None:
    """The commands, as they are typed."""
    from click.testing import CliRunner

    from metalimmu.cli import cli

    made = fabric(boot="onie")

    def said(*words: str) -> str:
        result = CliRunner().invoke(cli, ["--site", str(made.site), *words])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    plan = said("plan", "leaf-1")
    assert "method    onie" in plan
    assert "onie-boot-mode -o install" in plan
    assert "if needed: ssh leaf-1: mountpoint" in plan  # and ONIE's mode is taken back
    two = said("plan", "leaf-1", "--method", "two-slot")
    assert "method    two-slot" in two
    for command in ("binary-version", "install -y", "set-default CURRENT", "rm -f /host/", "set-default NEW"):
        assert command in two
    assert "all bonds up on leaf-2" not in plan
    assert "ssh-ed25519" in said("switch", "key", "leaf-1")
    assert "may_go: true" in said("switch", "show", "leaf-1")
    assert "is taken for right" in said("switch", "key", "leaf-1", "--forget")
    assert "first one seen" in said("switch", "key", "leaf-1")
    assert "leaf-1" in said("host", "list")


def test_what_was_done_before_the_restart_is_taken_back(fabric: Any) -> None:
    made = fabric(boot="onie")
    leaf = made.switches["leaf-1"]
    leaf.put("stuck", "")  # ONIE's partition is read-only
    run = reimage(made.site, "leaf-1")
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert "says unknown" in run.error.message
    assert leaf.read("traffic") == "normal"
    assert any("TSA" in line for line in leaf.read("log").splitlines())
    record = site(made).store.host("leaf-1")
    assert (record.quarantine, record.state) == (None, "enrolled")
    assert site(made).store.switches.get(run.id).ended is not None
    assert leaf.ask("/switch") is None


def switched_off(made: Any, path: Path) -> Any:
    """leaf-1 gets a BMC, whose machine is in the file at `path`, and is off."""
    from metalimmu.bmc.fake_machines import FileMachine
    from metalimmu.observed.machine import Machine

    leaf = made.switches["leaf-1"]
    FileMachine(path).create(Machine(power="Off", serial=leaf.serial))
    with_bmc(made, path)
    (leaf.root / "up").unlink()
    leaf.refresh()
    return leaf


def test_a_bmc_starts_a_switch_that_is_off(fabric: Any, tmp_path: Path) -> None:
    import threading

    from metalimmu.bmc.fake_machines import FileMachine

    made, path = fabric(boot="onie"), tmp_path / "leaf-1.json"
    leaf = switched_off(made, path)
    plan = plan_host(site(made), "leaf-1")
    assert [s.name for s in plan.steps][3:5] == ["start", "fetched"]
    assert len(plan.step("start").if_needed) == 1

    def boots() -> None:
        until(lambda: FileMachine(path).read().power != "Off", 30)
        leaf.put("onie_mode", "install")
        leaf.put("reboot", "")

    thread = threading.Thread(target=boots)
    thread.start()
    run = reimage(made.site, "leaf-1")
    thread.join(30)
    assert run.status is RunStatus.succeeded, run.error
    started = next(s for s in site(made).store.steps(run.id) if s.name == "start")
    assert [r["method"] for r in started.evidence["requests"]]


def test_a_bmc_that_breaks_off_after_it_took_the_reset_is_not_asked_again_at_each_look(
    fabric: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second reset would hit ONIE in the middle of its start. Nobody believes the old proof from the first one on."""
    import threading

    from metalimmu.bmc.fake import FakeBmc
    from metalimmu.bmc.fake_machines import FileMachine
    from metalimmu.errors import BmcUnreachable
    from metalimmu.workflows import switch_steps

    made, path = fabric(boot="onie"), tmp_path / "leaf-1.json"
    leaf = switched_off(made, path)
    opened = site(made)
    opened.store.update_host("leaf-1", image="lab-nos@1", digest=digest(made, "lab-nos@1"), proof=Proof.proven)
    monkeypatch.setattr(switch_steps, "_UNSURE", 10_000.0)
    monkeypatch.setattr(switch_steps, "_PATIENCE", 0.0)
    asked: list[str] = []

    def boots() -> None:
        leaf.put("onie_mode", "install")
        leaf.put("reboot", "")

    thread = threading.Timer(1.0, boots)
    set_power = FakeBmc.set_power

    def breaks_off(bmc: FakeBmc, action: Any) -> None:
        set_power(bmc, action)
        if FileMachine(path).read().power == "Off":
            return  # a rehearsal, for the plan
        if not asked:
            thread.start()
        asked.append(f"{action} {opened.store.host('leaf-1').proof}")
        raise BmcUnreachable("the connection broke")

    monkeypatch.setattr(FakeBmc, "set_power", breaks_off)
    run = reimage(made.site, "leaf-1")
    thread.join(30)
    assert run.status is RunStatus.succeeded, run.error
    assert asked == ["On unproven"]


def test_a_switch_that_is_silent_and_on_may_carry_traffic(
    fabric: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its document may have the wrong address: it is not reset while its peer could not carry on."""
    from metalimmu.bmc.fake_machines import FileMachine
    from metalimmu.errors import GuardRefused
    from metalimmu.observed.machine import Machine
    from metalimmu.service.planning import check_seen

    made = fabric(boot="onie")
    leaf, peer = made.switches.values()
    path = tmp_path / "leaf-1.json"
    FileMachine(path).create(Machine(power="On", serial=leaf.serial))
    with_bmc(made, path)
    (leaf.root / "up").unlink()
    peer.put("bond-down", "")
    leaf.refresh()
    with pytest.raises(GuardRefused, match="down: bond2"):
        check_seen(plan_host(site(made), "leaf-1"))
    run = reimage(made.site, "leaf-1")
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert "down: bond2" in run.error.message
    (peer.root / "bond-down").unlink()
    leaf.refresh()

    def breaks() -> None:
        peer.put("bond-down", "")
        leaf.refresh()

    before(monkeypatch, "start", breaks)
    run = reimage(made.site, "leaf-1")
    assert run.error is not None
    assert "down: bond2" in run.error.message
    assert FileMachine(path).read().power == "On"
    assert not any("power" in str(s.evidence.get("requests", "")).lower() for s in site(made).store.steps(run.id))
    leaf.put("up", "")
    leaf.put("etc/os-release", "NAME=ONIE")  # it is in ONIE, and says so
    assert any("it carries nothing" in w for w in plan_host(site(made), "leaf-1").warnings)


def with_bmc(made: SwitchRack, path: Path) -> None:
    hosts = made.site / "hosts/leaves.yaml"
    text = hosts.read_text().replace("ssh://127.0.0.1:4001", f"fake://{path}")
    hosts.write_text(text.replace("peer: leaf-2", "peer: leaf-2\n    ssh: 127.0.0.1:4001"))
