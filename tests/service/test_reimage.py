"""A reimage on a fake BMC with a simulated machine: the good way, and each thing that goes wrong."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from drive import PACE, finish, reimage
from rack import Rack

from metalimmu.boot.agent_api import AgentApi
from metalimmu.boot.tokens import SiteKey
from metalimmu.errors import (
    BmcLoginRefused,
    HostProtected,
    IdentityMismatch,
    ImageError,
    ImageRevoked,
    LeaseHeld,
    MetalimmuError,
    NotFound,
    ReadOnlyMode,
)
from metalimmu.plan.reimage import MEDIA_URL
from metalimmu.service.hosts import power, power_status
from metalimmu.service.images import in_use
from metalimmu.service.planning import plan_host, rollback_image
from metalimmu.service.runs import cancel, submit
from metalimmu.service.site import OpenSite
from metalimmu.service.worker import Worker
from metalimmu.store.records import RunRecord, RunStatus
from metalimmu_emulator.simulated import inject

SHORT = {"power": "3s", "media": "3s", "check_in": "6s", "stall": "4s", "phone_home": "4s", "bmc": "4s"}


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return Rack(tmp_path, limits=SHORT)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def power_up(rack: Rack, stack: ExitStack, **faults: Any) -> Any:
    return rack.power_up(stack, pace=0.2, faults={"node-1": faults})["node-1"]


def site(rack: Rack) -> OpenSite:
    return OpenSite(rack.site)


def evidence(rack: Rack, run: RunRecord) -> dict[str, Any]:
    return {s.name: s.evidence for s in site(rack).store.steps(run.id)}


def sent(rack: Rack, run: RunRecord) -> list[tuple[str, str, Any]]:
    return [
        (r["method"], r["path"], _plain(r["body"]))
        for s in site(rack).store.steps(run.id)
        for r in s.evidence.get("requests", [])
    ]


def _plain(body: dict[str, Any]) -> dict[str, Any]:
    return {k: "URL" if k == "Image" else v for k, v in body.items()}


def test_version_1_then_2_then_back(rack: Rack, stack: ExitStack) -> None:
    machine = power_up(rack, stack)
    first = reimage(rack.site)
    assert first.status is RunStatus.succeeded, first.error
    second = reimage(rack.site, image="web@2")
    assert second.status is RunStatus.succeeded, second.error
    assert evidence(rack, second)["verify"]["report"]["fetched_chunks"] == 1  # only what differs
    image = rollback_image(site(rack), "node-1")
    assert image == "web@1"
    back = reimage(rack.site, image=image, verb="rollback")
    assert back.status is RunStatus.succeeded, back.error
    record = site(rack).store.host("node-1")
    assert (record.state, record.proof, record.image, record.previous_image) == ("active", "proven", "web@1", "web@2")
    proof = record.proof_evidence
    assert proof["check_in"]["serial"] == "S0001"
    assert proof["system"]["image_version"] == "1"
    assert proof["read_back"]
    assert proof["disks"]
    assert machine.machine().media["Cd"].image is None
    assert machine.machine().boot.enabled == "Disabled"
    assert machine.machine().generation == 1 + 3 * 2  # two boots each, not one more


def test_a_run_sends_what_its_plan_lists(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    plan = plan_host(site(rack), "node-1")
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error
    will = [(r.method, r.path, _plain(r.body)) for s in plan.steps for r in s.requests]
    may = [(r.method, r.path, _plain(r.body)) for s in plan.steps for r in s.if_needed]
    really = sent(rack, run)
    assert [r for r in really if r not in may] == will
    assert MEDIA_URL in str(plan.encode())


def test_planning_writes_nothing(rack: Rack) -> None:
    before = rack.machine("node-1")
    plan_host(site(rack), "node-1")
    after = rack.machine("node-1")
    assert (after.power, after.boot, after.media, after.generation) == (
        before.power,
        before.boot,
        before.media,
        before.generation,
    )


def test_proven_at_this_image_is_a_no_op_without_force(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    assert reimage(rack.site).status is RunStatus.succeeded
    plan = plan_host(site(rack), "node-1")
    assert plan.nothing
    assert "already proven" in plan.why
    assert not plan_host(site(rack), "node-1", force=True).nothing


MENDED = {
    "insert is accepted and does nothing, once": ("insert_media", "ignore", 1),
    "insert is refused because an earlier request did it": ("insert_media", "then:BmcRefused", 1),
    "BMC answers 503 for a while": ("*", "BmcBusy", 6),
    "BMC reboots in the middle of the reset": ("set_power", "then:BmcUnreachable", 1),
    "BMC reboots in the middle of the insert": ("insert_media", "then:BmcUnreachable", 1),
    "override is lost in POST": ("boot", "lost-override", 1),
    "firmware does not boot the media, once": ("boot", "unread", 1),
    "BMC is away while media is ejected": ("eject_media", "BmcUnreachable", 2),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_passes_is_waited_for(rack: Rack, stack: ExitStack, name: str) -> None:
    power_up(rack, stack)
    run = reimage(rack.site, planned=lambda: rack.fault("node-1", *MENDED[name]))
    assert run.status is RunStatus.succeeded, run.error


def test_a_reset_that_took_effect_is_not_asked_twice(rack: Rack, stack: ExitStack) -> None:
    machine = power_up(rack, stack)
    run = reimage(rack.site, planned=lambda: rack.fault("node-1", "set_power", "then:BmcUnreachable", 1))
    assert run.status is RunStatus.succeeded, run.error
    assert machine.machine().generation == 3


@pytest.mark.parametrize("word", ["network_cut", "crash", "clock"])
def test_the_machine_has_trouble_and_gets_there(rack: Rack, stack: ExitStack, word: str) -> None:
    power_up(rack, stack, **{word: "1" if word == "network_cut" else "100000000"})
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error


def test_a_machine_that_crashes_in_mid_write_does_not_start_over(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack, crash="")
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error
    report = evidence(rack, run)["verify"]["report"]
    assert report["kept_chunks"] >= 1, report


BROKEN: dict[str, tuple[tuple[str, str, int | None] | None, dict[str, str], str, str, bool]] = {
    # name: (fault of the BMC, faults of the machine, error, words, quarantine)
    "media is refused": (("insert_media", "BmcRefused", None), {}, "BmcRefused", "", False),
    "media is accepted and never inserted": (("insert_media", "ignore", None), {}, "StepTimeout", "insert", False),
    "override is accepted and never set": (("set_boot_override", "ignore", None), {}, "StepTimeout", "override", False),
    "media is never read": (("boot", "unread", None), {}, "StepTimeout", "not one byte", True),
    "BMC takes no reset": (("set_power", "BmcUnreachable", None), {}, "StepTimeout", "fault injected", True),
    "machine reads the media and never checks in": (
        None,
        {"no_check_in": ""},
        "StepTimeout",
        "bytes of the media were read",
        True,
    ),
    "another machine checks in": (None, {"wrong_serial": "S9999"}, "IdentityMismatch", "S9999", True),
    "no disk matches": (None, {"write_fails": "DiskSelectionError"}, "DiskSelectionError", "", True),
    "disk is too small": (None, {"write_fails": "DiskUnsuitable"}, "DiskUnsuitable", "", True),
    "foreign signatures on a second disk": (None, {"write_fails": "ForeignSignature"}, "ForeignSignature", "", True),
    "a chunk is corrupt on the server": (None, {"write_fails": "ChunkCorrupt"}, "ChunkCorrupt", "", True),
    "read-back differs": (None, {"read_back_differs": ""}, "ReadBackDiffers", "", True),
    "the system never reports": (None, {"no_report": ""}, "StepTimeout", "has not reported", True),
    "another system reports": (None, {"wrong_version": "0"}, "StepTimeout", "web@0", True),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_fails_says_so_and_is_cleaned_up(rack: Rack, stack: ExitStack, name: str) -> None:
    bmc, machine, code, words, quarantine = BROKEN[name]
    simulated = power_up(rack, stack, **machine)
    run = reimage(rack.site, planned=lambda: bmc and rack.fault("node-1", *bmc))
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert run.error.code == code, run.error
    assert words in run.error.message
    assert run.error.hint
    opened = site(rack)
    record = opened.store.host("node-1")
    assert record.proof == "unproven"
    assert (record.quarantine is not None) is quarantine
    if record.quarantine:
        assert record.quarantine.evidence["run"] == run.id
    state = simulated.machine()
    assert state.media["Cd"].image is None
    assert state.boot.enabled == "Disabled"
    lease = opened.store.lease("node-1")
    assert lease is None or lease.run is None
    assert opened.store.history("node-1")[-1].kind in ("quarantine", "failed")


def test_power_that_does_not_change(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    from metalimmu.bmc.connect import Address, connect
    from metalimmu.observed.types import PowerAction

    with connect(Address(bmc=f"fake://{rack.state('node-1')}"), mode="read-write") as bmc:
        bmc.set_power(PowerAction.force_off)
    rack.fault("node-1", "set_power", "ignore", None)
    run = reimage(rack.site)
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert run.error.code == "StepTimeout"
    assert "power is Off" in run.error.message


def test_a_bmc_that_stays_away(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    run = reimage(rack.site, planned=lambda: rack.fault("node-1", "*", "BmcUnreachable", None))
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert run.error.code == "BmcUnreachable"
    assert "power status" in run.error.hint
    assert site(rack).store.host("node-1").quarantine is None


def test_a_second_disk_image_never_boots_unproven_as_available(rack: Rack, stack: ExitStack) -> None:
    """Metal3 showed a host with its old system as available after a failed cleaning: ours is in quarantine until proven."""
    power_up(rack, stack, no_report="")
    assert reimage(rack.site).status is RunStatus.failed
    record = site(rack).store.host("node-1")
    assert record.state != "active"
    assert record.quarantine is not None
    assert record.image is None


def edit(rack: Rack, name: str, **fields: Any) -> None:
    import yaml

    path = rack.site / name
    document = yaml.safe_load(path.read_text())
    for one in document if isinstance(document, list) else [document]:
        one.update(fields)
    rack.write(name, document)


def test_another_machine_behind_the_bmc(rack: Rack) -> None:
    edit(rack, "hosts/rack.yaml", serial="OTHER")
    before = rack.machine("node-1").generation
    run = reimage(rack.site)
    assert run.error is not None
    assert run.error.code == "IdentityMismatch"
    assert "S0001" in run.error.message
    assert rack.machine("node-1").generation == before
    assert site(rack).store.host("node-1").quarantine is None


def test_wrong_password_is_tried_once(rack: Rack) -> None:
    import msgspec

    from metalimmu.bmc.fake_machines import FileMachine

    FileMachine(rack.state("node-1")).update(lambda m: msgspec.structs.replace(m, username="root", password="right"))
    secret = rack.site / "secret.yaml"
    secret.write_text("username: root\npassword: wrong\n")
    secret.chmod(0o600)
    edit(rack, "hosts/rack.yaml", credentials="file:secret.yaml")
    for _ in range(3):
        with pytest.raises(BmcLoginRefused) as caught:
            plan_host(site(rack), "node-1")
        assert caught.value.hint
    assert rack.machine("node-1").refused_logins == 1
    with pytest.raises(BmcLoginRefused):
        power_status(site(rack), "node-1", retry_login=True)
    assert rack.machine("node-1").refused_logins == 2


@pytest.mark.parametrize(
    ("options", "error"),
    [({"image": "web@9"}, NotFound), ({"image": "nonsense"}, MetalimmuError)],
)
def test_unknown_images(rack: Rack, options: dict[str, Any], error: type[MetalimmuError]) -> None:
    with pytest.raises(error) as caught:
        plan_host(site(rack), "node-1", **options)
    assert caught.value.hint


def test_unknown_host(rack: Rack) -> None:
    with pytest.raises(NotFound) as caught:
        plan_host(site(rack), "node-11")
    assert "node-1" in caught.value.hint


def test_an_image_for_another_architecture(rack: Rack) -> None:
    rack.image("arm@1", 4, architecture="aarch64")
    with pytest.raises(ImageError, match="aarch64"):
        plan_host(site(rack), "node-1", image="arm@1")


def test_a_revoked_image_is_deployed_nowhere(rack: Rack) -> None:
    site(rack).catalogue.revoke("web@1", "CVE-2026-1")
    with pytest.raises(ImageRevoked, match="CVE-2026-1"):
        plan_host(site(rack), "node-1")


def test_what_is_revoked_is_the_content_whatever_its_name(rack: Rack) -> None:
    catalogue = site(rack).catalogue
    shutil.copytree(catalogue.root / "catalogue/web/1", catalogue.root / "catalogue/aaa/1")
    assert catalogue.get("aaa@1").digest == catalogue.get("web@1").digest
    catalogue.revoke("web@1", "CVE-2026-1")
    with pytest.raises(ImageRevoked, match="aaa@1 is revoked: as web@1: CVE-2026-1"):
        plan_host(site(rack), "node-1", image="aaa@1")
    found = catalogue.by_digest(catalogue.get("aaa@1").digest)
    assert found
    assert found.revoked == "CVE-2026-1", "and a run that was planned before is refused"


def test_read_only_is_the_default_and_writes_nothing(rack: Rack) -> None:
    edit(rack, "site.yaml", mode="read-only")
    opened = site(rack)
    with pytest.raises(ReadOnlyMode):
        submit(opened, plan_host(opened, "node-1"))
    assert opened.store.runs() == []


def test_a_protected_host(rack: Rack) -> None:
    edit(rack, "hosts/rack.yaml", protected=True)
    opened = site(rack)
    plan = plan_host(opened, "node-1")
    for options in ({}, {"allow_protected": True}, {"reason": "because"}):
        with pytest.raises(HostProtected):
            submit(opened, plan, options=options)
    assert opened.store.runs() == []
    submit(opened, plan, options={"allow_protected": True, "reason": "it was agreed"})


def test_a_second_reimage_of_one_host_is_refused_and_says_whose_the_first_is(rack: Rack) -> None:
    opened = site(rack)
    plan = plan_host(opened, "node-1")
    first = submit(opened, plan)
    with pytest.raises(LeaseHeld, match=first.id):
        submit(opened, plan)


def test_an_undefined_variable_is_found_before_a_machine_is_touched(rack: Rack) -> None:
    (rack.site / "templates").mkdir()
    (rack.site / "templates" / "user-data.j2").write_text("#cloud-config\nhostname: {{ nam }}\n")
    edit(rack, "roles/web.yaml", config={"user-data": "user-data.j2"})
    with pytest.raises(MetalimmuError) as caught:
        plan_host(site(rack), "node-1")
    assert "nam" in caught.value.message + " ".join(getattr(caught.value, "problems", ()))
    assert rack.machine("node-1").generation == 1


def test_an_imported_image_proves_itself_by_phoning_home(rack: Rack, stack: ExitStack) -> None:
    """cloud-init's phone_home, as its form posts it: in the clear, to an address that only this deployment's config has."""
    edit(rack, "roles/web.yaml", proof={"by": "phone_home"})
    machine = power_up(rack, stack, no_report="")

    def cloud_init() -> None:
        import urllib.parse
        import urllib.request

        import yaml

        deadline = time.monotonic() + 60
        while "user-data" not in machine.disk.seed or not machine.disk.complete:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "metalimmu.json" not in machine.disk.seed
        url = yaml.safe_load(machine.disk.seed["user-data"])["phone_home"]["url"]
        instance = yaml.safe_load(machine.disk.seed["meta-data"])["instance-id"]
        form = urllib.parse.urlencode({"instance_id": instance, "hostname": "node-1"}).encode()
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, form, timeout=5):
                    return
            except OSError:  # 404 before go
                time.sleep(0.1)

    thread = threading.Thread(target=cloud_init, daemon=True)
    thread.start()
    run = reimage(rack.site)
    thread.join(60)
    assert run.status is RunStatus.succeeded, run.error
    proof = site(rack).store.host("node-1").proof_evidence
    assert proof["proof_by"] == "phone_home"
    assert "phoned home" in proof["system"]["note"]


def test_without_a_proof_it_is_active_and_unproven(rack: Rack, stack: ExitStack) -> None:
    edit(rack, "roles/web.yaml", proof={"by": "none"})
    power_up(rack, stack)
    assert reimage(rack.site).status is RunStatus.succeeded
    record = site(rack).store.host("node-1")
    assert (record.state, record.proof) == ("active", "unproven")


def age(rack: Rack, seconds: float) -> None:
    """As if the controller had been away for so long."""
    store = site(rack).store
    (run,) = [r for r in store.runs() if r.status is not RunStatus.succeeded]
    d = store.deployment(run.id)
    fields = {
        k: getattr(d, k) - seconds
        for k in ("intent_at", "last_seen", "progressed", "checked_in", "created")
        if getattr(d, k)
    }
    store.update_deployment(run.id, **fields)


def test_a_controller_that_was_away_for_a_day_resumes_without_touching_the_machine(
    rack: Rack, stack: ExitStack
) -> None:
    machine = power_up(rack, stack, network_cut="8")
    opened = site(rack)
    run = submit(opened, plan_host(opened, "node-1"))
    worker = Worker(opened, pace=PACE)
    worker.try_start()
    deadline = time.monotonic() + 60
    while not any(s.name == "write" for s in opened.store.steps(run.id)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker.stop()
    age(rack, 86400.0)
    (done,) = finish(opened, [run.id])
    assert done.status is RunStatus.succeeded, done.error
    assert machine.machine().generation == 3  # no reset but the one that was asked


def test_a_post_may_take_longer_than_a_write_may_stand_still(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes of POST are usual; the write that follows has not stood still for as long."""
    progress = AgentApi.progress

    async def later(self: AgentApi, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.5)  # the write is looked at before anything is heard of it
        return await progress(self, request)

    monkeypatch.setattr(AgentApi, "progress", later)
    rack = Rack(tmp_path, limits={**SHORT, "check_in": "60s", "stall": "3s"})
    post = threading.Timer(5, lambda: rack.power_up(stack, pace=0.2))
    run = reimage(rack.site, planned=post.start)
    post.join(60)
    assert run.status is RunStatus.succeeded, run.error


