"""Tasks and jobs: what a BMC does later, and how it shows that."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from metalimmu_emulator.fleet import bios
from metalimmu_emulator.fleet.identity import clock
from metalimmu_emulator.fleet.persona import Persona, Task

# what it is -> TaskState (DSP0268 Task), JobState (DSP0268 Job)
STATES = {
    "new": ("New", "New"),
    "scheduled": ("Pending", "Scheduled"),
    "running": ("Running", "Running"),
    "completed": ("Completed", "Completed"),
    "failed": ("Exception", "Exception"),
}
KEPT = 40


def start(
    persona: Persona,
    name: str,
    about: str,
    *,
    seconds: float | None = None,
    act: Callable[[], None] | None = None,
    at_reset: Callable[[], None] | None = None,
) -> str:
    """A new one, and its id. `seconds` None: it waits for the next reset."""
    places = persona.template.places
    number = next(persona.serials)
    task = Task(f"JID_{100000000000 + number}" if places.jobs else str(number), name, about, time.time())
    task.due += seconds or 0.0
    task.act, task.at_reset = act, at_reset
    if seconds is None:
        task.state = "scheduled"
    persona.tasks[task.id] = task
    if about == "bios":
        persona.job_scheduled = True
    _show(persona, task)
    while len(persona.tasks) > KEPT:
        del persona.tasks[next(iter(persona.tasks))]
    return task.id


def uri(persona: Persona, ident: str, *, job: bool = False) -> str:
    places = persona.template.places
    return f"{places.jobs[0] if job and places.jobs else places.tasks}/{ident}"


def advance(persona: Persona, now: float) -> None:
    for task in list(persona.tasks.values()):
        if task.state != "running":
            continue
        share = 1 - (task.due - now) / max(task.due - task.started, 1e-6)
        if share >= 1:
            _ran(persona, task)
        elif int(share * 10) * 10 != task.percent:
            task.percent = int(share * 10) * 10
            _show(persona, task)


def _ran(persona: Persona, task: Task) -> None:
    if task.act is not None:
        task.act()
    if task.at_reset is None:
        task.percent = 100
    task.state = "scheduled" if task.at_reset is not None else "completed"
    _show(persona, task)


def at_reset(persona: Persona) -> None:
    """What waited for it."""
    for task in list(persona.tasks.values()):
        if task.state == "scheduled":
            if task.at_reset is not None:
                task.at_reset()
            task.state, task.percent = "completed", 100
            _show(persona, task)
    bios.apply(persona)


def remove(persona: Persona, ident: str) -> bool:
    """A job is deleted: what it would have done is not done."""
    task = persona.tasks.pop(ident, None)
    if task is None:
        return False
    places = persona.template.places
    for collection in (*([places.tasks] if places.tasks else []), *places.jobs):
        persona.drop_member(collection, f"{collection}/{ident}")
    if task.about == "bios":
        bios.clear_staged(persona)
    return True


def _show(persona: Persona, task: Task) -> None:
    places = persona.template.places
    if places.tasks:
        persona.add_member(places.tasks, _as_task(f"{places.tasks}/{task.id}", task))
    for collection in places.jobs:
        uri = f"{collection}/{task.id}"
        persona.add_member(collection, _as_dell_job(uri, task) if "/Oem/Dell/" in uri else _as_job(uri, task))


def _as_task(uri: str, task: Task) -> dict[str, Any]:
    ended = {"EndTime": clock(time.time()).decode()} if task.state == "completed" else {}
    return {
        "@odata.id": uri,
        "@odata.type": "#Task.v1_7_4.Task",
        "Id": task.id,
        "Name": task.name,
        "TaskState": STATES[task.state][0],
        "TaskStatus": "OK",
        "PercentComplete": task.percent,
        "StartTime": clock(task.started).decode(),
        "Messages": [],
    } | ended


def _as_job(uri: str, task: Task) -> dict[str, Any]:
    return {
        "@odata.id": uri,
        "@odata.type": "#Job.v1_2_4.Job",
        "Id": task.id,
        "Name": task.name,
        "JobState": STATES[task.state][1],
        "JobStatus": "OK",
        "PercentComplete": task.percent,
        "StartTime": clock(task.started).decode(),
        "Messages": [],
    }


def _as_dell_job(uri: str, task: Task) -> dict[str, Any]:
    done = task.state == "completed"
    return {
        "@odata.id": uri,
        "@odata.type": "#DellJob.v1_4_0.DellJob",
        "Id": task.id,
        "Name": task.name,
        "Description": "Job Instance",
        "JobType": "BIOSConfiguration" if task.about == "bios" else "FirmwareUpdate",
        "JobState": STATES[task.state][1],
        "PercentComplete": task.percent,
        "StartTime": "TIME_NOW" if not done else clock(task.started).decode(),
        "EndTime": "TIME_NA",
        "CompletionTime": clock(time.time()).decode() if done else None,
        "Message": "Job completed successfully." if done else "Task successfully scheduled.",
        "MessageId": "PR19" if done else "JCP001",
        "MessageArgs": [],
        "TargetSettingsURI": None,
    }
