"""One switch over SSH: what it says, and what is asked of it. Which NOS it runs is found out, never assumed."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from metalimmu.desired.types import Mode
from metalimmu.errors import BmcBroken, BmcReadOnly, BmcRefused, BmcUnreachable, BmcUnsupported, ImageCorrupt, NosAbsent
from metalimmu.nos import parse
from metalimmu.nos.adapter import DETECT, Adapter, adapters, fitting
from metalimmu.nos.ports import Said, Shell
from metalimmu.observed.switch import SwitchFacts
from metalimmu.observed.types import WriteRequest

LOOK = 90.0  # seconds for all facts together: some start a container's program
ACT = 120.0
MODES = re.compile(r"ONIE mode:\s*(\w+)")  # `Default boot: ONIE mode: install`


class SshNos:
    """`before_write` runs before each act and stops it by raising; `mode` read-only forbids all of them."""

    def __init__(
        self,
        shell: Shell,
        *,
        name: str,
        mode: Mode = "read-only",
        before_write: Callable[[], None] = lambda: None,
    ) -> None:
        self._shell = shell
        self._name = name
        self._mode = mode
        self._before_write = before_write
        self._known: tuple[str, Adapter, dict[str, str]] | None = None
        self._sent: list[WriteRequest] = []

    def sent(self) -> list[WriteRequest]:
        """Acts so far, in order."""
        return list(self._sent)

    def probe(self) -> SwitchFacts:
        self._known = None
        return self.facts("boot", "slots")

    def facts(self, *only: str) -> SwitchFacts:
        if not only:
            self._known = None  # it may have been reimaged since
        nos, adapter, release = self._adapter()
        answers = self._ask({k: v for k, v in adapter.questions.items() if not only or k in only})
        unknown: dict[str, str] = {}
        found: dict[str, Any] = {}

        def read(name: str, reader: Callable[[str], Any], field: str = "") -> Any:
            said = answers.get(name)
            if said is None:
                return None
            if said.status != 0:
                unknown[field or name] = (said.err.strip() or f"exit status {said.status}")[:200]
                return None
            try:
                value = reader(said.out)
            except ValueError as exc:
                unknown[field or name] = str(exc)[:200]
                return None
            found[field or name] = value
            return value

        machine = read("machine", parse.fields) or {}
        eeprom = read("eeprom", parse.eeprom) or {}
        for name, reader in _READERS.items():
            read(name, reader)
        read("mgmt", parse.mac, "mgmt_mac")
        read("boot", parse.word, "boot_id")
        read("route", parse.route, "controller_port")
        read("onie_mode", _mode)
        if adapter.pair:
            read("pair", parse.clag if adapter.pair == "clag" else parse.mclag)
        for name in ("machine", "eeprom"):
            found.pop(name, None)
        return SwitchFacts(
            nos=nos,
            version=release.get(adapter.version, ""),
            build_id=release.get("BUILD_ID", ""),
            platform=machine.get("onie_platform", ""),
            mgmt_port=adapter.mgmt,
            unknown=unknown,
            **{"serial": eeprom.get("serial", ""), "base_mac": eeprom.get("base_mac", "").lower(), **found},
        )

    def boot_id(self) -> str:
        """Raises BmcUnreachable."""
        said = self._run("cat /proc/sys/kernel/random/boot_id", ACT)
        return said.out.strip()[:64]

    def into_onie(self) -> str:
        return self._onie("install")

    def onie_none(self) -> str:
        return self._onie("none")

    def reboot(self) -> None:
        _, adapter, _ = self._adapter()
        with suppress(BmcUnreachable):  # it went before it could answer: that is what was asked
            self._act(f"{adapter.root}reboot", "reboot")

    def drain(self) -> None:
        self._optional(self._adapter()[1].drain, "drain")

    def undrain(self) -> None:
        self._optional(self._adapter()[1].undrain, "undrain")

    def install(self, url: str, sha256: str, *, limit: float) -> str:
        _, adapter, _ = self._adapter()
        file = shlex.quote(adapter.keep)
        self._act(adapter.fetched(url), "fetch the image", limit=limit)
        try:
            said = self._act(f"{adapter.root}sha256sum {file}", "hash the image").split()
            if not said or said[0] != sha256:
                raise ImageCorrupt(
                    f"{self._name} fetched {said[0][:16] if said else 'nothing'}…, the image has {sha256[:16]}…",
                    hint="is there a cache or proxy between switch and controller?",
                )
            slot = parse.word(self._act(adapter.installer(f"binary-version {file}"), "ask for the slot's name"))
            before = parse.slots(self._run(adapter.installer("list"), LOOK).out)
            if slot == before.current:
                raise BmcRefused(f"{self._name} runs {slot} already", hint="`--method onie` installs it anew")
            self._act(adapter.installer(f"install -y {file}"), "install the image", limit=limit)
            # The installer makes the new one the default; until it is proven the old one is.
            self._act(adapter.installer(f"set-default {shlex.quote(before.current)}"), "keep the default")
        finally:
            with suppress(BmcUnreachable, BmcRefused):
                self._act(f"{adapter.root}rm -f {file}", "remove the file")
        return slot

    def next_boot(self, slot: str) -> None:
        self._act(self._adapter()[1].installer(f"set-next-boot {shlex.quote(slot)}"), "boot the other slot once")

    def default(self, slot: str) -> None:
        self._act(self._adapter()[1].installer(f"set-default {shlex.quote(slot)}"), "make the slot the default")

    def _onie(self, mode: str) -> str:
        said = self._act(self._adapter()[1].onie_mode(mode), f"ONIE mode {mode}")
        return _mode(said)

    def _optional(self, command: str, what: str) -> None:
        if command:
            self._act(command, what)

    def _adapter(self) -> tuple[str, Adapter, dict[str, str]]:
        if self._known is None:
            pieces = (self._run(DETECT, LOOK).out + "\n---\n---").split("\n---")
            release, sonic, onie = (parse.fields(p) for p in pieces[:3])
            name = fitting(release, sonic)
            if not name and onie.get("onie_platform"):
                raise NosAbsent(f"{self._name} is in ONIE: no NOS answers")
            if not name:
                what = release.get("PRETTY_NAME") or release.get("ID") or "nothing that says what it is"
                raise BmcUnsupported(
                    f"{self._name} runs {what[:80]}, which no adapter knows; there are: {', '.join(adapters())}",
                    hint="is this the address of the switch's own NOS?",
                )
            self._shell.confirm()
            self._known = (name, adapters()[name], {**release, **sonic})
        return self._known

    def _ask(self, questions: dict[str, str]) -> dict[str, Said]:
        """All in one connection. A mark that nobody can guess stands between the answers."""
        mark = f"=== {secrets.token_hex(8)}"
        parts = ["E=$(mktemp)"]
        for name, command in questions.items():
            parts.append(
                f'echo "{mark} {name}"; ( {command} ) 2>$E </dev/null; S=$?; echo; echo "{mark} $S"; head -c 300 $E'
            )
        said = self._run("; ".join([*parts, 'echo; rm -f "$E"']), LOOK)
        _, *pieces = said.out.split(mark)
        if len(pieces) < 2 * len(questions):
            raise BmcBroken(
                f"{self._name}: its answers break off after {len(pieces) // 2} of {len(questions)}",
                hint=f"look at its console; `metalimmu -vv switch show {self._name}` shows more",
            )
        found = {}
        for name, out, rest in zip(questions, pieces[::2], pieces[1::2], strict=False):
            status, _, err = rest.lstrip(" ").partition("\n")
            found[name] = Said(int(status) if status.strip().isdigit() else 1, out.partition("\n")[2], err)
        return found

    def _act(self, command: str, what: str, *, limit: float = ACT) -> str:
        """Raises BmcRefused with the command's own words."""
        if self._mode != "read-write":
            raise BmcReadOnly(f"{self._name}: mode read-only forbids: {what}")
        self._before_write()
        self._sent.append(request(self._name, command))
        said = self._run(command, limit)
        if said.status != 0:
            words = " ".join((said.err or said.out).split())[-300:] or "no word why"
            raise BmcRefused(
                f"{self._name}: {what}: exit status {said.status}: {words}",
                hint="run the command that `metalimmu run show -o json` lists as this login: may it use sudo without a password?",
            )
        return said.out

    def _run(self, command: str, limit: float) -> Said:
        return self._shell.run(command, limit=limit)


