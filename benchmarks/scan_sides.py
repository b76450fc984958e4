"""Each way of reading a fleet, in a process of its own: `python -m benchmarks.scan_sides SIDE PORT COUNT AT_ONCE [EVERY]`.

Prints one line of JSON: CPU (user and system) and wall seconds of reading COUNT BMCs, imports and a warm-up of two BMCs
not counted, the most memory that the process had, and the answers of the first eight and of every EVERYth BMC; the others are read and compared
all the same, and then forgotten.

The rivals are written as their own documentation has it, with what makes them fast: one client session with a shared TLS
context and kept-alive connections, as many BMCs at once as everybody, the same JSON parser where they let one choose. Nobody
verifies the server's certificate. All but Ansible, which has its own ways, log in with a session and end it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import scan_server as server
from benchmarks.scan_job import ATTRIBUTES, FIRMWARE, Read, answer, compared
from benchmarks.scan_whole import Scan

LOGIN = {"UserName": server.USER, "Password": server.PASSWORD}
SAMPLE = 8  # the first, which a slow rival reads too
Take = Callable[[int, Any], None]
"""Is given each BMC's number and what was read."""


def base(number: int, port: int) -> str:
    return f"https://{server.address(number)}:{port}"


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# --- metalimmu: the reading and comparing part of `metalimmu scan`, which is what the rivals do too; `scan_whole` is all of it


