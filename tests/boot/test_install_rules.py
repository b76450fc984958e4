"""What installers are told, case by case; the kernel's command line; and the same over HTTP."""

from __future__ import annotations

import dataclasses

import pytest
from boot_rig import Rig
from test_rules import UUID

from metalimmu.boot import install_rules, kernel_args
from metalimmu.boot.install_rules import ANEW, ATTEMPTS
from metalimmu.errors import ImageError, NotFound
from metalimmu.store.records import DeploymentRecord
from metalimmu.wire.messages import Assignment, RootDisk

NOW = 1000.0


def deployment(**fields) -> DeploymentRecord:
    assignment = Assignment(
        deployment="d1", fence=1, stage="done", image="debian@12", digest="sha256:" + "0" * 64, chunk_base="", serial="SN1", uuid=UUID, nics=(),
        root_disk=RootDisk(), host="n1",
    )  # fmt: skip
    given = {
        "id": "d1", "run": "d1", "host": "n1", "token_hash": "", "proof_hash": "", "media_hash": "", "chunk_hash": "", "assignment": assignment,
        "fence": 1, "kind": "installer", **fields,
    }  # fmt: skip
    return DeploymentRecord(**given)


def after(d: DeploymentRecord, told: install_rules.Told) -> DeploymentRecord:
    import msgspec

    return msgspec.structs.replace(d, **told.changes)


def test_answers_are_counted_once_for_each_boot() -> None:
    d = deployment()
    for at in (0.0, 1.0, ANEW - 1):  # Anaconda asks twice, and its initrd before it
        d = after(d, install_rules.asked(d, "ks.cfg", NOW + at, main=True))
    assert d.fetches == 1
    d = after(d, install_rules.asked(d, "begin", NOW + 2 * ANEW, main=False))
    assert d.fetches == 1
    d = after(d, install_rules.asked(d, "ks.cfg", NOW + 3 * ANEW, main=True))
    assert d.fetches == 2
    assert list(d.fetched) == ["ks.cfg", "begin"]


def test_an_installer_that_begins_again_and_again_is_stopped() -> None:
    d = deployment()
    for boot in range(ATTEMPTS):
        told = install_rules.asked(d, "preseed.cfg", NOW + boot * 600, main=True)
        assert told.status == 200
        d = after(d, told)
    told = install_rules.asked(d, "preseed.cfg", NOW + ATTEMPTS * 600, main=True)
    assert told.status == 409
    failure = after(d, told).failure
    assert failure is not None
    assert "begun 3 times" in failure.message


def test_only_the_machine_that_is_meant_may_begin() -> None:
    d = deployment()
    told = install_rules.begins(d, "SN2", UUID, NOW)
    assert told.status == 409
    refused = after(d, told)
    assert refused.refusal is not None
    assert refused.refusal.code == "IdentityMismatch"
    assert refused.fetched == {}
    assert install_rules.begins(d, "", UUID, NOW).status == 409
    assert install_rules.begins(d, "SN1", "11112233-4455-6677-8899-aabbccddeeff", NOW).status == 409
    told = install_rules.begins(refused, " SN1 ", "33221100-5544-7766-8899-AABBCCDDEEFF", NOW)  # the other byte order
    assert (told.status, told.words) == (200, "go")
    assert after(refused, told).refusal is None


def test_it_restarts_when_its_media_are_out_and_not_before() -> None:
    d = after(deployment(), install_rules.finishes(deployment(), NOW))
    assert install_rules.finishes(d, NOW).status == 503
    assert d.finished == NOW
    d = after(d, dataclasses.replace(install_rules.finishes(d, NOW), changes={"go": True}))
    told = install_rules.finishes(d, NOW + 9)
    assert told.status == 200
    done = after(d, told)
    assert (done.finished, done.went) == (NOW, NOW + 9)


@pytest.mark.parametrize("over", [{"ended": NOW}, {"finished": NOW}, {"stop": "the run has ended"}])
def test_what_is_over_has_no_answers(over) -> None:
    d = deployment(**over)
    answers = (
        install_rules.asked(d, "preseed.cfg", NOW, main=True),
        install_rules.begins(d, "SN1", UUID, NOW),
        install_rules.fails(d, "x", NOW),
        install_rules.says(d, "partitioning", NOW),
    )
    assert {a.status for a in answers} == {409 if "stop" in over else 404}
    assert not any(a.changes for a in answers)


def test_words_of_a_failure_are_clean_and_the_first_counts() -> None:
    d = after(deployment(), install_rules.fails(deployment(), "no \x1b[31mdisk", NOW))
    assert d.failure is not None
    assert "\x1b" not in d.failure.message
    assert after(d, install_rules.fails(d, "other", NOW)).failure == d.failure