def request(name: str, command: str) -> WriteRequest:
    """An act, as evidence shows it."""
    return WriteRequest(method="SSH", path=name, body={"command": command})


def _mode(text: str) -> str:
    m = MODES.search(text)
    if not m:
        raise ValueError(f"no ONIE mode in {text.strip()[:80]!r}")
    return m[1]


_READERS: dict[str, Callable[[str], Any]] = {
    "serial": parse.word,
    "base_mac": parse.mac,
    "memory": parse.memory,
    "space": parse.space,
    "links": parse.links,
    "neighbours": parse.neighbours,
    "slots": parse.slots,
    "traffic": parse.traffic,
    "ztp": parse.ztp,
    "config": str,
    "nos_mode": parse.word,
}


def commands(nos: str) -> dict[str, tuple[str, ...]]:
    """Acts that are asked of this NOS, by step of a run; for plans."""
    adapter = adapters()[nos]
    found: dict[str, tuple[str, ...]] = {
        "shift": (adapter.drain,),
        "onie": (adapter.onie_mode("install"),),
        "restart": (f"{adapter.root}reboot",),
    }
    if adapter.fetch:
        found |= {
            "slot": (
                adapter.fetched("URL"),
                f"{adapter.root}sha256sum {adapter.keep}",
                adapter.installer(f"binary-version {adapter.keep}"),
                adapter.installer(f"install -y {adapter.keep}"),
                adapter.installer("set-default CURRENT"),
                f"{adapter.root}rm -f {adapter.keep}",
            ),
            "next": (adapter.installer("set-next-boot NEW"),),
            "keep": (adapter.installer("set-default NEW"),),
        }
    return {step: tuple(c for c in each if c) for step, each in found.items()}


def maybe(nos: str) -> dict[str, tuple[str, ...]]:
    """Acts that the new NOS is asked for where they are needed: it leads traffic away, or ONIE would install again."""
    adapter = adapters()[nos]
    found = {"settled": (adapter.onie_mode("none"),), "unshift": (adapter.undrain,)}
    return {step: tuple(c for c in each if c) for step, each in found.items()}
