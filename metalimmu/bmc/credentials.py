"""Credentials from references; the site's documents never hold the secret itself.

==================  ===================================================================================
``env:PREFIX``      PREFIX_USERNAME and PREFIX_PASSWORD of the environment
``file:PATH``       YAML with `username` and `password`, or one line `user:password`; PATH relative to the
                    site. Refused when group or others can read it, or when it is neither ours nor root's
``keyring:SERVICE`` the one login that the desktop's or system's keyring has for SERVICE (extra [keyring])
``vault:PATH``      HashiCorp Vault, key-value version 2 or 1; the first part of PATH is the mount
                    (`vault:kv/bmc/7XK2P13`); VAULT_ADDR and VAULT_TOKEN of the environment (extra [vault])
==================  ===================================================================================
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from metalimmu import log
from metalimmu.errors import SecretError

LARGEST = 64 * 1024


class Credentials(msgspec.Struct, frozen=True):
    username: str
    password: str
    version: str  # changes when user name or password change; says nothing about them

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, version={self.version})"


def read(ref: str, *, folder: Path | None = None) -> Credentials:
    """What `ref` points to. Raises SecretError, whose hint says what to put where."""
    scheme, _, name = ref.partition(":")
    reader = _READERS.get(scheme)
    if reader is None or not name:
        raise SecretError(
            f"credentials reference {ref!r} is not understood",
            hint="write env:PREFIX, file:PATH, keyring:SERVICE or vault:PATH",
        )
    username, password = reader(name, folder or Path())
    return make(username, password)


def secret(ref: str, *, folder: Path | None = None) -> str:
    """One value that is no login: a signing key, a URL that is as good as a password. ``env:NAME`` is the variable itself,
    ``file:PATH`` the file's text under the same conditions as a login's; of ``keyring:`` and ``vault:`` it is the password,
    of ``vault:PATH#FIELD`` that field. Raises SecretError.
    """
    scheme, _, name = ref.partition(":")
    if scheme == "env" and name:
        value = os.environ.get(name, "")
        if not value:
            raise SecretError(f"secret env:{name}: {name} is not set in the environment", hint=f"export {name}")
    elif scheme == "file" and name:
        path = (folder or Path()) / Path(name).expanduser()
        value = _private_text(path, f"secret file {path}").strip()
        if not value:
            raise SecretError(f"secret file {path} is empty", hint="write the secret into it, and nothing else")
    elif scheme == "vault" and "#" in name:
        path_, _, wanted = name.rpartition("#")
        found = _vault(path_, f"secret vault:{path_}").get(wanted)
        if not isinstance(found, str) or not found:
            raise SecretError(
                f"secret vault:{path_} has no text in its field {wanted!r}", hint=f"`vault kv get {path_}`"
            )
        value = found
    else:
        value = read(ref, folder=folder).password
    return log.secret(value)


def make(username: str, password: str) -> Credentials:
    """The version is a slow hash, cut short: kept in the store, it must not help to guess the password."""
    log.secret(password)
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), b"metalimmu credentials " + username.encode(), 20_000)
    return Credentials(username, password, digest.hex()[:16])


def _from_env(prefix: str, _folder: Path) -> tuple[str, str]:
    names = f"{prefix}_USERNAME", f"{prefix}_PASSWORD"
    missing = [n for n in names if not os.environ.get(n)]
    if missing:
        raise SecretError(
            f"credentials env:{prefix}: {' and '.join(missing)} not set in the environment",
            hint=f"export {' and '.join(missing)}",
        )
    return os.environ[names[0]], os.environ[names[1]]


def _from_file(name: str, folder: Path) -> tuple[str, str]:
    path = folder / Path(name).expanduser()
    what = f"credentials file {path}"
    return _parse(_private_text(path, what), what)


def _private_text(path: Path, what: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as f:  # noqa: PTH123  the checked file must be the read file: one descriptor
            _check_owner(os.fstat(fd), path)
            text = f.read(LARGEST + 1).decode()
    except OSError as exc:
        raise SecretError(f"{what} cannot be read: {exc.strerror}", hint=f"create it: chmod 600 {path}") from exc
    except UnicodeDecodeError as exc:
        raise SecretError(f"{what} is not UTF-8 text") from exc
    if len(text) > LARGEST:
        raise SecretError(f"{what} is larger than {LARGEST} bytes: this is no credentials file")
    return text


def _check_owner(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SecretError(f"credentials file {path} is not a regular file")
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SecretError(
            f"credentials file {path} is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"chmod 600 {path}, and think about who has read the password until now",
        )
    if found.st_uid not in (os.geteuid(), 0):
        raise SecretError(
            f"credentials file {path} belongs to user {found.st_uid}, not to you or root",
            hint=f"chown {os.geteuid()} {path}",
        )


def _parse(text: str, what: str) -> tuple[str, str]:
    hint = "write two lines, `username: NAME` and `password: 'SECRET'`, or one line NAME:SECRET"
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:  # its text would show the password
        found = None
    if isinstance(found, Mapping):
        return _pair(found, what, hint)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    username, colon, password = lines[0].partition(":") if len(lines) == 1 else ("", "", "")
    if not (colon and username and password):
        raise SecretError(f"{what} has no user name and password", hint=hint)
    return username, password


def _pair(found: Mapping[Any, Any], what: str, hint: str) -> tuple[str, str]:
    username, password = found.get("username", found.get("user")), found.get("password")
    if not isinstance(username, str) or not isinstance(password, str) or not username or not password:
        raise SecretError(f"{what} needs `username` and `password`, both text (quote a password of digits)", hint=hint)
    return username, password


def _from_keyring(service: str, _folder: Path) -> tuple[str, str]:
    try:
        import keyring
    except ImportError as exc:
        raise SecretError(
            f"credentials keyring:{service}: the package keyring is not installed",
            hint="pip install 'metalimmu[keyring]'",
        ) from exc
    try:
        found = keyring.get_credential(service, None)
    except Exception as exc:  # backends raise what they like
        raise SecretError(f"credentials keyring:{service}: {type(exc).__name__}: {exc}") from exc
    if found is None or not found.username or not found.password:
        raise SecretError(
            f"credentials keyring:{service}: the keyring has no login for it", hint=f"keyring set {service} USERNAME"
        )
    return found.username, found.password


def _from_vault(path: str, _folder: Path) -> tuple[str, str]:
    what = f"credentials vault:{path}"
    hint = "`vault kv get` the path with the same VAULT_ADDR and VAULT_TOKEN; it needs `username` and `password`"
    return _pair(_vault(path, what), what, hint)


def _vault(path: str, what: str) -> Mapping[str, Any]:
    """The fields of the secret at this path. Raises SecretError."""
    mount, _, rest = path.partition("/")
    if not rest:
        raise SecretError(f"{what}: no mount", hint="write vault:MOUNT/PATH, for example vault:kv/bmc/web-1")
    missing = [n for n in ("VAULT_ADDR", "VAULT_TOKEN") if not os.environ.get(n)]
    if missing:
        raise SecretError(f"{what}: {' and '.join(missing)} not set in the environment")
    try:
        import hvac
    except ImportError as exc:
        raise SecretError(f"{what}: the package hvac is not installed", hint="pip install 'metalimmu[vault]'") from exc
    log.secret(os.environ["VAULT_TOKEN"])
    client = hvac.Client(url=os.environ["VAULT_ADDR"], token=os.environ["VAULT_TOKEN"], timeout=20)
    hint = "`vault kv get` the path with the same VAULT_ADDR and VAULT_TOKEN"
    try:
        try:
            data = client.secrets.kv.v2.read_secret_version(path=rest, mount_point=mount, raise_on_deleted_version=True)
            found = data["data"]["data"]
        except hvac.exceptions.InvalidPath:  # key-value version 1 has no /data/ in its paths
            found = client.secrets.kv.v1.read_secret(path=rest, mount_point=mount)["data"]
    except Exception as exc:  # hvac, requests and KeyError of an answer in another shape
        raise SecretError(f"{what}: {type(exc).__name__}: {log.redact(str(exc))[:300]}", hint=hint) from exc
    return found if isinstance(found, Mapping) else {}


_READERS = {"env": _from_env, "file": _from_file, "keyring": _from_keyring, "vault": _from_vault}
