"""Durable execution on DBOS: a run that was killed goes on at the step it was in, in whichever process comes next.

Seen with DBOS 3.4.0, and why this file is as it is:

* Two processes with one executor id on one database: the second one's launch "recovers" what the first still runs,
  and a step ran twice at once. So every launch has an id of its own, and what others have left is started explicitly.
* The default application version is a hash of the source; after one changed line a killed run stayed PENDING for
  ever. So the version is fixed. What may change between versions of metalimmu is data: a run executes the steps that
  its own plan names, so the order of its checkpoints never changes under it.
* `Interrupted` is a BaseException: DBOS checkpoints an Exception as the step's outcome, but lets this one pass, so
  the step is as unfinished as after `kill -9`.
"""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metalimmu.engine import versions
from metalimmu.errors import StoreError

if TYPE_CHECKING:
    from dbos import DBOS

APPLICATION_VERSION = "1"
_WORKFLOW = "run"

Step = Callable[[], dict[str, Any]]
Checkpoint = Callable[[str, Step], dict[str, Any]]
Body = Callable[[str, Checkpoint], None]


class Interrupted(BaseException):
    """The worker stops: leave the step unfinished; whoever resumes the run does it again."""


class Engine:
    """One worker's engine. `body(run_id, checkpoint)` is called in a thread per run.

    `checkpoint(name, step)` runs `step` once and remembers the JSON object that it returns; after a crash it returns
    what it remembers. `body` must call the same checkpoints in the same order for one run, always. Outcomes are data: an
    Exception of a step is not remembered as one (it is taken for Interrupted), and comes out of `checkpoint`.
    """

    def __init__(self, database: Path, body: Body) -> None:
        self._database = database
        self._body = body
        self._dbos: DBOS | None = None
        self._workflow: Any = None
        self.executor = f"worker-{secrets.token_hex(6)}"

    def launch(self) -> None:
        """Raises StoreError."""
        from dbos import DBOS

        for name in ("dbos", "dbos.dbos"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what it knows of an error, its exception says too
        self._database.parent.mkdir(parents=True, exist_ok=True)
        versions.check(self._database)
        _create(self._database)
        self._dbos = DBOS(
            config={
                "name": "metalimmu",
                "system_database_url": f"sqlite:///{self._database}",
                "application_version": APPLICATION_VERSION,
                "executor_id": self.executor,
                "log_level": "CRITICAL",
                "serializer": _json_serializer(),
                "use_listen_notify": False,
                "notification_listener_polling_interval_sec": 1.0,
            }
        )

        @DBOS.workflow(name=_WORKFLOW, max_recovery_attempts=10_000)
        def run(run_id: str) -> None:
            self._body(run_id, _checkpoint)

        self._workflow = run
        try:
            DBOS.launch()
        except Exception as exc:
            raise StoreError(
                f"the engine's database {self._database} cannot be used: {exc}",
                hint="is it from a newer metalimmu, or is the disk full? it holds only the runs that are under way",
            ) from exc

    def start(self, run_id: str) -> None:
        """Begin a run, or go on with it if it has begun: one id is executed once."""
        from dbos import DBOS, SetWorkflowID

        if DBOS.get_workflow_status(run_id) is None:
            with SetWorkflowID(run_id):
                DBOS.start_workflow(self._workflow, run_id)
        else:
            DBOS.resume_workflow(run_id)

    def pending(self) -> dict[str, str]:
        """Runs that have begun and not ended, with the executor that has them."""
        from dbos import DBOS

        found = DBOS.list_workflows(status=["PENDING", "ENQUEUED"], name=_WORKFLOW, load_input=False, load_output=False)
        return {w.workflow_id: w.executor_id or "" for w in found}

    def ended(self, run_id: str) -> bool:
        from dbos import DBOS

        status = DBOS.get_workflow_status(run_id)
        return status is not None and status.status in ("SUCCESS", "ERROR", "CANCELLED")

    def stop(self) -> None:
        from dbos import DBOS

        if self._dbos is not None:
            DBOS.destroy(destroy_registry=True)
            self._dbos = None


def _checkpoint(name: str, step: Step) -> dict[str, Any]:
    from dbos import DBOS

    def once() -> dict[str, Any]:
        try:
            return step()
        except Exception as exc:
            raise _Unfinished(exc) from exc

    try:
        result: dict[str, Any] = DBOS.run_step({"name": name}, once)
    except _Unfinished as exc:
        raise exc.cause from None
    return result


class _Unfinished(BaseException):
    """Carries an Exception past DBOS, which would remember it as the step's outcome."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _create(path: Path) -> None:
    """Ours alone. A write-ahead log lets a hundred runs read while one writes: with the rollback journal about 45 of 100
    were under way at once, and the hundred took a third longer. Raises StoreError.
    """
    try:
        path.touch(mode=0o600)
        with closing(sqlite3.connect(path, timeout=30)) as conn:
            conn.execute("PRAGMA journal_mode=WAL")
    except (OSError, sqlite3.Error) as exc:
        raise StoreError(f"the engine's database {path} cannot be used: {exc}") from exc


def _json_serializer() -> Any:
    """Checkpoints are JSON: a newer program must read what an older one wrote, and nothing is unpickled."""
    from dbos import Serializer

    class Json(Serializer):
        def serialize(self, data: Any) -> str:
            if isinstance(data, BaseException):
                data = {"error": f"{type(data).__name__}: {data}"}
            return json.dumps(data, default=str)

        def deserialize(self, serialized_data: str) -> Any:
            return json.loads(serialized_data)

        def name(self) -> str:
            return "metalimmu_json"

    return Json()