class Metalimmu:
    """The collector with its time limits, retries and budget, the walk over BIOS and firmware alone, and the comparison with a
    profile. No site, no store, no attribute registry, no boot order and BMC settings, and nobody asks who made a change.
    """

    def __init__(self, *, remembered: bool = False) -> None:
        """`remembered`: with `$expand` and the paths that the warm-up has learnt."""
        from metalimmu.bmc import credentials
        from metalimmu.desired.neutral import neutral
        from metalimmu.desired.profile import Expectation, ResolvedProfile

        self.login = credentials.make(server.USER, server.PASSWORD)
        self.neutral = neutral()
        keys = dict(zip(FIRMWARE, self._keys(), strict=True))
        self.names = {f"firmware.{key}": name for name, key in keys.items()}
        wanted = [(f"bios.{name}", value) for name, value in ATTRIBUTES.items()]
        wanted += [(f"firmware.{keys[name]}", version) for name, version in FIRMWARE.items()]
        self.profile = ResolvedProfile(
            name="bench",
            chain=("bench",),
            expectations=tuple(Expectation(setting=s, op="equals", value=v) for s, v in wanted),
        )
        self.memory: dict[Any, Any] | None = {} if remembered else None
        self.known: Any = None

    @staticmethod
    def _keys() -> list[str]:
        """The names that the snapshot has for the firmware items, from a walk over the documents themselves."""
        from metalimmu.bmc.ask import Reply, drive
        from metalimmu.bmc.walk import Want, walk

        tree = server.tree(0)
        snapshot = drive(
            walk(_Target(0, 1), Want(frozenset({"firmware"}), expand=False)),
            lambda ask: Reply(200, {}, json.dumps(tree[ask.uri.rstrip("/")]).encode()),
        )
        assert isinstance(snapshot.firmware, tuple)
        return [item.key for item in snapshot.firmware]

    async def __call__(self, numbers: range, port: int, at_once: int, take: Take) -> None:
        async for number, read in self.read(numbers, port, at_once):
            take(number, read)

    def told(self, read: tuple[dict[str, Any], Any]) -> Read:
        """In the words of the rivals, who have no names of their own for settings."""
        settings, found = read
        attributes = {n: settings[f"bios.{n}"] for n in ATTRIBUTES if f"bios.{n}" in settings}
        firmware = {name: str(settings[key]) for key, name in self.names.items() if key in settings}
        differing = [
            self.names.get(f.setting) or f.setting.partition(".")[2] for f in found if f.word.value == "differs"
        ]
        return Read(attributes, firmware, differing)

    async def read(
        self, numbers: range, port: int, at_once: int
    ) -> AsyncIterator[tuple[int, tuple[dict[str, Any], Any]]]:
        """(number, (all settings, findings that are not `match`))."""
        from metalimmu.bmc.budget import Budget, Limits
        from metalimmu.bmc.collect import CollectSettings, collect
        from metalimmu.bmc.ledger import MemoryLedger
        from metalimmu.bmc.walk import Want, make_of, walk
        from metalimmu.plan.compare import compare
        from metalimmu.plan.types import Word

        want = Want(frozenset({"bios", "firmware"}), expand=self.memory is not None)
        memory = _Memory(self.memory) if self.memory is not None else None

        async def login(_: Any) -> Any:
            return self.login

        results = collect(
            (_Target(n, port) for n in numbers),
            lambda target: walk(target, want, memory, known=self.known),
            settings=CollectSettings(window=at_once),
            ledger=MemoryLedger(),
            budget=Budget(Limits(per_site=at_once * 8 // 7 + 1)),
            credentials=login,
        )
        async for result in results:
            snapshot = result.value
            if snapshot is None or result.failure is not None:
                raise RuntimeError(f"{result.target.name}: {result.failure}")
            if memory is not None and self.known is None:
                self.known = make_of(snapshot)
            found = compare(self.profile, snapshot, neutral=self.neutral, now=result.at)
            odd = [f for f in found if f.word is not Word.match]
            if any(f.word is not Word.differs for f in odd):
                raise RuntimeError(f"{result.target.name}: {odd}")
            yield result.target.number, (snapshot.settings, odd)


class _Target:
    """What the collector must know of a host."""

    system = credentials = proxy = None
    connect_timeout, read_timeout, mode = 10.0, 60.0, "read-only"

    def __init__(self, number: int, port: int) -> None:
        from metalimmu.desired.types import Tls

        self.number = number
        self.name = f"h{number}"
        self.bmc = f"redfish+{base(number, port)}"
        self.tls = Tls(verify=False)
        self.labels = {"rack": f"r{number // 40}"}


class _Memory:
    def __init__(self, kept: dict[Any, Any]) -> None:
        self.kept = kept

    def get(self, key: Any) -> Any:
        return self.kept.get(key)

    def put(self, key: Any, remembered: Any) -> None:
        self.kept[key] = remembered


# --- a hand-written script on aiohttp


async def with_aiohttp(numbers: range, port: int, at_once: int, take: Take) -> None:
    import aiohttp
    import msgspec

    parse = msgspec.json.decode
    connector = aiohttp.TCPConnector(ssl=unverified(), limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def one(number: int) -> Read:
            where = base(number, port)
            async with http.post(where + server.SESSIONS, json=LOGIN) as made:
                headers = {"X-Auth-Token": made.headers["X-Auth-Token"]}
                session = made.headers["Location"]

            async def get(path: str) -> Any:
                async with http.get(where + path, headers=headers) as answered:
                    answered.raise_for_status()
                    return parse(await answered.read())

            read = await job(get)
            async with http.delete(where + session, headers=headers):
                return read

        await at_a_time(one, numbers, at_once, take)


async def job(get: Callable[[str], Awaitable[Any]]) -> Read:
    """28 requests."""
    root = await get("/redfish/v1/")
    systems = await get(root["Systems"]["@odata.id"])
    system = await get(systems["Members"][0]["@odata.id"])
    bios = await get(system["Bios"]["@odata.id"])
    service = await get(root["UpdateService"]["@odata.id"])
    inventory = await get(service["FirmwareInventory"]["@odata.id"])
    firmware = {}
    for member in inventory["Members"]:
        item = await get(member["@odata.id"])
        firmware[item["Name"]] = item["Version"]
    return compared(bios["Attributes"], firmware)


async def at_a_time(one: Callable[[int], Awaitable[Read]], numbers: range, at_once: int, take: Take) -> None:
    rest = iter(numbers)

    async def worker() -> None:
        for number in rest:
            take(number, await one(number))

    await asyncio.gather(*(worker() for _ in range(at_once)))


# --- a minimal client on asyncio's streams: no library, knows this server only


async def with_streams(numbers: range, port: int, at_once: int, take: Take) -> None:
    context = unverified()

    async def one(number: int) -> Read:
        host = server.address(number)
        reader, writer = await asyncio.open_connection(host, port, ssl=context)

        async def ask(method: str, path: str, headers: str, body: bytes = b"") -> tuple[bytes, bytes]:
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}{length}\r\n".encode() + body)
            head = await reader.readuntil(b"\r\n\r\n")
            at = head.find(b"Content-Length: ")
            size = int(head[at + 16 : head.index(b"\r", at)]) if at >= 0 else 0
            return head, await reader.readexactly(size)

        head, _ = await ask("POST", server.SESSIONS, "", json.dumps(LOGIN).encode())
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        token = f"X-Auth-Token: {fields['X-Auth-Token']}\r\n"

        async def get(path: str) -> Any:
            return json.loads((await ask("GET", path, token))[1])

        read = await job(get)
        await ask("DELETE", fields["Location"], token)
        writer.transport.abort()
        return read

    await at_a_time(one, numbers, at_once, take)


# --- sushy, in threads


def with_sushy(numbers: range, port: int, at_once: int, take: Take) -> None:
    import sushy
    import urllib3

    urllib3.disable_warnings()

    def one(number: int) -> tuple[int, Read]:
        service = sushy.Sushy(base(number, port), username=server.USER, password=server.PASSWORD, verify=False)
        system = service.get_system("/redfish/v1/Systems/System.Embedded.1")
        attributes = system.bios.attributes
        items = service.get_update_service().firmware_inventory.get_members()
        read = compared(attributes, {item.name: item.version for item in items})
        service._auth.close()  # noqa: SLF001 - there is no public way
        return number, read

    with ThreadPoolExecutor(at_once) as pool:
        for number, read in pool.map(one, numbers):
            take(number, read)


def with_sushy_without_ca(numbers: range, port: int, at_once: int, take: Take) -> None:
    """sushy makes a connection for each request, and urllib3 loads the CA store for each connection, though nothing is
    verified: 17 ms each. Here that is switched off.
    """
    for name in ("load_default_certs", "load_verify_locations", "set_default_verify_paths"):
        setattr(ssl.SSLContext, name, lambda *_a, **_k: None)
    with_sushy(numbers, port, at_once, take)


# --- the measurement


def main(side: str, port: int, count: int, at_once: int, every: int = 1) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kept: dict[int, Any] = {}
    done = 0

    def keep(number: int) -> bool:
        return number % every == 0 or number < SAMPLE

    def take(number: int, found: Any) -> None:
        nonlocal done
        done += 1
        if keep(number):
            kept[number] = found

    read = Scan(Metalimmu._keys(), base, keep) if side == WHOLE else SIDES[side]()  # noqa: SLF001

    _run(read, range(2), port, at_once, lambda *_: None)
    gc.collect()
    cpu, wall = _cpu(), time.monotonic()
    _run(read, range(count), port, at_once, take)
    cpu, wall = _cpu() - cpu, time.monotonic() - wall
    peak = next(r for r in Path("/proc/self/status").read_text().splitlines() if r.startswith("VmHWM"))
    told = getattr(read, "told", lambda found: found)
    answers = {number: answer(told(found)) for number, found in kept.items()}
    memory = int(peak.split()[1]) * 1024
    print(json.dumps({"cpu": cpu, "wall": wall, "memory": memory, "done": done, "answers": answers}))


def _run(read: Any, numbers: range, port: int, at_once: int, take: Take) -> None:
    reading = read(numbers, port, at_once, take)
    if asyncio.iscoroutine(reading):
        asyncio.run(reading)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


WHOLE = "metalimmu-scan"
SIDES: dict[str, Callable[[], Any]] = {
    "metalimmu": Metalimmu,
    "metalimmu-remembered": lambda: Metalimmu(remembered=True),
    "aiohttp": lambda: with_aiohttp,
    "streams": lambda: with_streams,
    "sushy": lambda: with_sushy,
    "sushy-without-ca": lambda: with_sushy_without_ca,
}

if __name__ == "__main__":
    main(sys.argv[1], *(int(a) for a in sys.argv[2:]))
