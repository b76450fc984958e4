"""SONiC's zero touch provisioning: which files it takes from us, and in what order. Pure.

https://github.com/sonic-net/SONiC/blob/master/doc/ztp/ztp.md: `ztp.json` names sections, done in lexical order; what a
role's `config` names is rendered per switch. The last section runs report.sh.
"""

from __future__ import annotations

import json
from functools import cache

from metalimmu import paths
from metalimmu.boot import scripts
from metalimmu.errors import TemplateError

ZTP = "ztp.json"
CONFIG = "config_db.json"
REPORT = "report.sh"
JSON, TEXT = "application/json", "text/plain"

_LAST = "90-report"


def files(rendered: dict[str, str], base: str) -> dict[str, tuple[str, str]]:
    """Name -> content and MIME type. `base` is the address of this deployment's files, without a trailing slash.

    Raises TemplateError for a ztp.json of the site's own that is no object with `ztp`.
    """
    found = {name: (text, JSON if name.endswith(".json") else TEXT) for name, text in rendered.items()}
    if ZTP in rendered or CONFIG in rendered:
        found[ZTP] = (_ztp(rendered.get(ZTP), base, config=CONFIG in rendered), JSON)
    found[REPORT] = (_report().replace("{{ url }}", f"{base}/report"), "text/x-shellscript")
    return found


def _ztp(own: str | None, base: str, *, config: bool) -> str:
    """The site's own, with our report behind it; or one that takes config_db.json."""
    if own is None:
        source = {"source": f"{base}/{CONFIG}", "destination": "/etc/sonic/config_db.json"}
        sections: dict[str, object] = {"01-configdb-json": {"url": source}} if config else {}
    else:
        try:
            sections = dict(json.loads(own)["ztp"])
        except (ValueError, KeyError, TypeError) as exc:
            raise TemplateError(
                "ztp.json is no object with `ztp` in it", hint='write {"ztp": {"01-configdb-json": {...}}}'
            ) from exc
    last = _LAST if all(name < _LAST for name in sections) else "zz-report"
    sections[last] = {"plugin": {"url": f"{base}/{REPORT}"}}
    return json.dumps({"ztp": dict(sorted(sections.items()))}, indent=2) + "\n"


@cache
def _report() -> str:
    return (paths.data("pxe") / "onie" / "report.sh.j2").read_text()


def fragment(address: str = "") -> str:
    """Lines of dnsmasq's configuration for switches. `address`: where their syslog is heard; empty: nowhere."""
    return scripts.render("onie/dnsmasq.conf.j2", address=address)


def dhcp_lines(
    host: str, mac: str, *, installer: str | None, ztp: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Lines for dnsmasq's files of hosts and of options, for one switch. An address that is None is not given."""
    tag = f"switch-{host.replace('.', '-')}"
    options = []
    if installer:  # VIVSO of the Open Compute Project, sub-option 1; and default-url for those that ask for it
        options.append(f'tag:onie,tag:{tag},vi-encap:42623,1,"{installer}"')
        options.append(f'tag:onie,tag:{tag},114,"{installer}"')
    if ztp:
        options.append(f'tag:ztp,tag:{tag},67,"{ztp}"')
    return (f"{mac},set:{tag}",), tuple(options)
