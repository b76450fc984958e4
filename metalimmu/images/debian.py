"""Debian's tools as functions: which mirror, which sources, mmdebstrap without root, and one way to run a program.

Nothing here changes the machine's own apt: sources are handed to mmdebstrap, keys come from debian-archive-keyring.
"""

from __future__ import annotations

import contextlib
import email.utils
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from metalimmu import log, paths
from metalimmu.errors import ToolError

PUBLIC = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
KEEP_DEBS = 30 * 86400.0  # seconds a downloaded package is kept after its last use

_LOG = log.get(__name__)

# Program -> Debian package, for the hint when it is missing.
PACKAGES = {
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "grub-mkimage": "grub-common",
    "grub-mkstandalone": "grub-common",
    "mcopy": "mtools",
    "mdel": "mtools",
    "mdir": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.fat": "dosfstools",
    "mksquashfs": "squashfs-tools",
    "mmd": "mtools",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "qemu-img": "qemu-utils",
    "sfdisk": "fdisk",
    "unshare": "util-linux",
    "xorriso": "xorriso",
    "xz": "xz-utils",
    "zstd": "zstd",
}


# --- running a program ------------------------------------------------------------------------------------------


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A fixed locale and time zone, and the sbin folders: Debian leaves these out of an ordinary user's PATH."""
    keep = {k: v for k, v in os.environ.items() if k in {"HOME", "TMPDIR", "USER", "LOGNAME"} or k.endswith("_proxy")}
    path = os.environ.get("PATH", "/usr/bin:/bin")
    return {
        **keep,
        "PATH": f"{path}:/usr/local/sbin:/usr/sbin:/sbin",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        **(extra or {}),
    }


def need(*programs: str) -> None:
    """Raises ToolError that names every missing program and its Debian package."""
    missing = [p for p in programs if shutil.which(p, path=environment()["PATH"]) is None]
    if missing:
        packages = sorted({PACKAGES.get(p, p) for p in missing})
        raise ToolError(f"missing on this machine: {', '.join(missing)}", hint=f"apt-get install {' '.join(packages)}")


