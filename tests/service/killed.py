"""A controller that dies: SITE STEP WHEN. `before`: nothing of the step was done. `after`: all was done, nothing was noted."""

import os
import sys
from pathlib import Path

from drive import finish, reimage

from metalimmu.service.site import OpenSite
from metalimmu.store.records import FINAL
from metalimmu.workflows import reimage as workflow

folder, step, when = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
perform = workflow.perform


def dying(one, context, limit):
    if one.name == step and when == "before":
        os.kill(os.getpid(), 9)
    result = perform(one, context, limit)
    if one.name == step and when == "after":
        os.kill(os.getpid(), 9)
    return result


if step != "resume":
    workflow.perform = dying
    reimage(folder)
else:
    site = OpenSite(folder)
    runs = [r.id for r in site.store.runs() if r.status not in FINAL]
    for record in finish(site, runs):
        print(record.status, record.error)
