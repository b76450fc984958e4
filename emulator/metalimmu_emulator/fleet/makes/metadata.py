"""$metadata: which schemas the documents of a service are of (DSP0266 8.4.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

EDMX, EDM = "http://docs.oasis-open.org/odata/ns/edmx", "http://docs.oasis-open.org/odata/ns/edm"
SCHEMAS = "http://redfish.dmtf.org/schemas/v1"
# Not of DMTF: served by the BMC itself on real machines; their schemas are the makes' own.
MAKERS = ("Dell", "Hpe", "Lenovo", "Smc", "Nvidia", "OpenBmc", "NTP", "Syslog", "SysLockdown", "Lldp")


def document(documents: Iterable[dict[str, Any]]) -> str:
    types = {str(d["@odata.type"]).removeprefix("#").rpartition(".")[0] for d in documents if "@odata.type" in d}
    names: dict[str, set[str]] = {}
    for versioned in types | {"ServiceRoot", "Session.v1_7_0"}:
        names.setdefault(versioned.partition(".")[0], set()).add(versioned)
    references = "".join(
        f'  <edmx:Reference Uri="{SCHEMAS}/{name}_v1.xml">\n'
        + "".join(f'    <edmx:Include Namespace="{n}"/>\n' for n in sorted({name, *found}))
        + "  </edmx:Reference>\n"
        for name, found in sorted(names.items())
        if not name.startswith(MAKERS)
    )
    root = max(n for n in names["ServiceRoot"] if "." in n)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<edmx:Edmx xmlns:edmx="{EDMX}" Version="4.0">\n{references}'
        f'  <edmx:DataServices>\n    <Schema xmlns="{EDM}" Namespace="Service">\n'
        f'      <EntityContainer Name="Service" Extends="{root}.ServiceContainer"/>\n'
        "    </Schema>\n  </edmx:DataServices>\n</edmx:Edmx>\n"
    )
