"""The process behind a lab: it answers for all BMCs and owns the QEMU processes. `python -m metalimmu_emulator.supervisor DIR`.

It makes itself a daemon and prints its process number. QEMU dies with it, however it dies; it ends by itself when
its folder goes away.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from metalimmu.errors import LabError
from metalimmu_emulator import layout
from metalimmu_emulator.files import read_message, write_message
from metalimmu_emulator.layout import LabSpec, Supervisor
from metalimmu_emulator.processes import identify

if TYPE_CHECKING:
    from metalimmu_emulator import serve

TICK_SECONDS = 0.2
LOG = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]).resolve()
    if pid := os.fork():
        print(pid, flush=True)  # noqa: T201  # the answer to whoever started us
        return 0
    _become_daemon(folder / layout.LOG)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        _run(folder, stop)
    except Exception:
        LOG.exception("the lab's supervisor ends")
        return 1
    return 0


def _become_daemon(log: Path) -> None:
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)


def _run(folder: Path, stop: threading.Event) -> None:
    from metalimmu_emulator import app, certificate, ipmi, serve
    from metalimmu_emulator.bmc import Bmc
    from metalimmu_emulator.faults import Faults
    from metalimmu_emulator.qemu import Spawner, Vm
    from metalimmu_emulator.sessions import Sessions

    lab = read_message(LabSpec, folder / layout.LAB)
    if lab is None:
        raise LabError(f"{folder} is not a lab's folder")
    spawner, context, wsgi = Spawner(), certificate.context(folder), app.build()
    servers: list[serve.BmcServer] = []
    others = ipmi.Rack(lab.user, lab.password)
    try:
        for spec, port in zip(lab.servers, lab.bmc_ports, strict=True):
            home = layout.server_folder(folder, spec.name)
            faults = Faults(home)
            bmc = Bmc(Vm(spec, home, spawner, faults.active), Sessions(lab.user, lab.password), faults, wsgi)
            servers.append(serve.BmcServer(bmc, _listen(port), context))
        for server, port in zip(servers, lab.ipmi_ports or (0,) * len(servers), strict=True):
            others.add(server.bmc.vm, server.bmc.faults, port)
        for server in servers:
            server.start()
        others.start()
        me = identify(os.getpid())
        if me is None:
            raise LabError("/proc is not there")
        ports = tuple(server.port for server in servers)
        write_message(folder / layout.SUPERVISOR, Supervisor(me, ports, others.ports))
        LOG.info("%d BMCs answer on ports %s, over IPMI on %s", len(servers), ports, others.ports)
        _watch(folder, servers, stop)
    finally:
        others.close()
        for server in servers:
            server.bmc.vm.close()
        spawner.close()


def _listen(port: int) -> socket.socket:
    from metalimmu_emulator import serve

    try:
        return serve.listen(port)
    except OSError:
        return serve.listen(0)  # another program has it now; the site is written anew with what we got


def _watch(folder: Path, servers: list[serve.BmcServer], stop: threading.Event) -> None:
    while not stop.wait(TICK_SECONDS) and (folder / layout.LAB).exists():
        for server in servers:
            server.bmc.tick()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
