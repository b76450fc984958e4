"""allowed_signers: lines that name people."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.desired.check import check
from metalimmu.desired.signers import parse, people


def public(seed: int = 0, kind: str = "ssh-ed25519") -> str:
    blob = len(kind).to_bytes(4, "big") + kind.encode() + (32).to_bytes(4, "big") + bytes([seed]) * 32
    return f"{kind} {base64.b64encode(blob).decode()}"


GOOD = [
    (f"alice@x {public()}", ("alice@x",), ""),
    (f"alice {public()} a comment with spaces", ("alice",), ""),
    (f"a@x,b@y {public()}", ("a@x", "b@y"), ""),
    (f'"a@x" {public()}', ("a@x",), ""),
    (f'a@x namespaces="a b,metalimmu-plan",valid-before=20300101Z {public()}', ("a@x",), 'namespaces="a b,metalimmu-plan",valid-before=20300101Z'),
    (f"  a@x\t{public(kind='sk-ssh-ed25519@openssh.com')}", ("a@x",), ""),
    (f"a@x {public(kind='ecdsa-sha2-nistp256')}", ("a@x",), ""),
]  # fmt: skip


@pytest.mark.parametrize(("line", "names", "options"), GOOD)
def test_a_line(line: str, names: tuple[str, ...], options: str) -> None:
    [signer], problems = parse(f"# comment\n\n{line}\n")
    assert problems == []
    assert (signer.principals, signer.options, signer.line) == (names, options, 3)
    [again], _ = parse(signer.text())
    assert again._replace(line=3) == signer


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ("alice", "alice"),
        ("alice ssh-ed25519", "alice ssh-ed25519"),
        (f"*@example.org {public()}", "*@example.org"),
        (f"a@x,!b@x {public()}", "a@x,!b@x"),
        (f"a@x,,b {public()}", "a@x,,b"),
        (f"*@x cert-authority {public()}", "a certificate authority"),
        (f'a@x Cert-Authority,namespaces="x" {public()}', "a certificate authority"),
        ("a@x ssh-ed25519 AAAA", "AAAA"),
        ("a@x ssh-rsa " + public().split()[1], "AAAAC3"),
        ("a@x ssh-ed25519-cert-v01@openssh.com AAAA", "a@x ssh"),
        ("a\x1b[2J ssh-ed25519 ===", "a\\u001b"),
    ],
)
def test_a_line_that_names_nobody(line: str, got: str) -> None:
    signers, [problem] = parse(f"{line}\n")
    assert signers == ()
    assert got in str(problem)
    assert str(problem).startswith("allowed_signers:1: expected ")


def test_who_is_one_person() -> None:
    signers, _ = parse(
        f"a1 {public(1)}\nb1 {public(2)}\nc1 {public(3)}\na2,a1 {public(4)}\nd1 {public(2)}\nx,a2 {public(5)}\n"
    )
    assert people(signers) == {1: "a1", 2: "b1", 3: "c1", 4: "a1", 5: "b1", 6: "a1"}


def test_lines_that_join_two_people_make_them_one() -> None:
    signers, _ = parse(f"a {public(1)}\nb {public(2)}\na,b {public(3)}\n")
    assert set(people(signers).values()) == {"a"}


def site(folder: Path, approvals: int, signers: str | None) -> list[str]:
    for sub in ("hosts", "pools"):
        (folder / sub).mkdir(parents=True)
    (folder / "site.yaml").write_text(
        'name: x\nurls: {bmc: "http://10.0.0.5:8080", machines: "https://10.0.0.5:8443"}\n'
    )
    (folder / "pools/web.yaml").write_text(f"approvals: {approvals}\n")
    if signers is not None:
        (folder / "allowed_signers").write_text(signers)
    return [str(p) for p in check(folder).problems]


@pytest.mark.parametrize("approvals", [0, 1, 2])
@pytest.mark.parametrize("signers", [0, 1, 2, 3])
def test_a_pool_that_nobody_could_approve(tmp_path: Path, approvals: int, signers: int) -> None:
    text = "".join(f"person-{i} {public(i)}\n" for i in range(signers)) or None
    found = site(tmp_path, approvals, text)
    assert len(found) == (1 if approvals and signers <= approvals else 0)
    for line in found:
        assert line.startswith(
            "pools/web.yaml:1: approvals: expected at most one less than the people in allowed_signers"
        )
        assert f"{approvals} where {signers or 'nobody'} can sign" in line


def test_check_says_what_is_wrong_in_allowed_signers(tmp_path: Path) -> None:
    assert site(tmp_path, 0, f"*@x {public()}\n") == [
        'allowed_signers:1: expected names of one person, got "*@x": write one name, or several with commas, without * and ?'
    ]


def test_approvals_are_few(tmp_path: Path) -> None:
    [line] = site(tmp_path, 3, None)
    assert "expected a whole number from 0 to 2" in line


@given(st.text())
def test_any_text(text: str) -> None:
    signers, problems = parse(text)
    lines = [t for t in text.splitlines() if t.strip() and not t.lstrip().startswith("#")]
    assert len(signers) + len(problems) == len(lines)