def run_tool(
    argv: Sequence[str | Path],
    *,
    timeout: float = 600,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    ok: Sequence[int] = (0,),
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, or kill it with all its children after `timeout` seconds.

    Raises ToolError when it is missing, takes too long, or ends with a status that is not in `ok`;
    `.output` has the end of what it said.
    """
    command = [str(a) for a in argv]
    need(command[0])
    _LOG.debug("run %s", command)
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(env),
        cwd=cwd,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        _kill(process)
        raise ToolError(
            f"{command[0]} did not end within {timeout:.0f} s",
            hint="is the machine overloaded, or the mirror out of reach?",
        ) from None
    except BaseException:
        _kill(process)
        raise
    if process.returncode not in ok:
        said = "\n".join((err or out).decode(errors="replace").strip().splitlines()[-30:])
        last = said.splitlines()[-1] if said else "it said nothing"
        raise ToolError(
            f"{command[0]} failed with status {process.returncode}: {last}",
            hint="run again with --verbose and read its output",
            output=said,
        )
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def unshare(argv: Sequence[str | Path], *, timeout: float = 600) -> subprocess.CompletedProcess[bytes]:
    """Run a program as root of a user namespace (of a mount namespace, when we are root already).

    Through mmdebstrap's helper: it maps the sub-ids of /etc/subuid, and Ubuntu's AppArmor lets it do so.
    """
    need("mmdebstrap", *(() if os.geteuid() == 0 else ("newuidmap",)))
    return run_tool(["mmdebstrap", "--unshare-helper", *argv], timeout=timeout)


# --- mirrors ----------------------------------------------------------------------------------------------------


def mirror(setting: str | None = None) -> str:
    """URL of the Debian archive: the setting; else the machine's own if it is Debian; else Debian's public one."""
    return (setting or (_own_uri(security=False) if _is_debian() else None) or PUBLIC).rstrip("/")


def security_mirror(archive: str, suite: str) -> str:
    """URL of the security archive that goes with `archive`.

    The sibling `debian-security` of the same server where there is one, else the machine's own, else Debian's.
    """
    sibling = re.sub(r"/debian(?=/|$)(?!.*/debian(?=/|$))", "/debian-security", archive)
    if sibling != archive and _answers(f"{sibling}/dists/{suite}-security/InRelease"):
        return sibling
    own = _own_uri(security=True) if _is_debian() else None
    return (own or f"{PUBLIC}-security").rstrip("/")


def sources(archive: str, suite: str, *components: str) -> list[str]:
    """Lines of a sources.list for suite, updates and security, trusting Debian's archive keys only. Default component: main."""
    names = " ".join(components or ("main",))
    if not KEYRING.is_file():
        raise ToolError(f"{KEYRING} is missing", hint="apt-get install debian-archive-keyring")

    def line(url: str, name: str) -> str:
        # snapshot.debian.org serves Release files whose Valid-Until is long over.
        old = " check-valid-until=no" if "snapshot.debian.org" in url else ""
        return f"deb [signed-by={KEYRING}{old}] {url} {name} {names}"

    lines = [line(archive, suite), line(archive, f"{suite}-updates")]
    if suite not in {"sid", "unstable"}:
        lines.append(line(security_mirror(archive, suite), f"{suite}-security"))
    return lines


def release_date(archive: str, suite: str) -> int:
    """Seconds since 1970 of the suite's Release file: for a stable suite, its last point release."""
    text = _get(f"{archive}/dists/{suite}/InRelease").decode(errors="replace")
    found = re.search(r"^Date: (.+)$", text, re.MULTILINE)
    when = email.utils.parsedate_to_datetime(found.group(1)).timestamp() if found else 0.0
    if not 1_600_000_000 < when < time.time() + 7 * 86400:
        raise ToolError(f"{archive} has no believable date in dists/{suite}/InRelease", hint="choose another --mirror")
    return int(when)


def _is_debian() -> bool:
    with contextlib.suppress(OSError):
        return re.search(r"^ID=\"?debian\"?$", Path("/etc/os-release").read_text(), re.MULTILINE) is not None
    return False


def _own_uri(*, security: bool, etc: Path = Path("/etc/apt")) -> str | None:
    """The first http(s) archive in the machine's sources that carries a Debian suite."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]
    found: list[str] = []
    for file in files:
        with contextlib.suppress(OSError):
            found += re.findall(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(?:\S+)\s+main\b", file.read_text(), re.MULTILINE)
    for file in sorted((etc / "sources.list.d").glob("*.sources")):
        with contextlib.suppress(OSError):
            for stanza in re.split(r"\n\s*\n", file.read_text()):
                if re.search(r"^Components:.*\bmain\b", stanza, re.MULTILINE):
                    found += re.findall(r"^URIs:\s*(\S+)", stanza, re.MULTILINE)
    for uri in found:
        url = _first_of_list(uri) if uri.startswith("mirror+file:") else uri
        path = urllib.parse.urlsplit(url).path.rstrip("/")
        is_debian = url.startswith(("http://", "https://")) and re.search(r"/debian(-security)?(/|$)", path)
        if is_debian and ("debian-security" in path) == security:
            return url.rstrip("/")
    return None


def _first_of_list(uri: str) -> str:
    """Debian's cloud images name their mirrors in a file of URLs (apt-transport-mirror(1))."""
    with contextlib.suppress(OSError, IndexError):
        return Path(urllib.parse.urlsplit(uri).path).read_text().split()[0]
    return ""


def _get(url: str, *, timeout: float = 30) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310 - a mirror that the operator chose
            return bytes(answer.read(4 << 20))
    except (OSError, ValueError) as exc:
        raise ToolError(
            f"cannot fetch {url}: {exc}", hint="check the network, http_proxy, or choose another mirror"
        ) from exc


def _answers(url: str) -> bool:
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


# --- mmdebstrap -------------------------------------------------------------------------------------------------


def mmdebstrap(
    target: Path,
    suite: str,
    source_lines: Sequence[str],
    *,
    include: Sequence[str] = (),
    variant: str = "minbase",
    epoch: int,
    setup: Sequence[str] = (),
    extract: Sequence[str] = (),
    essential: Sequence[str] = (),
    customize: Sequence[str] = (),
    dpkg_options: Sequence[str] = (),
    apt_options: Sequence[str] = (),
    skip: Sequence[str] = (),
    architecture: str = "amd64",
    cache: str = "",
    timeout: float = 3600,
) -> None:
    """Make a Debian root file system in `target` (FILE.tar, FILE.squashfs or a folder), without root.

    `setup`, `extract`, `essential`, `customize` are mmdebstrap's hooks, each a shell line that sees the tree as `$1`,
    or one of its own verbs (`copy-in`, `upload`, `download`, ...). Downloaded packages are kept in the cache, so
    that the next build fetches only what changed; `cache` names the set, so that one build does not carry the
    packages of another through its pipes. `epoch` becomes SOURCE_DATE_EPOCH and the latest time of any file.
    """
    need("mmdebstrap", "apt-get", *(() if os.geteuid() == 0 else ("newuidmap",)))
    debs = paths.cache() / "debs" / f"{suite}-{cache or variant}"
    debs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=debs) as fresh:
        skips = ["download/empty", "essential/unlink", *skip]
        argv: list[str] = ["mmdebstrap", "--mode=unshare", f"--variant={variant}", f"--architectures={architecture}"]
        argv += [f"--include={','.join(include)}"] if include else []
        argv += [f"--skip={','.join(skips)}"]
        argv += [f"--dpkgopt={o}" for o in dpkg_options] + [f"--aptopt={o}" for o in apt_options]
        argv += ['--setup-hook=mkdir -p "$1"/var/cache/apt/archives/']
        argv += [f"--setup-hook=sync-in {shlex.quote(str(_usable(debs, Path(fresh))))} /var/cache/apt/archives/"]
        # sync-in gives the folder to whoever runs us; that must not show in the image.
        argv += ['--setup-hook=chown -R 0:0 "$1"/var/cache/apt/archives && chmod 755 "$1"/var/cache/apt/archives']
        argv += [f"--setup-hook={h}" for h in setup]
        # With the variant `extract` nothing is installed and no later hook runs.
        last = "extract" if variant == "extract" else "customize"
        argv += [f"--{last}-hook=sync-out /var/cache/apt/archives {shlex.quote(fresh + '/out')}"]
        argv += [f"--extract-hook={h}" for h in extract] + [f"--essential-hook={h}" for h in essential]
        argv += [f"--customize-hook={h}" for h in customize]
        argv += [suite, str(target), "-"]
        (Path(fresh) / "out").mkdir()
        try:
            said = ("\n".join(source_lines) + "\n").encode()
            run_tool(argv, timeout=timeout, stdin=said, env={"SOURCE_DATE_EPOCH": str(epoch)})
        except ToolError as exc:
            raise _apt_said(exc) from exc
        _keep(Path(fresh) / "out", debs)


