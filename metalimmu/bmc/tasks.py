"""Waiting for what a BMC does in the background (DSP0266, asynchronous operations).

Our own: sushy's TaskMonitor.wait raises TypeError when Retry-After is a number, which it nearly always is; and BMCs
answer 200 without Location (iDRAC), a Task in place of a monitor (Lenovo), or forget a task that is done.
"""

from __future__ import annotations

from metalimmu import log
from metalimmu.bmc import answers, uris
from metalimmu.bmc.answers import Answer
from metalimmu.bmc.connector import Connector
from metalimmu.bmc.document import Doc
from metalimmu.errors import BmcBusy, BmcError, BmcRefused

LOG = log.get("bmc")
FAILED = frozenset({"Exception", "Killed", "Cancelled"})
RUNNING = frozenset(
    {"New", "Starting", "Running", "Pending", "Service", "Stopping", "Suspended", "Interrupted", "Cancelling"}
)
GONE = frozenset({404, 410})


def finish(connector: Connector, answer: Answer, *, what: str, patience: float = 600.0) -> Answer:
    """Return when the work behind `answer` is done; at once when there is none.

    Raises BmcRefused when the task failed, BmcBusy when it is not done after `patience` seconds, BmcError.
    """
    uri = _monitor(answer)
    if uri is None:
        return answer
    LOG.info("%s: %s goes on as task %s", connector.base, what, uri)
    timing = connector.timing
    deadline = timing.now() + patience
    while True:
        wait = min(answers.retry_after(answer) or 1.0, 15.0)
        if timing.now() + wait > deadline:
            raise BmcBusy(
                f"{what}: task {uri} is not done after {patience:.0f} s", hint="look at the BMC's task or job list"
            )
        timing.sleep(wait)
        answer = connector.request("GET", uri, accept=GONE)
        if answer.status_code in GONE:  # done and forgotten; whether it had its effect is read back anyway
            return answer
        if _done(answer, what):
            return answer


def _monitor(answer: Answer) -> str | None:
    if answer.status_code != 202:
        return None
    uri = answer.header("Location") or _task(answer).text("@odata.id")
    return uris.path(uri) if uri else None


def _task(answer: Answer) -> Doc:
    try:
        doc = Doc(answer.document(), answer.url)
    except BmcError:
        return Doc({}, answer.url)
    return doc if "Task" in doc.text("@odata.type") or doc.has("TaskState") else Doc({}, answer.url)


def _done(answer: Answer, what: str) -> bool:
    task = _task(answer)
    state = task.text("TaskState")
    if state in FAILED:
        raise BmcRefused(f"{what}: task {task.text('Id') or answer.url} ended as {state}: {_why(task)}")
    return answer.status_code != 202 and state not in RUNNING


def _why(task: Doc) -> str:
    found = [m.get("Message") for m in task.items("Messages") if isinstance(m, dict)]
    return answers.clean("; ".join(m for m in found if isinstance(m, str))) or "it gave no reason"
