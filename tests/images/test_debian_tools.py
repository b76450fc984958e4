from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metalimmu.errors import ToolError
from metalimmu.images import debian

DEB822 = """\
Types: deb
URIs: http://deb.example.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://deb.example.org/debian-security/
Suites: bookworm-security
Components: main
"""


@pytest.mark.parametrize(
    ("files", "archive", "security"),
    [
        ({}, None, None),
        (
            {"sources.list.d/debian.sources": DEB822},
            "http://deb.example.org/debian",
            "https://deb.example.org/debian-security",
        ),
        (
            {
                "sources.list": "# deb http://no/debian x main\ndeb [arch=amd64] https://ftp.example.org/debian/ bookworm main contrib\n"
            },
            "https://ftp.example.org/debian",
            None,
        ),
        (
            {
                "sources.list": "deb http://vendor.example.org/tool stable main\ndeb cdrom:[Debian]/debian bookworm main\n"
            },
            None,
            None,
        ),
        (
            {"sources.list": "deb http://snapshot.debian.org/archive/debian/20260101T000000Z bookworm main\n"},
            "http://snapshot.debian.org/archive/debian/20260101T000000Z",
            None,
        ),
        (
            {
                "sources.list.d/d.sources": DEB822.replace(
                    "http://deb.example.org/debian\n", "mirror+file:@/mirrors/debian.list\n"
                ),
                "mirrors/debian.list": "http://near.example.org/debian\nhttp://far\n",
            },
            "http://near.example.org/debian",
            "https://deb.example.org/debian-security",
        ),
    ],
)
def test_the_machines_own_mirror(
    tmp_path: Path, files: dict[str, str], archive: str | None, security: str | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text.replace("@", str(tmp_path)))
    assert debian._own_uri(security=False, etc=tmp_path) == archive
    assert debian._own_uri(security=True, etc=tmp_path) == security


def test_a_setting_comes_first_and_debians_own_last(monkeypatch: pytest.MonkeyPatch) -> None:
    assert debian.mirror("http://mirror.example.org/debian/") == "http://mirror.example.org/debian"
    monkeypatch.setattr(debian, "_is_debian", lambda: False)
    assert debian.mirror(None) == "http://deb.debian.org/debian"


class _Archive(http.server.BaseHTTPRequestHandler):
    date = "Sat, 11 Jul 2026 10:16:37 UTC"
    has_security = True

    def do_GET(self) -> None:
        found = self.path == "/debian/dists/bookworm/InRelease" or (
            type(self).has_security and self.path.startswith("/debian-security/dists/bookworm-security/")
        )
        body = f"-----BEGIN PGP SIGNED MESSAGE-----\nOrigin: Debian\nDate: {self.date}\n".encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(debian, "_is_debian", lambda: False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Archive)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/debian"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_sources_have_updates_and_security_from_the_same_server(archive: str) -> None:
    lines = debian.sources(archive, "bookworm", "main", "non-free-firmware")
    assert [line.split("] ")[1] for line in lines] == [
        f"{archive} bookworm main non-free-firmware",
        f"{archive} bookworm-updates main non-free-firmware",
        f"{archive}-security bookworm-security main non-free-firmware",
    ]
    assert all("signed-by=/usr/share/keyrings/debian-archive-keyring.gpg" in line for line in lines)


def test_a_mirror_without_security_takes_debians(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Archive, "has_security", False)
    assert debian.security_mirror(archive, "bookworm") == "http://deb.debian.org/debian-security"


def test_snapshots_may_be_old() -> None:
    lines = debian.sources("http://127.0.0.1:9/snapshot.debian.org/archive/debian/2026", "sid")
    assert all("check-valid-until=no" in line for line in lines)


def test_the_date_of_a_release(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert debian.release_date(archive, "bookworm") == 1783764997
    with pytest.raises(ToolError, match="cannot fetch"):
        debian.release_date(archive, "nosuch")
    monkeypatch.setattr(_Archive, "date", "Sat, 11 Jul 1998 10:16:37 UTC")
    with pytest.raises(ToolError, match="believable"):
        debian.release_date(archive, "bookworm")


def test_missing_programs_are_all_named_with_their_packages() -> None:
    with pytest.raises(ToolError) as caught:
        debian.need("sh", "no-such-program", "no-other")
    assert "no-such-program, no-other" in caught.value.message
    assert caught.value.hint == "apt-get install no-other no-such-program"


def test_a_failure_says_what_the_program_said() -> None:
    with pytest.raises(ToolError, match="status 3: second") as caught:
        debian.run_tool(["sh", "-c", "echo first >&2; echo second >&2; exit 3"])
    assert caught.value.output == "first\nsecond"
    assert debian.run_tool(["sh", "-c", "exit 3"], ok=(3,)).returncode == 3


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    started = time.monotonic()
    with pytest.raises(ToolError, match="did not end within 1 s"):
        debian.run_tool(["sh", "-c", f"sleep 600 & echo $! > {child}; wait"], timeout=1)
    assert time.monotonic() - started < 30
    pid, deadline = int(child.read_text()), time.monotonic() + 10
    while _lives(pid):
        assert time.monotonic() < deadline, "the child lives on"
        os.sched_yield()


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_programs_run_in_a_fixed_locale_without_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMC_PASSWORD", "secret")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    said = debian.run_tool(["env"]).stdout.decode()
    assert "secret" not in said
    assert "LC_ALL=C.UTF-8" in said
    assert "/usr/sbin" in said