def _apt_said(exc: ToolError) -> ToolError:
    """The first complaint is the cause; the last, which run_tool quotes, only says that something failed."""
    complaints = re.findall(r"^E: (.+)$", exc.output, re.MULTILINE)
    if not complaints:
        return exc
    return ToolError(
        f"mmdebstrap failed: {complaints[0]}",
        hint="check the names of the packages, the mirror, and `df /tmp` (TMPDIR chooses another place)",
        output=exc.output,
    )


def _usable(debs: Path, fresh: Path) -> Path:
    """A folder of hard links to the kept packages: what another build adds or removes meanwhile does not disturb us."""
    inside = fresh / "in"
    inside.mkdir()
    for deb in debs.glob("*.deb"):
        with contextlib.suppress(FileNotFoundError):
            os.link(deb, inside / deb.name)
    return inside


def _keep(used: Path, debs: Path) -> None:
    """Move what this build downloaded into the cache, each by one rename; forget what no build used for a month."""
    now = time.time()
    for deb in used.glob("*.deb"):
        os.utime(deb, (now, now))
        deb.replace(debs / deb.name)
    for deb in debs.glob("*.deb"):
        with contextlib.suppress(FileNotFoundError):
            if now - deb.stat().st_mtime > KEEP_DEBS:
                deb.unlink()
