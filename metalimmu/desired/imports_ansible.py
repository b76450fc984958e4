"""An Ansible inventory's hosts as host documents. Pure.

Groups become labels. Of a host's variables only its BMC's address and its serial number are taken: inventories hold passwords,
and none of them may end up in a document. What Ansible would work out when it runs (`{{ ... }}`, a vault) is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from metalimmu.desired.ansible_inventory import Inventory
from metalimmu.desired.imports import Imported, bmc_url, clean, label, named, short
from metalimmu.desired.merge import Candidate

BMC_VARS = (
    "bmc_address",
    "bmc_host",
    "bmc_ip",
    "bmc",
    "idrac_ip",
    "idrac_host",
    "ilo_host",
    "ilo_ip",
    "ilo_address",
    "xcc_ip",
    "oob_address",
    "oob_ip",
    "ipmi_address",
    "ipmi_host",
    "baseuri",
)
"""Names under which people keep it; those of dellemc.openmanage, hpe.ilo and community.general among them. Not ansible_host: that is
the operating system's address, unless --bmc-var says otherwise.
"""
SERIAL_VARS = ("serial", "serial_number", "service_tag")
GROUPS_OF_ALL = frozenset({"all", "ungrouped"})


def imported(
    inventory: Inventory,
    *,
    bmc_vars: Iterable[str] = BMC_VARS,
    scheme: str = "redfish+https",
    groups: Iterable[str] = (),
) -> Imported:
    """Host documents of an inventory's hosts, of `groups` alone if there are some. Group variables count, the host's own win."""
    result = Imported([], [])
    of_host = inventory.groups_of()
    wanted = set(groups)
    names = list(dict.fromkeys(bmc_vars))
    for host, own in inventory.hosts.items():
        mine = of_host.get(host, [])
        if wanted and not wanted & set(mine):
            continue
        # The groups nearest to the host come first in its list.
        inherited = [inventory.vars.get(g, {}) for g in [*reversed(mine), "all"]]
        variables = {k: v for layer in [inherited[-1], *inherited[:-1], own] for k, v in layer.items()}
        found = next(((n, variables[n]) for n in names if variables.get(n) not in (None, "")), None)
        bmc, why = _bmc(found, host, scheme, names)
        if not bmc:
            result.left_out.append(f"{short(host)}: {why}")
            continue
        serial = next((short(own[n]) for n in SERIAL_VARS if short(own.get(n))), "")  # of a host, never of a group
        labels = {label(g): "true" for g in sorted(mine) if g not in GROUPS_OF_ALL and label(g)}
        fields = {"name": named(host), "bmc": bmc, "serial": "" if "{{" in serial else serial, "labels": labels}
        result.candidates.append(Candidate(clean(fields), f"Ansible host {short(host)}"))
    return result


def _bmc(found: tuple[str, Any] | None, host: str, scheme: str, names: list[str]) -> tuple[str, str]:
    """(address, why not)"""
    if found is None:
        return "", f"no variable with its BMC's address ({', '.join(names[:4])}, ...); --bmc-var names another"
    name, value = found
    text = short(value)
    if "{{" in text and re.fullmatch(r"\{\{\s*inventory_hostname\s*\}\}.*", text):
        text = re.sub(r"\{\{\s*inventory_hostname\s*\}\}", host, text)
    if "{{" in text or not text:
        return "", f"{name} is worked out when Ansible runs: import the output of `ansible-inventory --list`"
    bmc = bmc_url(text, "ipmi" if name.startswith("ipmi") else scheme)
    shown = "has a login in it" if "@" in text else f"is {text!r}, which is no address"
    return bmc, "" if bmc else f"{name} {shown}"
