"""A controller that dies: SITE STEP WHEN, or SITE "nth write" N, or SITE "nth event" N.

`before`: nothing of the step was done. `after`: all was done, nothing was noted. `nth write`: right after the Nth write of
the run to store or BMC, wherever that is. `nth event`: right after the Nth line of the run's history.
"""

import os
import sys
import threading
from pathlib import Path

from drive import finish, reimage

from metalimmu.bmc.fake import FakeBmc
from metalimmu.boot import netboot
from metalimmu.service.site import OpenSite
from metalimmu.store.records import FINAL
from metalimmu.store.sqlite import SqliteStore
from metalimmu.workflows import reimage as workflow

WRITES = {
    SqliteStore: ("set_run", "update_host", "add_deployment", "update_deployment", "release_lease", "take_over"),
    FakeBmc: ("insert_media", "eject_media", "set_boot_override", "set_power"),
}

EVENTS = {SqliteStore: ("add_event",)}


def dying_at(step: str, when: str, perform):
    def dying(one, context, limit):
        if one.name == step and when == "before":
            os.kill(os.getpid(), 9)
        result = perform(one, context, limit)
        if one.name == step and when == "after":
            os.kill(os.getpid(), 9)
        return result

    return dying


def count_writes(writes, last: int) -> None:
    """Die after the `last` one that the workflow's own thread makes."""
    seen = iter(range(1, last + 1))

    def dying_after(function):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            if threading.current_thread().name.startswith("dbos-executor") and next(seen, last) == last:
                os.kill(os.getpid(), 9)
            return result

        return call

    for cls, names in writes.items():
        for name in names:
            setattr(cls, name, dying_after(getattr(cls, name)))


def main(folder: Path, step: str, when: str) -> None:
    netboot.RECENT = 0.0  # a simulated machine asks at once, and is told of an offer made a tenth of a second ago
    if step in ("nth write", "nth event"):
        count_writes(WRITES if step == "nth write" else EVENTS, int(when))
        reimage(folder)
    elif step == "run":
        reimage(folder)
    elif step != "resume":
        workflow.perform = dying_at(step, when, workflow.perform)
        reimage(folder)
    else:
        site = OpenSite(folder)
        runs = [r.id for r in site.store.runs() if r.status not in FINAL]
        for record in finish(site, runs):
            print(record.status, record.error)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
