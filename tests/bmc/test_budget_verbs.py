"""One budget of the BMCs for a scan in one process, and for plans, probes and power acts in another."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from collecting import Fleet, fleet

from metalimmu.errors import MetalimmuError
from metalimmu.service.brownfield.probe import probe
from metalimmu.service.hosts import power, power_status
from metalimmu.service.looking import look
from metalimmu.service.site import OpenSite

HOLDS = """
import sys
from pathlib import Path
from metalimmu.bmc.budget import Full
from metalimmu.service.site import OpenSite
site = OpenSite(Path(sys.argv[1]))
turns = []
while not isinstance(turn := site.budget.enter("r1"), Full):
    turns.append(turn)
print(len(turns), flush=True)
sys.stdin.read()
"""
VERBS: dict[str, Callable[[OpenSite], object]] = {
    "power status": lambda site: power_status(site, "h1"),
    "power on": lambda site: power(site, "h1", "on"),
    "plan": lambda site: look(site, site.spec("h1")),
    "probe": lambda site: list(probe(site, [site.spec("h1")])),
}


@pytest.fixture
def racks(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as made:
        yield made


@pytest.mark.parametrize("verb", VERBS)
def test_a_turn_that_another_process_has_is_waited_for(tmp_path: Path, racks: Fleet, verb: str) -> None:
    server = racks.bmc(login="none")
    folder = tmp_path / "site"
    (folder / "hosts").mkdir(parents=True)
    urls = 'urls: {bmc: "http://10.0.0.5:8080", machines: "https://10.1.0.5:8443"}'
    text = f"name: ams1\n{urls}\nmode: read-write\nbmc: {{per_rack: 2}}\ntls: {{ca: {racks.ca}}}\n"
    (folder / "site.yaml").write_text(text)
    (folder / "hosts/h.yaml").write_text(f"- {{name: h1, bmc: '{server.address}', location: {{rack: r1}}}}\n")
    site = OpenSite(folder)
    argv = [sys.executable, "-c", HOLDS, str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline().strip() == "2"
            begun = threading.Event()
            asked = threading.Thread(target=_ask, args=(verb, site, begun), daemon=True)
            asked.start()
            assert begun.wait(10)
            asked.join(0.7)
            assert asked.is_alive(), "it waits"
            assert server.requests == [], "and the BMC hears nothing meanwhile"
        finally:
            other.kill()  # the kernel gives back what a dead process held
        asked.join(30)
        assert not asked.is_alive()
        assert server.requests
    site.close()


def _ask(verb: str, site: OpenSite, begun: threading.Event) -> None:
    begun.set()
    with suppress(MetalimmuError):  # what the BMC answers is not the question here
        VERBS[verb](site)
