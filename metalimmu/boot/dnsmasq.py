"""dnsmasq as a child of ours: DHCP, proxy DHCP and TFTP for machines that boot the network.

`config` is pure. The child's configuration, hosts and loaders are in a folder that dnsmasq may read after it has given up
root (its group, and nobody else); its leases are in the site's state, so that a machine keeps its address over restarts of either.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from metalimmu import log
from metalimmu.boot import scripts
from metalimmu.boot.loaders import http_path, ipxe
from metalimmu.desired import netboot
from metalimmu.desired.netboot import Netboot
from metalimmu.desired.units import seconds
from metalimmu.errors import ListenError, MetalimmuError, ToolError

UP = 10.0  # seconds
DOWN = 5.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  # seconds before it is started again

GROUP = "dip"  # dnsmasq runs in it by itself where it is; Debian's base system has it

_NEEDS = "CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE"

logger = log.get("dnsmasq")


def config(
    settings: Netboot,
    *,
    url: str,
    folder: Path,
    leases: Path,
    fragments: Iterable[str] = (),
) -> str:
    """The configuration file. `url`: where machines reach us in the clear; `fragments`: more of it.

    Raises ValueError for what `check` would refuse.
    """
    dhcp = settings.mode == "dhcp"
    pool = netboot.pool(settings.range or "") if dhcp else None
    network = pool.network if pool else netboot.proxied(settings.range or "")
    return scripts.render(
        "dnsmasq/dnsmasq.conf.j2",
        mode=settings.mode,
        group=GROUP,
        interface=settings.interface or "",
        folder=folder,
        leases=leases,
        first=pool.first if pool else None,
        last=pool.last if pool else None,
        network=network.network_address if network else None,
        netmask=network.netmask if network else None,
        lease=f"{max(120, round(seconds(settings.lease)))}s",  # dnsmasq takes no less
        router=settings.router,
        dns=settings.dns,
        answer=settings.answer,
        advertise=settings.advertise,
        ping=settings.ping,
        files=boot_files(settings, url),
        url=url,
        fragments=list(fragments),
    )


def boot_files(settings: Netboot, url: str) -> dict[str, str]:
    """What a machine's firmware loads first, by how it boots: bios, uefi (TFTP), http; what is missing is not served.

    dnsmasq as a proxy answers PXE clients alone, and the signed GRUB has no HTTP.
    """
    if settings.loader == "shim":
        return {"uefi": "bootx64.efi"}
    files = {"bios": "undionly.kpxe", "uefi": ipxe(settings)}
    return files | ({"http": f"{url}{http_path(settings)}"} if settings.mode == "dhcp" else {})


class Dnsmasq:
    """`start` and `stop` from one thread; `update` from any."""

    def __init__(
        self,
        text: str,
        *,
        folder: Path,
        leases: Path,
        files: Mapping[str, Path | bytes],
        said: Callable[[str], None] = lambda _line: None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        """`text`: from `config`, with the same folder and leases. `files`: what TFTP serves, by path. `said` gets each line of
        its log. `prefix`: a command that runs it, as `ip netns exec NAME`.
        """
        self._text = text
        self._folder = folder
        self._leases = leases
        self._files = files
        self._said = said
        self._prefix = prefix
        self._child: subprocess.Popen[str] | None = None
        self._keeper: threading.Thread | None = None
        self._stopping = threading.Event()
        self._up = threading.Event()
        self._last: deque[str] = deque(maxlen=20)
        self._lists = ("", "")
        self._updating = threading.Lock()

    @property
    def pid(self) -> int | None:
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self) -> None:
        """Raises ToolError (no dnsmasq, a wrong configuration) and ListenError (not permitted, another server has the port)."""
        self._write()
        self._check()
        end_stray(self._folder)
        self._spawn()
        deadline = time.monotonic() + UP
        while not self._up.wait(0.05):
            if self._child is None or self._child.poll() is not None or time.monotonic() > deadline:
                time.sleep(0.1)  # its last words
                self.stop()
                raise _refused(list(self._last))
        self._keeper = threading.Thread(target=self._keep, name="dnsmasq", daemon=True)
        self._keeper.start()
        logger.info("dnsmasq answers machines that boot the network")

    def stop(self) -> None:
        """Leases stay in their file. Nothing happens when it does not run."""
        self._stopping.set()
        child = self._child
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(DOWN)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(DOWN)
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join(DOWN)
        self._child = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def update(self, hosts: Iterable[str], options: Iterable[str]) -> bool:
        """Lines of dnsmasq's `dhcp-hostsfile` and `dhcp-optsfile`; read again without losing a lease. False: nothing is new."""
        lists = (_lines(hosts), _lines(options))
        with self._updating:
            if lists == self._lists:
                return False
            self._lists = lists
            if self._folder.is_dir():
                self._write_lists()
            child = self._child
            if child is not None and child.poll() is None and self._up.is_set():
                child.send_signal(signal.SIGHUP)
        return True

    def put(self, name: str, pieces: Iterable[bytes]) -> None:
        """One more file for TFTP, whole or not at all. Raises OSError, ToolError."""
        self._own_folder()
        target = self._folder / "tftp" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        root = self._folder / "tftp"
        for folder in target.relative_to(root).parents:
            (root / folder).chmod(0o755 if root / folder == target.parent else 0o711)
        scratch = target.with_name(f".{target.name}.new")
        with scratch.open("wb") as out:
            out.writelines(pieces)
        scratch.chmod(0o644)
        scratch.replace(target)

    def remove(self, name: str) -> None:
        """A file, or a folder with all that is in it."""
        target = self._folder / "tftp" / name
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    def _write(self) -> None:
        self._own_folder()
        root = self._folder / "tftp"
        root.mkdir(exist_ok=True)
        root.chmod(0o755)  # dnsmasq gives up root, and reads all of it after that
        for name, content in self._files.items():
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
            target.chmod(0o644)
        _replace(self._folder / "dnsmasq.conf", self._text)
        with self._updating:
            self._write_lists()
        self._leases.parent.mkdir(parents=True, exist_ok=True)

    def _own_folder(self) -> None:
        """For us and, as it gives up root, dnsmasq's group: addresses in it are secrets."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            try:
                shutil.chown(self._folder, group=GROUP)
            except LookupError:
                raise ToolError(
                    f"this machine has no group {GROUP}, which dnsmasq runs in", hint=f"groupadd --system {GROUP}"
                ) from None
        self._folder.chmod(0o750)

    def _write_lists(self) -> None:
        for name, text in zip(("hosts", "options"), self._lists, strict=True):
            _replace(self._folder / name, text)

    def _check(self) -> None:
        try:
            done = subprocess.run(
                ["dnsmasq", "--test", "-C", self._folder / "dnsmasq.conf"],
                check=False, capture_output=True, text=True, timeout=UP, env=_environment(),
            )  # fmt: skip
        except FileNotFoundError:
            raise ToolError(
                "dnsmasq is not installed: nobody answers machines that boot the network",
                hint="apt-get install dnsmasq-base; or `netboot: {mode: off}` in site.yaml",
            ) from None
        if done.returncode:
            raise ToolError(
                f"dnsmasq refuses its configuration: {done.stderr.strip()}",
                hint="look at `netboot:` and `urls.boot` in site.yaml: what it names comes from there",
                output=done.stderr,
            )

    def _spawn(self) -> None:
        self._up.clear()
        self._child = subprocess.Popen(
            [*self._prefix, "dnsmasq", "-k", "-C", str(self._folder / "dnsmasq.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for us
        )
        threading.Thread(target=self._listen, args=(self._child,), name="dnsmasq-log", daemon=True).start()

    def _listen(self, child: subprocess.Popen[str]) -> None:
        if child.stderr is None:
            return
        with child.stderr as lines:
            for line in lines:
                text = line.strip()
                self._last.append(text)
                if "started, version" in text:
                    self._up.set()
                logger.debug("%s", text)
                try:
                    self._said(text)
                except MetalimmuError as exc:  # of who listens to us; its log must be read on
                    logger.warning("a line of dnsmasq's log was not taken: %s", exc)
                except Exception:
                    logger.exception("a fault in metalimmu, reading dnsmasq's log")

    def _keep(self) -> None:
        """Start it again when it ends by itself."""
        wait = _FIRST_WAIT
        while not self._stopping.wait(0.5):
            child = self._child
            if child is None or child.poll() is None:
                continue
            logger.error("dnsmasq ended with status %s: %s", child.returncode, _refused(list(self._last)))
            if self._stopping.wait(wait):
                return
            wait = min(wait * 2, _LONGEST_WAIT)
            self._spawn()


def end_stray(folder: Path) -> None:
    """A dnsmasq that a killed controller has left, with this very configuration: it has our ports."""
    try:
        pid = int((folder / "dnsmasq.pid").read_text())
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return
    if str(folder / "dnsmasq.conf").encode() not in line.split(b"\0"):
        return
    logger.info("ending the dnsmasq that an earlier controller has left")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + DOWN
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)


def _refused(last: list[str]) -> ListenError | ToolError:
    said = " ".join(last[-2:]).replace("dnsmasq: ", "")
    if "Permission denied" in said or "Operation not permitted" in said or "not permitted" in said:
        return ListenError(
            f"dnsmasq needs root, or {_NEEDS}, to answer machines that boot the network ({said})",
            hint="start metalimmu as root; or `netboot: {mode: off}` in site.yaml and a DHCP server of your own",
        )
    if "Address already in use" in said:
        return ListenError(
            f"another program has the port of DHCP or TFTP ({said})",
            hint="`ss -lunp 'sport = :67 or sport = :69'` names it; beside a DHCP server elsewhere use `netboot: {mode: proxy}`",
        )
    if "unknown interface" in said:
        return ListenError(
            f"dnsmasq: {said}", hint="correct netboot.interface in site.yaml: `ip link` lists what there is"
        )
    return ToolError(f"dnsmasq ended at once: {said}", output="\n".join(last))


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text)
    scratch.chmod(0o644)
    scratch.replace(path)


def _environment() -> dict[str, str]:
    """Its words in English."""
    return {**os.environ, "LC_ALL": "C"}