def test_an_installer_cannot_fill_the_record() -> None:
    d = deployment()
    for i in range(200):
        d = after(d, install_rules.says(d, f"p{i}", NOW + i))
    assert len(d.fetched) == 64


# kernel arguments


def test_words_in_order_and_each_once() -> None:
    assert kernel_args.words("a=1  quiet\n", "", "b quiet") == ("a=1", "quiet", "b")


@pytest.mark.parametrize("text", ["a='b'", 'a="b"', "a=\\b", "a=\x07", "a" * 2048])
def test_what_no_command_line_takes(text: str) -> None:
    with pytest.raises(ImageError):
        kernel_args.words(text)


def test_grubs_commands_fill_their_slot() -> None:
    slot = kernel_args.grub(("a=1", "ds=nocloud-net;s=http://x/"), 200, second=False)
    assert slot.rstrip(b"\n") == (b"linux /boot/vmlinuz 'a=1' 'ds=nocloud-net;s=http://x/'\ninitrd /boot/initrd")
    assert len(slot) == 200
    assert b"/boot/initrd /boot/slot.cpio\n" in kernel_args.grub((), 200, second=True)
    with pytest.raises(ImageError, match="room for 10"):
        kernel_args.grub(("a",), 10, second=False)


def test_a_seed_fills_its_slot() -> None:
    archive = kernel_args.second_initrd({"meta-data": "x\n"}, {"bin/x": "#!/bin/sh\n"}, 4096)
    assert len(archive) == 4096
    assert b"metalimmu/seed/meta-data\0" in archive
    assert b"bin/x\0" in archive
    with pytest.raises(ImageError, match="room for 4096"):
        kernel_args.second_initrd({"user-data": "x" * 5000}, {}, 4096)


# over HTTP


@pytest.fixture
def installing(rig: Rig) -> Rig:
    files = {"preseed.cfg": "d-i\n", "begin": "#!/bin/sh\n"}

    def answer(_deployment, name: str) -> tuple[str, bool]:
        if name not in files:
            raise NotFound(name)
        return files[name], name == "preseed.cfg"

    rig.answer = answer  # type: ignore[attr-defined]  # Content's
    rig.deploy("n1", rig.images.add("debian", "12"), image="debian@12", kind="installer", intent="On asked")
    return rig


def get(rig: Rig, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    connection = rig.plain()
    try:
        connection.request(method, f"/i/{rig.key.secret('answers', 'n1')}/{path}", body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_from_its_first_question_to_its_last_word(installing: Rig) -> None:
    rig = installing
    assert get(rig, "preseed.cfg") == (200, b"d-i\n")
    assert get(rig, "say/begin?serial=other")[0] == 409
    assert get(rig, "say/begin?serial=SN-n1") == (200, b"go\n")
    assert get(rig, "say/partitioning") == (200, b"heard\n")
    assert get(rig, "say/finished")[0] == 503
    rig.store.update_deployment("n1", go=True)
    assert get(rig, "say/finished", "POST") == (200, b"go\n")
    assert get(rig, "preseed.cfg")[0] == 404  # it may have secrets, and nobody needs it any more
    d = rig.store.deployment("n1")
    assert list(d.fetched) == ["preseed.cfg", "begin", "at partitioning"]
    assert d.went


def test_why_it_failed(installing: Rig) -> None:
    assert get(installing, "say/failed", "POST", b"no disk fits")[0] == 200
    failure = installing.store.deployment("n1").failure
    assert failure is not None
    assert failure.message == "the installer says: no disk fits"


@pytest.mark.parametrize("path", ["other.cfg", "..", "say/", "say/..", "say/BEGIN", ".hidden", "a" * 80, "x/y/z"])
def test_nothing_else_is_there(installing: Rig, path: str) -> None:
    assert get(installing, path) == (404, b"")


def test_other_secrets_open_nothing(installing: Rig) -> None:
    connection = installing.plain()
    for kind in ("agent", "proof", "media", "chunk"):
        connection.request("GET", f"/i/{installing.key.secret(kind, 'n1')}/preseed.cfg")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (404, b"")
    connection.close()


def test_a_machine_phones_home_with_its_serial(installing: Rig) -> None:
    rig = installing
    path = f"/p/{rig.key.secret('proof', 'n1')}"
    connection = rig.plain()
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    def post(body: str) -> int:
        connection.request("POST", path, body=body.encode(), headers=form)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    assert post("instance_id=n1-n1&hostname=n1&serial=SN-n1") == 404  # it was not told to restart yet
    rig.store.update_deployment("n1", went=1.0)
    assert post("instance_id=n1-n1&hostname=n1&serial=SN-n2") == 200
    assert "its serial is SN-n2" in rig.store.deployment("n1").system_why
    assert post("instance_id=n1-n1&hostname=n1&serial=SN-n1") == 200
    assert rig.store.deployment("n1").system_ok
    connection.close()
