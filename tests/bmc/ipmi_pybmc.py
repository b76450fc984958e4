"""A BMC made with pyghmi's own server classes, as virtualbmc is: it answers SHA-256 with SHA-1. Each command it is given is
a line of standard output. Arguments: PORT USER PASSWORD.
"""

from __future__ import annotations

import sys
from typing import Any

from pyghmi.ipmi import bmc


class Recording(bmc.Bmc):  # type: ignore[misc]
    def handle_raw_request(self, request: dict[str, Any], session: Any) -> None:
        print(f"{request['netfn']:#x} {request['command']:#x}", flush=True)
        super().handle_raw_request(request, session)

    def get_power_state(self) -> str:
        return "on"


if __name__ == "__main__":
    port, user, password = sys.argv[1:]
    found = Recording({user: password}, port=int(port), address="127.0.0.1")
    print("ready", flush=True)
    found.listen()
