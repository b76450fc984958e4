"""References to credentials, and what is refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from metalimmu import log
from metalimmu.bmc import credentials
from metalimmu.errors import SecretError


def secret_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "bmc.secret"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMC_USERNAME", "root")
    monkeypatch.setenv("BMC_PASSWORD", "calvin-1")
    found = credentials.read("env:BMC")
    assert (found.username, found.password) == ("root", "calvin-1")
    assert log.redact("it was calvin-1") == "it was ***"
    assert "calvin" not in repr(found)


def test_environment_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMC_USERNAME", "root")
    monkeypatch.delenv("BMC_PASSWORD", raising=False)
    with pytest.raises(SecretError, match="BMC_PASSWORD not set") as caught:
        credentials.read("env:BMC")
    assert "export BMC_PASSWORD" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "username: root\npassword: 'pa:ss'\n",
        "user: root\npassword: 'pa:ss'\n",
        "root:pa:ss\n",
        "# the lab's\nroot:pa:ss",
        '{"username": "root", "password": "pa:ss"}',
    ],
)
def test_file(tmp_path: Path, text: str) -> None:
    secret_file(tmp_path, text)
    found = credentials.read("file:bmc.secret", folder=tmp_path)
    assert (found.username, found.password) == ("root", "pa:ss")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o601])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path, "root:secret1", mode)
    with pytest.raises(SecretError, match=f"mode {mode:04o}") as caught:
        credentials.read(f"file:{path}")
    assert caught.value.hint.startswith(f"chmod 600 {path}")


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = secret_file(tmp_path, "root:secret1")
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SecretError, match="belongs to user"):
        credentials.read(f"file:{path}")


@pytest.mark.parametrize(
    "text", ["", "root", "username: root\n", "username: root\npassword: 1234\n", "a:b\nc:d\n", "[1, 2]", "x" * 70_000]
)
def test_a_file_without_a_login_does_not_show_what_it_has(tmp_path: Path, text: str) -> None:
    path = secret_file(tmp_path, text)
    with pytest.raises(SecretError) as caught:
        credentials.read(f"file:{path}")
    assert "1234" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="No such file"):
        credentials.read("file:nowhere", folder=tmp_path)
    with pytest.raises(SecretError):
        credentials.read(f"file:{tmp_path}")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(SecretError, match="not a regular file"):
        credentials.read(f"file:{tmp_path}/pipe")


@pytest.mark.parametrize("ref", ["", "root:calvin", "env:", "https://x", "file"])
def test_a_reference_of_no_known_kind(ref: str) -> None:
    with pytest.raises(SecretError) as caught:
        credentials.read(ref)
    assert "env:PREFIX" in caught.value.hint


def test_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    import keyring
    from keyring.backend import KeyringBackend
    from keyring.credentials import SimpleCredential

    class Memory(KeyringBackend):
        priority = 1  # type: ignore[assignment]

        def get_password(self, service: str, username: str) -> str | None:
            return None

        def set_password(self, service: str, username: str, password: str) -> None:
            raise NotImplementedError

        def get_credential(self, service: str, username: str | None) -> SimpleCredential | None:
            return SimpleCredential("root", "from the ring") if service == "bmc" else None

    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    try:
        assert credentials.read("keyring:bmc").password == "from the ring"
        with pytest.raises(SecretError, match="has no login") as caught:
            credentials.read("keyring:other")
        assert "keyring set other" in caught.value.hint
    finally:
        keyring.set_keyring(before)
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(SecretError, match="not installed") as caught:
        credentials.read("keyring:bmc")
    assert "metalimmu[keyring]" in caught.value.hint


def test_vault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for its HTTP API: the requests and answers of a key-value store, version 2."""
    from redfish_server import RedfishServer

    tree = {
        "/v1/kv/data/bmc/web-1": {"data": {"data": {"username": "root", "password": "from the vault"}, "metadata": {}}},
        "/v1/old/bmc": {"data": {"username": "root", "password": "from version 1"}},
    }
    with RedfishServer(tree, login="none") as vault:
        monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{vault.port}")
        monkeypatch.setenv("VAULT_TOKEN", "hvs.secret")
        assert credentials.read("vault:kv/bmc/web-1").password == "from the vault"
        assert credentials.read("vault:old/bmc").password == "from version 1"
        assert credentials.secret("vault:kv/bmc/web-1#username") == "root"
        assert credentials.secret("vault:kv/bmc/web-1") == "from the vault"
        with pytest.raises(SecretError, match="no text in its field 'token'"):
            credentials.secret("vault:kv/bmc/web-1#token")
        with pytest.raises(SecretError, match="vault:kv/bmc/web-2") as caught:
            credentials.read("vault:kv/bmc/web-2")
        assert "hvs.secret" not in str(caught.value)
        assert vault.headers[0]["X-Vault-Token"] == "hvs.secret"
    with pytest.raises(SecretError, match="no mount"):
        credentials.read("vault:kv")
    monkeypatch.delenv("VAULT_TOKEN")
    with pytest.raises(SecretError, match="VAULT_TOKEN not set"):
        credentials.read("vault:kv/bmc/web-1")
    monkeypatch.setenv("VAULT_TOKEN", "x")
    monkeypatch.setitem(sys.modules, "hvac", None)
    with pytest.raises(SecretError, match="not installed"):
        credentials.read("vault:kv/bmc/web-1")


def test_the_version_changes_with_the_login_and_not_otherwise() -> None:
    one = credentials.make("root", "secret-1")
    assert one.version == credentials.make("root", "secret-1").version
    versions = {one.version, credentials.make("root", "secret-2").version, credentials.make("toor", "secret-1").version}
    assert len(versions) == 3
    assert len(one.version) == 16
