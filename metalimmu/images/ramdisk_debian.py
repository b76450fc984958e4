"""Debian packages for the ramdisk: a private apt that fetches them, and trees of unpacked ones whose programs can be run.

apt gets a configuration, lists and sources of our own: the machine's stay untouched, no root is needed. Packages are only
unpacked, none is installed: nothing of theirs runs. The tools that make the ramdisk come the same way and are started
through their own dynamic loader, so the build does not depend on what the machine has.
"""

from __future__ import annotations

import io
import json
import posixpath
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from metalimmu.errors import ToolError
from metalimmu.images import debian

SUITE = "bookworm"
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # symlinks to usr/..., as on every Debian 12
LOADER = (
    "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"  # lib64 has an absolute link, to the loader of whoever runs this
)

_CONFIG = """\
Dir "{folder}";
Dir::State "state";
Dir::State::status "status";
Dir::Cache "cache";
Dir::Etc "etc";
Dir::Etc::SourceList "sources.list";
Dir::Etc::SourceParts "-";
Dir::Etc::Parts "-";
Dir::Etc::PreferencesParts "-";
Dir::Etc::Preferences "-";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::IndexTargets::deb::Contents-deb {{
  MetaKey "$(COMPONENT)/Contents-all";
  ShortDescription "Contents";
  Description "$(RELEASE)/$(COMPONENT) Contents";
  KeepCompressed "true";
  DefaultEnabled "false";
}};
"""


def source_lines(archive: str, *, backports: bool) -> list[str]:
    """Lines of a sources.list: main, and non-free-firmware with its list of contents."""
    lines = debian.sources(archive, SUITE, "main")
    firmware = debian.sources(archive, SUITE, "non-free-firmware")
    if backports:
        lines.append(lines[0].replace(f" {SUITE} ", f" {SUITE}-backports "))
        firmware.append(firmware[0].replace(f" {SUITE} ", f" {SUITE}-backports "))
    return lines + [line.replace("deb [", "deb [target+=Contents-deb ", 1) for line in firmware]


class Apt:
    """apt-get in a folder of its own."""

    def __init__(self, folder: Path, sources: Sequence[str]) -> None:
        self._folder = folder
        self._sources = sources
        self._release: list[str] = []
        for name in ("state/lists/partial", "cache/archives/partial", "cache/empty/partial", "etc"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "state/status").touch()
        (folder / "etc/sources.list").write_text("".join(f"{line}\n" for line in sources))
        (folder / "apt.conf").write_text(_CONFIG.format(folder=folder) + _proxies())

    def preferring(self, release: str) -> Apt:
        """The same, but packages come from `release` where it has them: for backports."""
        other = Apt(self._folder, self._sources)
        other._release = ["-t", release]
        return other

    def update(self) -> None:
        """Raises ToolError when the mirror does not answer or its signature is not Debian's."""
        self._run("apt-get", "update", "--error-on=any", timeout=300)
        self._run("apt-get", "autoclean")

    def fetch(self, *names: str, dependencies: bool = False) -> list[Path]:
        """The packages' files, downloaded if they are not there yet; with all that they depend on, if asked. Sorted by name."""
        archives = self._folder / "cache/archives"
        # An empty archive folder makes apt name the packages that are already there, too.
        every = ["-o", "Dir::Cache::Archives=empty", "--print-uris"]
        verb = ["install"] if dependencies else ["download"]
        listed = self._run("apt-get", *self._release, *every, *verb, *names)
        files = re.findall(r"^'[^']+' (\S+\.deb) \d+", listed, re.MULTILINE)
        if not files:
            raise ToolError(f"apt gave no files for {', '.join(names)}", hint="choose another --mirror")
        # `download` checks the hash of what is there and fetches only the rest; so does `install`.
        only = ["install", "--download-only"] if dependencies else verb
        self._run("apt-get", *self._release, *only, *names, cwd=archives, timeout=1800)
        return sorted(archives / name for name in files)

    def depends(self, name: str, pattern: str) -> str:
        """The first package that `name` depends on and that matches `pattern`."""
        shown = self._run("apt-cache", *self._release, "show", "--no-all-versions", name)
        field = re.search(r"^Depends: (.*)$", shown, re.MULTILINE)
        found = re.search(pattern, field.group(1)) if field else None
        if not found:
            raise ToolError(f"the mirror's {name} depends on nothing like {pattern}", hint="choose another --mirror")
        return found.group(0)

    def owners(self) -> dict[str, list[str]]:
        """Path without leading slash -> packages that have it, for the non-free firmware.

        Raises ToolError when the mirror has no such list: else all firmware would seem to be missing.
        """
        targets = self._run("apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Contents-deb")
        if not targets.split():
            raise ToolError(
                "the mirror has no list of contents (Contents-all) for non-free-firmware",
                hint="choose another --mirror",
            )
        result: dict[str, list[str]] = {}
        for file in targets.split():
            for line in self._run("/usr/lib/apt/apt-helper", "cat-file", file).splitlines():
                path, _, packages = line.rpartition(" ")
                names = [p.rsplit("/", 1)[-1] for p in packages.split(",")]
                result.setdefault(path.strip(), []).extend(names)
        return result

    def _run(self, *argv: str, timeout: float = 120, cwd: Path | None = None) -> str:
        env = {"APT_CONFIG": str(self._folder / "apt.conf")}
        return debian.run_tool(argv, timeout=timeout, env=env, cwd=cwd).stdout.decode()


