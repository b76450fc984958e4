"""A controller that a test can kill: SITE. The site's worker, until it is killed or every run has ended; then it says how."""

import sys
import time
from pathlib import Path

from drive import PACE

from metalimmu.service.site import OpenSite
from metalimmu.service.worker import Worker
from metalimmu.store.records import FINAL, RunStatus

site = OpenSite(Path(sys.argv[1]))
worker = Worker(site, pace=PACE)
waiting = (RunStatus.interrupted,)
try:
    while True:
        worker.try_start()
        worker.check()
        runs = site.store.runs(limit=1000)
        if runs and all(r.status in FINAL or r.status in waiting for r in runs) and "--once" in sys.argv:
            break
        time.sleep(0.05)
finally:
    worker.stop()
for run in site.store.runs(limit=1000):
    print(run.host, run.status, run.error)
