"""The side `metalimmu-scan`: all that `metalimmu scan` does in a site, through its own verb, `service.scans.scan.scan`.

Reads the documents of a site with COUNT hosts and one profile, then: the collector and the walk over everything that a scan
reads (BIOS, firmware, boot order, secure boot, BMC settings: more than the 28 requests of the other sides, and 404 for what
this server does not have), paths and `$expand` remembered, the attribute registry looked for, each host judged against the
profile, every value and finding recorded in an SQLite store, and the changes looked for whose author the logs may tell. The
warm-up of two BMCs is a site of its own, so that what is measured is a first scan into an empty store.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks import scan_server as server
from benchmarks.scan_job import ATTRIBUTES, FIRMWARE, Read

SITE = """\
name: bench
urls: {bmc: "http://127.0.0.1:1", machines: "https://127.0.0.1:2"}
credentials: [{ref: "file:bmc.secret"}]
"""


class Scan:
    def __init__(self, keys: list[str], base: Callable[[int, int], str], keep: Callable[[int], bool]) -> None:
        """`keys`: our names of the firmware items. Of the BMCs that `keep` names the answer is looked up in the store."""
        self.keys = dict(zip(FIRMWARE, keys, strict=True))
        self.base = base
        self.keep = keep

    def __call__(self, numbers: range, port: int, at_once: int, take: Callable[[int, Any], None]) -> None:
        from metalimmu.service.scans.scan import scan
        from metalimmu.service.site import OpenSite

        with self._site(numbers, port, at_once) as folder:
            site = OpenSite(folder)
            try:
                scan(site)
                for known in site.store.known_hosts():
                    number = int(known.host[1:])
                    if known.state in ("match", "drift"):
                        take(number, self._found(site, known.host) if self.keep(number) else None)
            finally:
                site.close()

    def told(self, read: Read) -> Read:
        return read

    def _found(self, site: Any, host: str) -> Read:
        """In the words of the other sides, out of the store."""
        settings = site.store.values(host)
        names = {f"firmware.{key}": name for name, key in self.keys.items()}
        odd = [f.finding for f in site.store.current_findings([host]) if f.finding.word.value != "match"]
        return Read(
            {n: settings[f"bios.{n}"] for n in ATTRIBUTES if f"bios.{n}" in settings},
            {name: str(settings[setting]) for setting, name in names.items() if setting in settings},
            [names.get(f.setting) or f.setting.partition(".")[2] for f in odd],
        )

    @contextmanager
    def _site(self, numbers: range, port: int, at_once: int) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix="metalimmu-bench-"))
        try:
            for name in ("hosts", "profiles"):
                (folder / name).mkdir()
            (folder / "bmc.secret").write_text(f"{server.USER}:{server.PASSWORD}\n")
            (folder / "bmc.secret").chmod(0o600)
            (folder / "site.yaml").write_text(f"{SITE}bmc: {{per_site: {at_once * 8 // 7 + 1}}}\n")
            profile = {
                "match": {"vendor": "dell"},
                "bios_raw": ATTRIBUTES,
                "firmware": {self.keys[n]: {"exact": v} for n, v in FIRMWARE.items()},
            }
            (folder / "profiles/bench.yaml").write_text(yaml.safe_dump(profile))
            (folder / "hosts/all.yaml").write_text("".join(self._host(n, port) for n in numbers))
            yield folder
        finally:
            shutil.rmtree(folder)

    def _host(self, n: int, port: int) -> str:
        where = f"redfish+{self.base(n, port)}"
        return f"- {{name: h{n}, bmc: {where!r}, tls: {{verify: false}}, location: {{rack: r{n // 40}}}}}\n"
