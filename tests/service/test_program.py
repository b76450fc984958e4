"""A site's programs: those that do what they should, and those that hang, flood, lie, fork or hide."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hook_rig import gone, script, until

from metalimmu import log
from metalimmu.errors import HookFailed
from metalimmu.service import program
from metalimmu.service.program import Ran, end_by_variable, run
from metalimmu.service.said import KEPT, Said, last_line, readable

ENV = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


def never() -> None:
    """Nothing ends the wait."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def ran(folder: Path, lines: str, **more: Any) -> Ran:
    wanted = {"env": ENV, "text": b"{}", "limit": 20.0, "check": never, **more}
    return run([script(folder, lines)], folder=folder, **wanted)


def test_input_output_folder_and_environment(folder: Path) -> None:
    found = ran(folder, 'cat; echo "$X $(pwd)"; env | sort | cut -d= -f1 | tr "\\n" " "; exit 3', env={**ENV, "X": "y"})
    text = found.output.text()
    assert found.status == 3
    assert text.startswith("{}y " + str(folder.resolve()))
    assert "HOME" not in text.split()  # nothing that was not given
    assert not found.left


def test_a_large_input_to_one_that_does_not_read(folder: Path) -> None:
    assert ran(folder, "exec 0<&-; echo said", text=b"x" * 5_000_000).output.text() == "said\n"
    assert ran(folder, "sleep 0.3; exit 0", text=b"x" * 5_000_000).status == 0
    assert ran(folder, "wc -c", text=b"x" * 5_000_000).output.text().strip() == "5000000"


def test_output_and_errors_in_one_order(folder: Path) -> None:
    assert ran(folder, "echo 1; echo 2 >&2; echo 3").output.text() == "1\n2\n3\n"


def test_its_time_limit_ends_all_that_it_started(folder: Path) -> None:
    began = time.monotonic()
    found = ran(folder, "sleep 600 & echo $!; sleep 600", limit=0.5)
    assert time.monotonic() - began < 5
    assert "time limit" in found.ended
    assert found.status is None
    until(lambda: gone(int(found.output.text().split()[0])))


def test_one_that_ignores_the_signal_is_killed(folder: Path) -> None:
    found = ran(folder, "trap '' TERM; echo $$; while :; do sleep 0.1; done", limit=0.5)
    assert "time limit" in found.ended
    until(lambda: gone(int(found.output.text().split()[0])))
    assert found.seconds < 6


def test_a_flood_costs_no_memory_and_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "FLOOD", 20 << 20)
    found = ran(folder, "yes 'a flood of words'")
    assert "MiB of output" in found.ended
    assert found.output.size > 20 << 20
    text = found.output.text()
    assert text.startswith("a flood of words\n")
    assert len(text) < 2 * KEPT + 200
    assert sys.getsizeof(found.output._head) + sys.getsizeof(found.output._tail) < 200_000


def test_a_child_in_its_group_is_ended_with_it_and_holds_nobody_up(folder: Path) -> None:
    began = time.monotonic()
    found = ran(folder, "sleep 600 & echo $!; exit 0")
    assert time.monotonic() - began < 5
    assert found.status == 0
    assert found.left
    until(lambda: gone(int(found.output.text().split()[0])))


def test_a_daemon_in_its_own_session_stays_and_holds_nobody_up(folder: Path) -> None:
    """It is what the site wanted; its pipe to us is closed."""
    began = time.monotonic()
    found = ran(folder, "setsid sh -c 'echo $$ > daemon; exec sleep 600' & until [ -s daemon ]; do sleep 0.02; done")
    pid = int((folder / "daemon").read_text())
    try:
        assert time.monotonic() - began < 5
        assert found.status == 0
        assert not gone(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_what_hides_in_another_session_is_found_by_its_key(folder: Path) -> None:
    env = {**ENV, "METALIMMU_HOOK_KEY": f"r-1/before/1-{os.getpid()}"}
    ran(folder, "setsid sleep 600 >/dev/null 2>&1 & sleep 0.2; echo", env=env)
    assert end_by_variable("METALIMMU_HOOK_KEY", env["METALIMMU_HOOK_KEY"]) == 1
    assert end_by_variable("METALIMMU_HOOK_KEY", env["METALIMMU_HOOK_KEY"]) == 0


def test_whoever_waits_may_end_it(folder: Path) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.6, stop.set)
    timer.start()

    class Stopped(BaseException):
        pass

    def check() -> None:
        if stop.is_set():
            raise Stopped

    began = time.monotonic()
    with pytest.raises(Stopped):
        ran(folder, "echo $$ > pid; sleep 600", check=check)
    timer.join()
    assert time.monotonic() - began < 6
    until(lambda: gone(int((folder / "pid").read_text())))


