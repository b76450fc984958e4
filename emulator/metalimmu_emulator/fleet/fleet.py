"""`Fleet` and `Bmc`: start, look, change, stop. See the package's own words for how to use them."""

from __future__ import annotations

import asyncio
import base64
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec

from metalimmu.errors import LabError, UsageError
from metalimmu_emulator.fleet import certificates, inventory, processes, server, worker
from metalimmu_emulator.fleet.identity import Identity
from metalimmu_emulator.fleet.spec import NETWORK, Counters, FleetSpec, address, expanded

ATTEMPTS = 5  # at a port that is free for all addresses
ANSWER_SECONDS = 60.0


class Crew(Protocol):
    """Who serves: a thread of this process, or child processes."""

    port: int

    @property
    def alive(self) -> bool: ...

    def order(self, index: int | None, verb: str, arguments: dict[str, Any]) -> Any: ...

    def stop(self) -> None: ...


class Fleet:
    def __init__(
        self,
        members: Sequence[Any],  # names of makes, paths of recordings, Members
        *,
        folder: Path | None = None,
        processes: int = 0,
        latency: float = 0.0,
        tls: bool = True,
        port: int = 0,
        username: str = "operator",
        password: str = "correct horse",  # noqa: S107  # of machines that do not exist
        network: str = NETWORK,
        seed: int = 1,
        task_seconds: float = 0.2,
    ) -> None:
        self.spec = FleetSpec(
            members=expanded([str(m) if isinstance(m, Path) else m for m in members]),
            username=username, password=password, network=network, port=port, tls=tls, latency=latency, seed=seed,
            task_seconds=task_seconds,
        )  # fmt: skip
        self._processes = processes
        self._given = folder
        self.folder = folder or Path()
        self._crew: Crew | None = None
        self._names = {m.name: i for i, m in enumerate(self.spec.members)}

    @classmethod
    def attach(cls, folder: Path) -> Fleet:
        """To one that runs (`lab fleet --detach`). Raises LabError when there is none."""
        crew = processes.Children.found(folder)
        spec = msgspec.json.decode((folder / worker.SPEC).read_bytes(), type=FleetSpec)
        fleet = cls.__new__(cls)
        fleet.spec, fleet._processes, fleet._given, fleet.folder = spec, len(crew.ids), folder, folder  # noqa: SLF001
        fleet._crew, fleet._names = crew, {m.name: i for i, m in enumerate(spec.members)}  # noqa: SLF001
        return fleet

    def start(self, *, detached: bool = False) -> Self:
        """Returns when all answer. Raises LabError, UsageError."""
        for index in (0, len(self.spec.members) - 1):
            address(self.spec.network, index)
        self.folder = self._given or Path(tempfile.mkdtemp(prefix="fleet-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.spec.tls:
            certificates.create(self.folder, [address(self.spec.network, i) for i in range(len(self.spec.members))])
        try:
            self._crew = self._started(detached=detached)
            inventory.write(self.folder, self.spec, self.port)
        except BaseException:
            self.stop()
            raise
        return self

    def _started(self, *, detached: bool) -> Crew:
        for attempt in range(ATTEMPTS):
            try:
                if self._processes or detached:
                    return processes.Children.start(self.folder, self.spec, self._processes or 1, detached=detached)
                return _Thread(self.spec, self.folder)
            except server.PortTaken as exc:
                if self.spec.port or attempt == ATTEMPTS - 1:
                    hint = "choose another --port, or end the program that has it"
                    raise LabError(f"{exc} is taken", hint=hint) from exc
        raise AssertionError("unreachable")

    def stop(self) -> None:
        if self._crew is not None:
            self._crew.stop()
            self._crew = None
        if self._given is None and self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # what there is

    @property
    def port(self) -> int:
        return self._serving.port

    @property
    def alive(self) -> bool:
        """Do all that serve it run?"""
        return self._crew is not None and self._crew.alive

    @property
    def username(self) -> str:
        return self.spec.username

    @property
    def password(self) -> str:
        return self.spec.password

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate of the first hundred BMCs; empty without TLS."""
        return self[0].fingerprint

    @property
    def ca(self) -> Path:
        return self.folder / certificates.CA

    @property
    def inventory(self) -> Path:
        return self.folder / inventory.HOSTS

    @property
    def site(self) -> Path:
        return self.folder / inventory.SITE

    @property
    def credentials(self) -> str:
        """A reference for `credentials:` and `--credentials`."""
        return f"file:{self.folder / inventory.CREDENTIALS}"

    def counters(self) -> Counters:
        """The sum over all."""
        return msgspec.convert(self._serving.order(None, "counters", {}), Counters)

    def clear_counters(self) -> None:
        self._serving.order(None, "clear_counters", {})

    def fault(self, name: str, **parameters: Any) -> None:
        """On all of them."""
        self._serving.order(None, "fault", {"name": name, "parameters": parameters})

    def heal(self, *names: str) -> None:
        self._serving.order(None, "heal", {"names": list(names)})

    @property
    def _serving(self) -> Crew:
        if self._crew is None:
            raise LabError("this fleet is not started")
        return self._crew

    def __len__(self) -> int:
        return len(self.spec.members)

    def __iter__(self) -> Iterator[Bmc]:
        return (Bmc(self, i) for i in range(len(self)))

    def __getitem__(self, which: int | str) -> Bmc:
        if isinstance(which, str):
            return Bmc(self, self._names[which])
        return Bmc(self, range(len(self))[which])


class Bmc:
    """One of a fleet. Methods raise UsageError for what this make has not."""

    def __init__(self, fleet: Fleet, index: int) -> None:
        self._fleet = fleet
        self.index = index
        member = fleet.spec.members[index]
        self.name = member.name
        self.make = member.make
        self.ip = address(fleet.spec.network, index)
        self.username = fleet.username
        self.password = fleet.password

    @property
    def identity(self) -> Identity:
        return Identity(self.index + 1, self.name, self.ip, self._fleet.spec.seed, self.username)

    @property
    def serial(self) -> str:
        """Of a persona; a recording has the serial that was recorded."""
        return self.identity.serial()

    @property
    def uuid(self) -> str:
        return self.identity.uuid()

    @property
    def address(self) -> str:
        return inventory.bmc(self._fleet.spec, self.index, self._fleet.port)

    @property
    def url(self) -> str:
        return inventory.url(self._fleet.spec, self.index, self._fleet.port)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate; empty without TLS."""
        name = certificates.name(self.index)
        return certificates.fingerprint(self._fleet.folder, name) if self._fleet.spec.tls else ""

    def _order(self, verb: str, **arguments: Any) -> Any:
        return self._fleet._serving.order(self.index, verb, arguments)  # noqa: SLF001  # the two are one thing

    # counted

    def counters(self) -> Counters:
        return msgspec.convert(self._order("counters"), Counters)

    def clear_counters(self) -> None:
        self._order("clear_counters")

    def written(self) -> list[tuple[str, str, Any]]:
        """(method, path, body) of all writes."""
        return [(w[0], w[1], w[2]) for w in self._order("written")]

    # behind its back

    def document(self, uri: str) -> Any:
        return self._order("document", uri=uri)

    def edit(self, uri: str, changes: dict[str, Any], *, logged: bool = False, user: str = "") -> None:
        self._order("edit", uri=uri, edits=changes, logged=logged, user=user)

    def replace(self, uri: str, content: dict[str, Any] | bytes | None) -> None:
        if isinstance(content, bytes):
            self._order("replace", uri=uri, raw=base64.b64encode(content).decode())
        else:
            self._order("replace", uri=uri, document=content)

    def bios(self) -> dict[str, Any]:
        """What is in force."""
        return dict(self._order("bios"))

    def pending(self) -> dict[str, Any]:
        return dict(self._order("pending"))

    def set_bios(self, attributes: dict[str, Any], *, logged: bool = True, user: str = "") -> None:
        self._order("set_bios", attributes=attributes, logged=logged, user=user)

    def stage_bios(self, attributes: dict[str, Any], *, job: bool = True, user: str = "") -> None:
        """Until the next reset. Without `job` a Dell keeps them staged for ever."""
        self._order("stage_bios", attributes=attributes, job=job, user=user)

    def set_firmware(self, component: str, version: str, *, logged: bool = True, user: str = "") -> None:
        self._order("set_firmware", component=component, version=version, logged=logged, user=user)

    def update_bios(self, version: str, *, logged: bool = True, user: str = "") -> None:
        self._order("update_bios", version=version, logged=logged, user=user)

    def cmos_clear(self, *, logged: bool = True) -> None:
        self._order("cmos_clear", logged=logged)

    def factory_reset(self, *, user: str = "") -> None:
        self._order("factory_reset", user=user)

    def reset(self) -> None:
        """The host is power-cycled by somebody at its front panel."""
        self._order("reset")

    def power(self, state: str) -> None:
        """On | Off"""
        self._order("power", kind=state)

    def restart_bmc(self, seconds: float = 0.0) -> None:
        self._order("restart_bmc", seconds=seconds)

    def add_log(self, text: str, *, what: str = "other", user: str = "", at: float | None = None) -> None:
        self._order("add_log", text=text, what=what, user=user, at=at)

    def log_entries(self) -> list[dict[str, Any]]:
        return list(self._order("log_entries"))

    def fault(self, name: str, **parameters: Any) -> None:
        self._order("fault", name=name, parameters=parameters)

    def heal(self, *names: str) -> None:
        self._order("heal", names=list(names))

    def faults(self) -> list[str]:
        return list(self._order("faults"))


class _Thread:
    """A loop in a thread of this process."""

    def __init__(self, spec: FleetSpec, folder: Path) -> None:
        self.port = 0
        self._serving = server.Server(spec, range(len(spec.members)), folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True, name="fleet")
        self._thread.start()
        try:
            self.port = self._in_loop(self._open(spec.port))
        except BaseException:
            self.stop()
            raise

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _in_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_SECONDS)

    async def _open(self, port: int) -> int:
        return self._serving.open(port)

    async def _close(self) -> None:
        self._serving.close()
        await asyncio.sleep(0)  # the transports say goodbye

    async def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        return worker.obey(self._serving, order)

    def order(self, index: int | None, verb: str, arguments: dict[str, Any]) -> Any:
        return result(self._in_loop(self._obey({"bmc": index, "verb": verb, "args": arguments})))

    def stop(self) -> None:
        if self._loop.is_closed():
            return
        self._in_loop(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_SECONDS)
        self._loop.close()


def result(answer: dict[str, Any]) -> Any:
    """Raises UsageError."""
    if "error" in answer:
        raise UsageError(str(answer["error"]), hint=str(answer.get("hint", "")))
    return answer["result"]
