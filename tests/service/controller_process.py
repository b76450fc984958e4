"""A controller that a test can kill: SITE [SECONDS]. The site's worker; SECONDS between looks who has its address."""

import sys
import time
from pathlib import Path

from drive import PACE

from metalimmu.service import presence
from metalimmu.service.site import OpenSite
from metalimmu.service.worker import Worker

presence.LOOK = float(sys.argv[2]) if len(sys.argv) > 2 else 3600.0
site = OpenSite(Path(sys.argv[1]))
worker = Worker(site, pace=PACE)
try:
    while True:
        worker.try_start()
        worker.check()
        time.sleep(0.05)
finally:
    worker.stop()