def _proxies() -> str:
    """What the machine's own apt uses to reach mirrors is the one thing of its configuration that we need as well."""
    return debian.run_tool(["apt-config", "dump", "Acquire::http::Proxy", "Acquire::https::Proxy"]).stdout.decode()


# --- packages and trees -----------------------------------------------------------------------------------------


def package_name(deb: Path) -> str:
    return deb.name.split("_", 1)[0]


def members(deb: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The files of a package with their paths in a merged /usr ("usr/bin/x"), in the package's order."""
    data = debian.run_tool(["dpkg-deb", "--fsys-tarfile", deb], timeout=300).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            member.name = merged(member.name)
            if member.name:
                yield member, tar


def merged(path: str) -> str:
    clean = posixpath.normpath(f"/{path}").lstrip("/")
    return f"usr/{clean}" if clean.split("/", 1)[0] in MERGED else clean


def unpack(debs: Sequence[Path], tree: Path, keep: Callable[[str], bool] = lambda _: True) -> None:
    """Unpack packages into `tree`, those paths that `keep` wants. Owners and set-user-ID bits are dropped."""
    for name in MERGED:
        (tree / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (tree / name).is_symlink():
            (tree / name).symlink_to(f"usr/{name}")
    for deb in debs:
        for member, tar in members(deb):
            if keep(member.name):
                _put(member, tar, tree / member.name)


def _put(member: tarfile.TarInfo, tar: tarfile.TarFile, target: Path) -> None:
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        base = target
        for _ in member.name.split("/"):
            base = base.parent
        shutil.copy2(base / merged(member.linkname), target)
    elif member.isfile():
        source = tar.extractfile(member)
        assert source is not None  # noqa: S101 - a regular file has content
        with target.open("wb") as out:
            shutil.copyfileobj(source, out)
        target.chmod(0o755 if member.mode & 0o111 else 0o644)


class Tools:
    """Programs of a tree, started through the tree's own loader and libraries; no chroot, so no root."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    def run(
        self, program: str, *args: str | Path, env: Mapping[str, str] | None = None, timeout: float = 600
    ) -> subprocess.CompletedProcess[bytes]:
        """`program` is a path in the tree; its own name is what it sees as argv[0] (kmod is depmod by that). Raises ToolError."""
        loader = self.tree / LOADER
        libraries = self.tree / "usr/lib/x86_64-linux-gnu"
        path = self.tree / program
        real = (
            self.tree / merged(str(path.parent.relative_to(self.tree) / path.readlink())) if path.is_symlink() else path
        )
        command = [loader, "--library-path", libraries, "--argv0", path.name, real, *args]
        return debian.run_tool(command, timeout=timeout, env={"GCONV_PATH": str(libraries / "gconv"), **(env or {})})

    def python(self, *args: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[bytes]:
        env = {"PYTHONHOME": str(self.tree / "usr"), "PYTHONHASHSEED": "0"}
        return self.run("usr/bin/python3.11", *args, env=env, timeout=timeout)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
