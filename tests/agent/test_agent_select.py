"""Which disk is what: decided from hints alone, and refused wherever it is not certain."""

from __future__ import annotations

from dataclasses import replace

import pytest
from agent_rig import assignment

from metalimmu.agent.select import select
from metalimmu.errors import AgentError, DiskKept, DiskSelectionError, DiskUnsuitable
from metalimmu.wire.messages import Disk, Erase, RootDisk

GB = 10**9


@pytest.fixture
def asked(image):
    def make(**fields):
        return assignment(image, **fields)

    return make


def disk(name: str, size: int = 500, **fields) -> Disk:
    return Disk(f"/dev/{name}", size * GB, **({"serial": f"S-{name}", "model": "PM983", "transport": "sata"} | fields))


def hints(**fields) -> RootDisk:
    return RootDisk(**fields)


A, B, C = disk("sda"), disk("sdb"), disk("sdc", 4000, model="Exos", rotational=True)
DISKS = (A, B, C)
ROOT = hints(serial="S-sda")


def test_one_disk_is_the_root_and_nothing_else_happens(asked):
    roles = select(DISKS, asked(root_disk=ROOT))
    assert (roles.root, roles.mirror, roles.kept, roles.erase, roles.written) == (A, None, (), (), (A,))


def test_a_kept_disk_is_no_candidate_so_the_other_one_is_chosen(asked):
    roles = select((A, B), asked(keep=(hints(serial="S-sdb"),)))
    assert (roles.root, [d.path for d in roles.kept]) == (A, ["/dev/sdb"])
    assert [d.unusable for d in roles.all] == ["", "to be kept"]


def test_hints_of_keep_may_fit_many(asked):
    roles = select(DISKS, asked(root_disk=ROOT, keep=(hints(rotational=True), hints(serial="S-sdb"))))
    assert [d.path for d in roles.kept] == ["/dev/sdc", "/dev/sdb"]


def test_a_disk_that_cannot_be_used_is_kept_all_the_same(asked):
    """The agent was started again: the kernel says read-only, as it was told."""
    roles = select((A, replace(B, read_only=True, unusable="read-only")), asked(keep=(hints(serial="S-sdb"),)))
    assert [d.path for d in roles.kept] == ["/dev/sdb"]


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"keep": (hints(serial="GONE"),)}, DiskSelectionError, "keep (serial=GONE): no disk fits"),
        ({"keep": (hints(),)}, DiskSelectionError, "no hints"),
        ({"keep": (ROOT,)}, DiskSelectionError, "to be kept"),
        ({"erase": (Erase(hints(serial="S-sdb")),), "keep": (hints(serial="S-sdb"),)}, DiskKept, "names /dev/sdb"),
        ({"erase": (Erase(hints(min_size=1)),), "keep": (hints(serial="S-sdb"),)}, DiskKept, "names /dev/sdb"),
        ({"erase": (Erase(hints(min_size=1)),)}, DiskSelectionError, "3 disks"),
        ({"erase": (Erase(hints()),)}, DiskSelectionError, "without hints"),
        ({"erase": (Erase(hints(serial="S-sdx")),)}, DiskSelectionError, "no disk of 3"),
        ({"erase": (Erase(ROOT),)}, DiskUnsuitable, "disk: root"),
        ({"erase": (Erase(None, when="after"),)}, DiskUnsuitable, "after the image"),
        ({"mirrored": True}, DiskSelectionError, "a mirror needs two disks that fit root_disk (serial=S-sda), 1 do"),
        ({"mirrored": True, "mirror": ROOT}, DiskSelectionError, "the root disk itself"),
        ({"mirrored": True, "mirror": hints(serial="S-4k")}, DiskUnsuitable, "sectors of 512"),
    ],
)
def test_what_is_not_certain_is_refused(asked, fields, error, text):
    disks = DISKS if "S-4k" not in repr(fields) else (*DISKS, disk("sdd", serial="S-4k", logical_sector=4096))
    with pytest.raises(error) as raised:
        select(disks, asked(**({"root_disk": ROOT} | fields)))
    assert text in raised.value.message
    assert isinstance(raised.value, AgentError)


def test_a_mirror_by_hints_that_fit_two_or_by_a_second_name(asked):
    both = select(DISKS, asked(root_disk=hints(model="PM983"), mirrored=True))
    named = select(DISKS, asked(root_disk=ROOT, mirrored=True, mirror=hints(serial="S-sdc")))
    assert [d.path for d in both.written] == ["/dev/sda", "/dev/sdb"]
    assert [d.path for d in named.written] == ["/dev/sda", "/dev/sdc"]


def test_erasing_the_root_means_both_halves(asked):
    roles = select(
        DISKS,
        asked(
            root_disk=hints(model="PM983"),
            mirrored=True,
            erase=(Erase(None), Erase(hints(model="Exos"), "zero", "after")),
        ),
    )
    assert [[d.path for d in disks] for _, disks in roles.erase] == [["/dev/sda", "/dev/sdb"], ["/dev/sdc"]]
