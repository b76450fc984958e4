"""Signatures under a plan: real keys, real ssh-keygen."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
from signing import allow, key, line, signed

from metalimmu.errors import NotApproved, PlanError, ToolError, UsageError
from metalimmu.plan.saved import Author, Saved, encode
from metalimmu.service.saved_plans import approvals, ssh
from metalimmu.service.saved_plans.approvals import Approvals, Signers, add, beside, read, require

DIGEST = "sha256:" + "ab" * 32


class People:
    def __init__(self, folder: Path) -> None:
        self.site = folder / "site"
        self.site.mkdir()
        self.file = folder / "fleet.plan"
        self.keys = {n: key(folder / "keys", n) for n in ("alice", "bob", "carol", "mallory")}
        allow(self.site, *(self.keys[n] for n in ("alice", "bob", "carol")))

    def signers(self) -> Signers:
        return Signers(self.site)

    def add(self, name: str, digest: str = DIGEST) -> str:
        return add(self.file, digest, self.keys[name], self.signers())

    def read(self, digest: str = DIGEST) -> Approvals:
        return read(self.file, digest, self.signers())


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(tmp_path)


def test_signed_and_verified(people: People) -> None:
    assert people.read() == Approvals()
    assert people.add("alice") == "alice@example.org"
    assert people.add("bob") == "bob@example.org"
    assert people.read().people == ("alice@example.org", "bob@example.org")
    assert people.read().problems == ()


def test_ssh_keygen_itself_takes_what_we_write(people: People, tmp_path: Path) -> None:
    people.add("alice")
    done = subprocess.run(
        ["ssh-keygen", "-Y", "verify", "-f", str(people.site / "allowed_signers"), "-I", "alice@example.org", "-n", "metalimmu-plan",
         "-s", str(beside(people.file))],
        input=f"{DIGEST}\n".encode(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_we_take_what_was_signed_by_hand(people: People) -> None:
    beside(people.file).write_text(signed(DIGEST, people.keys["bob"]) + "\n" + signed(DIGEST, people.keys["carol"]))
    assert people.read().people == ("bob@example.org", "carol@example.org")


def test_twice_is_once(people: People) -> None:
    people.add("alice")
    assert people.add("alice") == ""
    beside(people.file).write_text(beside(people.file).read_text() * 3)
    assert people.read().people == ("alice@example.org",)


def test_many_sign_at_the_same_time(people: People) -> None:
    threads = [threading.Thread(target=people.add, args=(n,)) for n in ("alice", "bob", "carol")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(people.read().people) == {"alice@example.org", "bob@example.org", "carol@example.org"}


def problem(people: People) -> str:
    found = people.read()
    assert found.people == ()
    [text] = found.problems
    return text


def test_a_signature_of_another_plan(people: People) -> None:
    beside(people.file).write_text(signed("sha256:" + "00" * 32, people.keys["bob"]))
    assert "another digest" in problem(people)
    assert "bob@example.org" in problem(people)


def test_a_signature_made_for_something_else(people: People) -> None:
    beside(people.file).write_text(signed(DIGEST, people.keys["bob"], namespace="file"))
    assert problem(people).endswith("it was made for 'file', not for metalimmu-plan")


def test_a_removed_signer(people: People) -> None:
    people.add("bob")
    allow(people.site, people.keys["alice"])
    assert "does not have its key (any more)" in problem(people)
    assert "SHA256:" in problem(people)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ('valid-before="20200101"', "key has expired"),
        ('valid-after="20990101"', "key is not yet valid"),
        ('namespaces="git,file"', "key is not permitted for use in signature namespace"),
    ],
)
def test_options_of_a_signer(people: People, options: str, said: str) -> None:
    people.add("bob")
    (people.site / "allowed_signers").write_text(line(people.keys["bob"], options=options))
    assert said in problem(people)
    with pytest.raises(NotApproved, match=said):
        people.add("bob")


def test_a_key_that_is_valid_now(people: People) -> None:
    options = 'namespaces="metalimmu-plan",valid-after="20200101",valid-before="20990101"'
    (people.site / "allowed_signers").write_text(line(people.keys["bob"], options=options))
    people.add("bob")
    assert people.read().people == ("bob@example.org",)


def test_a_stranger_signs_nothing(people: People) -> None:
    with pytest.raises(NotApproved, match="would not count") as raised:
        people.add("mallory")
    assert "allowed_signers" in raised.value.hint
    assert not beside(people.file).exists()
    beside(people.file).write_text(signed(DIGEST, people.keys["mallory"]))
    assert "does not have its key" in problem(people)


def test_one_person_with_several_keys_and_names_counts_once(people: People) -> None:
    (people.site / "allowed_signers").write_text(
        line(people.keys["alice"], names="alice@a")
        + line(people.keys["bob"], names="alice@b,alice@a")
        + line(people.keys["carol"], names="carol@a")
        + line(people.keys["carol"], names="dave@a")
    )
    for name in ("bob", "alice", "carol"):
        people.add(name)
    assert people.read().people == ("alice@a", "carol@a")


def test_a_good_signature_beside_a_bad_one(people: People) -> None:
    beside(people.file).write_text(signed("sha256:" + "00" * 32, people.keys["bob"]))
    people.add("bob")
    assert people.read() == Approvals(
        people=("bob@example.org",), text=ssh.signatures(beside(people.file).read_text())[1].text
    )


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "-----BEGIN SSH SIGNATURE-----\n!!!!\n-----END SSH SIGNATURE-----\n",
        "-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n",
        "-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAf////8=\n-----END SSH SIGNATURE-----\n",
        "-----BEGIN SSH SIGNATURE-----\n" * 1000,
        "\x00\x1b[2J" * 100,
    ],
)
def test_what_is_no_signature(people: People, text: str) -> None:
    beside(people.file).write_text(text)
    assert "holds no signature" in problem(people)


def test_a_flipped_bit_of_a_signature(people: People) -> None:
    people.add("bob")
    lines = beside(people.file).read_text().splitlines()
    lines[4] = lines[4][:10] + ("A" if lines[4][10] != "A" else "B") + lines[4][11:]
    beside(people.file).write_text("\n".join(lines))
    assert "does not count" in problem(people)


def test_too_many_and_too_large(people: People) -> None:
    beside(people.file).write_text(signed(DIGEST, people.keys["mallory"]) * 80)
    found = people.read()
    assert any("80 signatures" in p for p in found.problems)
    beside(people.file).write_text("x" * (1 << 20) + "y")
    with pytest.raises(PlanError, match="larger than"):
        people.read()


def plan(tmp_path: Path, author: str) -> Saved:
    from saved_rig import content

    made = content(tmp_path / "docs", author=Author(name=author))
    return Saved(content=made, digest=encode(made)[0])


@pytest.mark.parametrize(
    ("wanted", "signers", "good"),
    [
        (0, (), True),
        (1, (), False),
        (1, ("alice@example.org",), False),  # the author alone
        (1, ("bob@example.org",), False),  # whose plan is it? it may be bob's
        (1, ("alice@example.org", "bob@example.org"), True),
        (1, ("bob@example.org", "carol@example.org"), True),  # one of them at least is another one than the author
        (2, ("alice@example.org", "bob@example.org"), False),
        (2, ("alice@example.org", "bob@example.org", "carol@example.org"), True),
    ],
)
def test_how_many_are_enough(tmp_path: Path, wanted: int, signers: tuple[str, ...], good: bool) -> None:
    saved = plan(tmp_path, "alice@example.org")
    if good:
        require(saved, Approvals(people=signers), wanted, ("web",))
        return
    with pytest.raises(NotApproved, match="pool web wants this plan signed by its author and") as raised:
        require(saved, Approvals(people=signers, problems=("why",)), wanted, ("web",))
    assert raised.value.problems == ("why",)
    assert "metalimmu approve" in raised.value.hint


def test_a_name_that_was_made_up_helps_nobody(tmp_path: Path) -> None:
    """Bob makes a plan as `alice`, and approves it."""
    with pytest.raises(NotApproved, match="signed by bob"):
        require(plan(tmp_path, "alice@example.org"), Approvals(people=("bob@example.org",)), 1, ("web",))


def test_keys_that_cannot_be_used(people: People, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no key"):
        add(people.file, DIGEST, tmp_path / "nowhere", people.signers())
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ToolError, match="could not sign"):
        add(people.file, DIGEST, tmp_path / "text", people.signers())
    (tmp_path / "x.pub").write_text("hello")
    with pytest.raises(UsageError, match="no public key"):
        ssh.public_key(tmp_path / "x.pub")


def test_the_public_half_of_a_key(people: People) -> None:
    whole = ssh.public_key(people.keys["alice"])
    people.keys["alice"].with_name("alice.pub").rename(people.site / "a.pub")
    assert ssh.public_key(people.keys["alice"]) == whole
    assert ssh.public_key(people.site / "a.pub") == whole
    said = subprocess.run(["ssh-keygen", "-l", "-f", str(people.site / "a.pub")], capture_output=True, check=True)
    assert ssh.fingerprint(whole) in said.stdout.decode()


def test_without_ssh_keygen(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    people.add("alice")
    monkeypatch.setenv("PATH", str(people.site))
    for act in (lambda: people.add("bob"), people.read):
        with pytest.raises(ToolError) as raised:
            act()
        assert raised.value.hint == "apt-get install openssh-client"


def test_ssh_keygen_that_hangs(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people.add("alice")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh-keygen").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "bin/ssh-keygen").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(ssh, "_VERIFY", 0.3)
    with pytest.raises(ToolError, match="has not answered"):
        people.read()


def test_no_allowed_signers_at_all(people: People) -> None:
    (people.site / "allowed_signers").unlink()
    with pytest.raises(NotApproved, match="would not count"):
        people.add("alice")
    assert approvals.Signers(people.site).signers == ()