def test_killed_by_a_signal(folder: Path) -> None:
    assert ran(folder, "kill -9 $$").status == -9


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["./missing"], "no such program"),
        (["nowhere-to-be-found"], "no such program"),
        (["./plain"], "may not be executed"),
        (["./noformat"], "cannot be run"),
        (["./nointerpreter"], "no such program"),
        (["echo", "a\0b"], "cannot be run"),
    ],
)
def test_what_cannot_be_started_says_why(folder: Path, argv: list[str], words: str) -> None:
    (folder / "plain").write_text("#!/bin/sh\n")
    for name, content in (("noformat", "\x7fELF nonsense"), ("nointerpreter", "#!/no/such/interpreter\n")):
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    with pytest.raises(HookFailed, match=words) as caught:
        run(argv, folder=folder, env=ENV, text=b"", limit=5, check=never)
    assert caught.value.hint


def test_many_at_once(folder: Path) -> None:
    script(folder, "sleep 0.2; echo $1", "hook")
    found: dict[int, str] = {}

    def one(i: int) -> None:
        done = run(["./hook", str(i)], folder=folder, env=ENV, text=b"", limit=30, check=never)
        found[i] = done.output.text()

    threads = [threading.Thread(target=one, args=(i,)) for i in range(30)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert found == {i: f"{i}\n" for i in range(30)}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_left_open(folder: Path) -> None:
    ran(folder, "echo")
    before = descriptors()
    for text in ("echo", "exec 0<&- 1>&- 2>&-; exit 1", "sleep 5 & exit 0"):
        ran(folder, text)
    with pytest.raises(HookFailed):
        run(["./missing"], folder=folder, env=ENV, text=b"", limit=5, check=never)
    assert descriptors() == before


# what was said


def said(data: bytes, kept: int = KEPT) -> Said:
    found = Said(kept)
    for i in range(0, len(data), 1000):
        found.add(data[i : i + 1000])
    return found


def test_control_sequences_are_taken_out() -> None:
    nasty = b"\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 \xff\xfe \x9b31m a\rb\r\nc \xe2\x80\xae end\0"
    text = readable(nasty)
    assert "\x1b" not in text
    assert all(c.isprintable() or c in "\n\t" for c in text)
    assert text.startswith("red bell")
    assert "a\nb\nc" in text


def test_both_ends_are_kept() -> None:
    text = said(b"first\n" + b"x" * 100_000 + b"\nlast\n").text()
    assert text.startswith("first\n")
    assert text.endswith("\nlast\n")
    assert "100012 bytes in all" in text


@pytest.mark.parametrize("size", [0, 10, KEPT, 2 * KEPT, 2 * KEPT + 1])
def test_little_is_kept_whole(size: int) -> None:
    data = bytes(65 + i % 26 for i in range(size))
    assert (said(data).text() == data.decode()) is (size <= 2 * KEPT)


@pytest.mark.parametrize("place", range(-40, 41, 8))
@pytest.mark.parametrize("at", [KEPT, KEPT + 4096, -KEPT, -KEPT - 4096])
def test_a_secret_across_a_cut_is_not_left_in_halves(place: int, at: int) -> None:
    secret = log.secret("hunter2-hunter2-hunter2-hunter2")
    try:
        data = bytearray(b"." * 100_000)
        start = (at if at > 0 else len(data) + at) + place
        data[start : start + len(secret)] = secret.encode()
        text = said(bytes(data)).text()
        assert "hunter2" not in text
    finally:
        log.forget(secret)


def test_many_secrets_in_a_flood() -> None:
    secret = log.secret("hunter2-hunter2-hunter2-hunter2")
    try:
        assert "hunter2" not in said((secret + "\n").encode() * 5000).text()
        assert "hunter2" not in said(("y" + secret).encode() * 5000).text()
    finally:
        log.forget(secret)


def test_secrets_of_one_call() -> None:
    found = said(b"token sesame-open-sesame end")
    assert found.text(("sesame-open-sesame", "end")) == "token *** end"  # short words would hide too much


def test_the_last_line_says_why() -> None:
    assert last_line("working\nno route to host\n\n") == "no route to host"
    assert last_line("") == ""
    assert len(last_line("x" * 1000)) == 201
