"""The SSH client: a stand-in in the place of `ssh` says what OpenSSH says. Real ones are met in the lab."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from metalimmu.errors import BmcBroken, BmcLoginRefused, BmcUnreachable, HostKeyChanged, SecretError, ToolError
from metalimmu.nos import ssh
from metalimmu.nos.ssh import Ssh

KEY = "ssh-ed25519 AAAAC3Nza"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "ssh"
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return tmp_path

    return write


def shell(**given: Any) -> Ssh:
    return Ssh("10.0.0.1", **{"user": "admin", "password": "geheim", "name": "leaf-1", **given})


def test_a_command_and_its_answer(program: Any) -> None:
    folder = program(
        'printf "%s\\n" "$@" > $(dirname $0)/argv; "$SSH_ASKPASS" > $(dirname $0)/password; echo out; echo err >&2; exit 3'
    )
    said = shell().run("show version")
    assert (said.status, said.out, said.err) == (3, "out\n", "err\n")
    argv = (folder / "argv").read_text().splitlines()
    assert argv[-3:] == ["--", "admin@10.0.0.1", "show version"]
    assert "StrictHostKeyChecking=accept-new" in argv
    assert (folder / "password").read_text() == "geheim\n"
    assert not any("geheim" in a for a in argv)


def test_a_known_key_is_pinned_and_the_first_one_is_learned_when_it_is_a_nos(program: Any) -> None:
    folder = program(
        'for a; do case $a in UserKnownHostsFile=*) f=${a#*=};; esac; done; cp $f $(dirname $0)/known; printf "%s\\n" "$@" > $(dirname $0)/argv\n'
        f'[ -s $f ] || echo "10.0.0.1 {KEY}" > $f'
    )
    learned: list[tuple[str, ...]] = []
    first = shell(learn=learned.append)
    first.run("true")
    assert learned == []  # it may be ONIE, which makes a key at each boot
    first.confirm()
    assert learned == [(KEY,)]
    shell(keys=(KEY,), port=2222).run("true")
    assert (folder / "known").read_text() == f"[10.0.0.1]:2222 {KEY}\n"
    argv = (folder / "argv").read_text().splitlines()
    assert "StrictHostKeyChecking=yes" in argv
    assert "HostKeyAlgorithms=ssh-ed25519" in argv


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("Host key verification failed.", HostKeyChanged),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", HostKeyChanged),
        ("admin@10.0.0.1: Permission denied (publickey,password).", BmcLoginRefused),
        ("ssh: connect to host 10.0.0.1 port 22: Connection refused", BmcUnreachable),
        ("kex_exchange_identification: Connection closed by remote host", BmcUnreachable),
        ("", BmcUnreachable),
    ],
)
def test_why_there_is_no_answer(program: Any, words: str, error: type[Exception]) -> None:
    program(f'echo "{words}" >&2; exit 255')
    with pytest.raises(error) as raised:
        shell(keys=(KEY,)).run("true")
    if error is BmcUnreachable:
        assert "`metalimmu switch show leaf-1`" in raised.value.hint


def test_limits_of_time_and_size(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program("exec sleep 60")
    start = time.monotonic()
    with pytest.raises(BmcUnreachable, match="within 0 s"):
        shell().run("true", limit=0.3)
    assert time.monotonic() - start < 10
    monkeypatch.setattr(ssh, "LARGEST", 1000)
    program("exec yes")
    with pytest.raises(BmcBroken):
        shell().run("true")


def test_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SecretError, match="no private key"):
        shell(key=str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="ssh is not installed"):
        shell().run("true")


def test_a_command_that_runs_for_long_is_left_when_the_worker_stops(program: Any) -> None:
    program("exec sleep 60")

    class Stopped(BaseException): ...

    def check() -> None:
        raise Stopped

    start = time.monotonic()
    with pytest.raises(Stopped):
        shell(check=check).run("sonic-installer install", limit=1800)
    assert time.monotonic() - start < 10
