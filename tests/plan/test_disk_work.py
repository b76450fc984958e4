"""What a plan tells the agent about disks."""

from __future__ import annotations

from test_plan_reimage import planned

from metalimmu.plan import disk_work
from metalimmu.wire import codec
from metalimmu.wire.messages import Assignment, BurnIn, Erase, RootDisk, Salvage, asked

SPEC = {
    "mirrored": True,
    "mirror": {"serial": "S2"},
    "keep": [{"serial": "D1"}, {"min_size": 10**13}],
    "erase": [
        {"disk": "root", "how": "ata"},
        {"disk": {"serial": "S3", "max_size": "1TB"}, "how": "overwrite", "when": "after"},
    ],
    "salvage": {"paths": ["/var/log"], "limit": "500MB", "required": True},
    "burn_in": {"cpu": "2m", "memory": "0s", "min_disk": "200MB/s", "min_size": "64GiB", "min_cpus": 8},
}


def test_documents_become_an_assignment_that_survives_the_wire() -> None:
    work = disk_work.work(planned({"spec": SPEC}))
    made = Assignment("d", 1, "write", "web@2", "sha256:x", "", "", "", (), RootDisk(), **work)
    assert made.keep == (RootDisk(serial="D1"), RootDisk(min_size=10**13))
    assert (made.mirrored, made.mirror) == (True, RootDisk(serial="S2"))
    assert made.erase == (
        Erase(None, "ata", "before"),
        Erase(RootDisk(serial="S3", max_size=10**12), "overwrite", "after"),
    )
    assert made.salvage == Salvage(("/var/log",), 500_000_000, required=True)
    assert made.burn_in == BurnIn(120, 0, 15, 10, min_disk=2e8, min_bytes=64 << 30, min_cpus=8)
    assert codec.decode(Assignment, codec.encode(made)) == made
    assert asked(made) == ("keep", "mirror", "erase", "salvage", "burn-in")


def test_nothing_asked_is_nothing_said() -> None:
    work = disk_work.work(planned({}))
    made = Assignment("d", 1, "write", "web@2", "sha256:x", "", "", "", (), RootDisk(), **work)
    assert made == Assignment("d", 1, "write", "web@2", "sha256:x", "", "", "", (), RootDisk())
    assert asked(made) == ()


def test_a_burn_in_that_the_plan_leaves_out_is_not_asked_for() -> None:
    memory = {"state": "active", "proof": "proven", "image": "web@1", "digest": "sha256:" + "1" * 64}
    assert disk_work.work(planned({"spec": {"burn_in": {}}, "memory": memory}))["burn_in"] is None


def test_the_plan_says_what_it_will_do() -> None:
    plan = planned({"spec": SPEC})
    assert plan.step("burn-in").calls == ("cpu 2m, disk 15s, network 10s",)
    assert plan.step("burn-in").seconds == 145.0
    assert plan.step("erase").calls == ("root disk: ata",)
    assert plan.step("erase-after").calls == ("serial S3, max_size 1TB: overwrite",)
    assert plan.step("salvage").calls == ("/var/log: at most 500MB",)
    assert all(plan.step(n).stall == 600 for n in ("burn-in", "salvage", "erase", "erase-after"))
