"""DMTF's service validator in a process of its own (it keeps its state in globals): prints what it found as JSON.

`python service_validator.py URL USER PASSWORD SCHEMAS`: as its own command does with --skipschema and --nooemcheck.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys

from redfish_service_validator import metadata
from redfish_service_validator.system_under_test import SystemUnderTest


def main(url: str, user: str, password: str, schemas: str) -> int:
    logging.disable(logging.CRITICAL)
    with contextlib.redirect_stdout(io.StringIO()):
        sut = SystemUnderTest(url, user, password, 30, "Session", None, None, None, ["LogEntry", "20"], True)
        metadata.parse_schema_files(schemas)
        sut.validate(None, "/redfish/v1/", "/redfish/v1/")
        sut.logout()
    found = [
        {"kind": result["Result"], "uri": uri, "property": name, "message": result["Message"]}
        for uri, resource in sut._resources.items()
        for name, result in resource["Results"].items()
        if result["Result"] in ("FAIL", "WARN")
    ]
    counts = {"pass": sut.pass_count, "warn": sut.warn_count, "fail": sut.fail_count, "skip": sut.skip_count}
    print(json.dumps({"counts": counts, "found": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
