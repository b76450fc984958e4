"""Import hosts from what people have already: NetBox, Ansible. Nothing is sent to any BMC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from metalimmu.desired import ansible_inventory, imports_ansible, imports_netbox
from metalimmu.desired.imports import Imported
from metalimmu.errors import UsageError

LARGEST = 64 << 20
MOST_FILES = 100_000
_SUFFIXES = ("", ".yml", ".yaml", ".json")


def netbox(
    source: str, *, token_ref: str | None, ca: str | None, scheme: str, only: Mapping[str, str], folder: Path
) -> Imported:
    """`source` is a URL or an export's file. Raises MetalimmuError."""
    if "://" in source:
        from metalimmu.service.brownfield.netbox import NetBox, token

        client = NetBox(source, token(token_ref, folder=folder), ca=ca)
        found, managed = client.devices(only.items())
        return imports_netbox.imported(found, managed, scheme=scheme)
    return imports_netbox.imported(imports_netbox.devices(text(Path(source))), scheme=scheme, only=only)


def ansible(source: Path, *, bmc_vars: Iterable[str], scheme: str, groups: Iterable[str]) -> Imported:
    """An inventory's file, or a folder of them, with host_vars/ and group_vars/ beside. Raises UsageError."""
    files = _inventories(source)
    whole = ansible_inventory.empty()
    for file in files:
        _add(whole, ansible_inventory.parse(text(file)))
    folder = source if source.is_dir() else source.parent
    for name, variables in _variables(folder / "group_vars"):
        whole.vars.setdefault(name, {}).update(variables)
    for name, variables in _variables(folder / "host_vars"):
        if name in whole.hosts:
            whole.host(name, variables)
    names = [*bmc_vars, *imports_ansible.BMC_VARS]
    return imports_ansible.imported(whole, bmc_vars=names, scheme=scheme, groups=groups)


def text(path: Path) -> str:
    """Raises UsageError."""
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path} is larger than {LARGEST >> 20} MiB")
        data = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    if data.startswith(b"$ANSIBLE_VAULT"):
        return ""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path} is no UTF-8 text") from exc


def _inventories(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    skip = (".cfg", ".py", ".sh", ".md", ".txt", ".orig", ".bak", "~")
    found = [
        p for p in sorted(source.iterdir()) if p.is_file() and not p.name.startswith(".") and not p.name.endswith(skip)
    ]
    if not found:
        raise UsageError(f"{source} has no inventory in it")
    return found


def _variables(folder: Path) -> Iterable[tuple[str, dict[str, object]]]:
    """(host or group, variables) of host_vars/ or group_vars/: NAME, NAME.yml, or NAME/ with files in it."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir())[:MOST_FILES]:
        name = path.name if path.is_dir() else path.name.removesuffix(path.suffix if path.suffix in _SUFFIXES else "")
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in inside:
            if file.is_file() and file.suffix in _SUFFIXES and not file.name.startswith("."):
                found = ansible_inventory.load_yaml(text(file))
                if isinstance(found, dict):
                    yield name, {str(k): v for k, v in found.items()}


def _add(whole: ansible_inventory.Inventory, part: ansible_inventory.Inventory) -> None:
    for host, variables in part.hosts.items():
        whole.host(host, variables)
    for mine, theirs in ((whole.groups, part.groups), (whole.children, part.children)):
        for name, members in theirs.items():
            mine.setdefault(name, {}).update(members)
    for name, values in part.vars.items():
        whole.vars.setdefault(name, {}).update(values)