def test_a_failure_of_a_proven_host_takes_its_proof(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    assert reimage(rack.site).status is RunStatus.succeeded
    assert (
        reimage(rack.site, image="web@2", planned=lambda: rack.fault("node-1", "boot", "unread", None)).status
        is RunStatus.failed
    )
    record = site(rack).store.host("node-1")
    assert record.proof == "unproven"
    assert record.image == "web@1"  # nothing was written
    assert record.quarantine is not None


def test_the_way_back_survives_a_failed_attempt(rack: Rack, stack: ExitStack) -> None:
    machine = power_up(rack, stack)
    assert reimage(rack.site).status is RunStatus.succeeded
    inject(machine._state, "no-report", "", times=1)
    assert reimage(rack.site, image="web@2").status is RunStatus.failed
    assert site(rack).store.host("node-1").image is None
    assert reimage(rack.site, image="web@2").status is RunStatus.succeeded
    assert rollback_image(site(rack), "node-1") == "web@1"
    assert any("could go back" in why for whys in in_use(site(rack)).values() for why in whys)
    inject(machine._state, "no-report", "", times=1)
    assert reimage(rack.site, image="web@1", verb="rollback").status is RunStatus.failed
    assert rollback_image(site(rack), "node-1") == "web@1"  # and not the version that one flees from


def test_a_bmc_that_reads_the_media_when_it_is_inserted(
    rack: Rack, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes are evidence, and decide nothing."""
    import urllib.request

    from metalimmu.bmc.fake import FakeBmc

    machine = power_up(rack, stack)
    insert = FakeBmc.insert_media

    def curious(self: FakeBmc, slot: Any, url: str) -> None:
        if "http" in url and self._rehearsal is None:
            with urllib.request.urlopen(url, timeout=10) as answer:
                answer.read(65536)
        insert(self, slot, url)

    monkeypatch.setattr(FakeBmc, "insert_media", curious)
    run = reimage(rack.site)
    assert run.status is RunStatus.succeeded, run.error
    assert evidence(rack, run)["power"]["requests"]
    assert machine.machine().generation == 3


def test_one_bad_run_does_not_stop_the_site(tmp_path: Path, stack: ExitStack) -> None:
    rack = Rack(tmp_path, hosts=2, limits=SHORT)
    rack.power_up(stack)
    opened = site(rack)
    plan = plan_host(opened, "node-1")
    bad = submit(opened, plan)
    broken = plan.encode()
    broken["steps"][3]["name"] = "gone"
    opened.store.set_run(bad.id, plan=broken)
    good = submit(opened, plan_host(opened, "node-2"))
    first, second = finish(opened, [bad.id, good.id])
    assert first.status is RunStatus.failed
    assert first.error is not None
    assert "gone" in first.error.message
    assert second.status is RunStatus.succeeded, second.error
    assert opened.store.host("node-1").quarantine is not None
    assert opened.store.lease("node-1") is None or opened.store.lease("node-1").run is None  # type: ignore[union-attr]


def test_cancel_cleans_up(rack: Rack, stack: ExitStack) -> None:
    machine = power_up(rack, stack, no_check_in="")
    opened = site(rack)
    run = submit(opened, plan_host(opened, "node-1"))

    def when_waiting() -> None:
        deadline = time.monotonic() + 60
        while not any(s.name == "check-in" for s in OpenSite(rack.site).store.steps(run.id)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cancel(OpenSite(rack.site), run.id)

    thread = threading.Thread(target=when_waiting, daemon=True)
    thread.start()
    (done,) = finish(opened, [run.id])
    thread.join(60)
    assert done.status is RunStatus.cancelled
    assert machine.machine().media["Cd"].image is None
    assert opened.store.host("node-1").quarantine is not None


def test_no_token_is_kept_or_shown(rack: Rack, stack: ExitStack) -> None:
    power_up(rack, stack)
    run = reimage(rack.site)
    opened = site(rack)
    key = SiteKey.at(opened.state / "tls" / "site.key")
    secrets = [key.secret(kind, run.id) for kind in ("agent", "proof", "media", "chunk")]  # type: ignore[arg-type]
    assert opened.state.stat().st_mode & 0o777 == 0o700
    for file in opened.state.glob("*.sqlite*"):
        assert file.stat().st_mode & 0o077 == 0, file
        content = file.read_bytes()
        assert not [s for s in secrets if s.encode() in content], file


def test_power_is_not_for_a_machine_that_is_another_ones(rack: Rack) -> None:
    edit(rack, "hosts/rack.yaml", serial="OTHER")
    with pytest.raises(IdentityMismatch, match="S0001"):
        power(site(rack), "node-1", "off")
    assert rack.machine("node-1").power == "On"
