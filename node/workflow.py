"""The workflow engine (DBOS over the same database file): assess -> report, and one short workflow per try of a delivery.

The only file that imports dbos. Its rows are the plan of who runs what next and nothing more: whatever must be right stands in our own
tables, every step may run again, and `node/repair.py` enqueues anew what the engine has lost (docs/decisions/0003).

Identifiers are deterministic: `assess:<revision>:<attempt>` and `deliver:<delivery>:<try>`; enqueuing one twice is harmless. Arguments and
results are row ids. No time limit of the engine decides anything; the steps bound themselves.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer

APPLICATION = "mediqa"
VERSION = "wf-1"
"""The contract of the workflows; raised only when order or meaning of steps changes."""
ASSESS, DELIVER = "assess", "deliver"
ASSESS_RECOVERIES = 2
DELIVER_RECOVERIES = 50
LIVE = ("PENDING", "ENQUEUED", "DELAYED")
FAILED = "ERROR"
POLLING_SECONDS = 0.5
BUSY_POLLING_SECONDS = 0.05
"""Between two looks for the next assessment while several wait: a study of many short series is not held up by the looking."""
ASSOCIATIONS_PER_DESTINATION = 1
"""It takes along what is due (`node/deliver/attempt.py`)."""
DELIVERIES_AT_ONCE = 8
ORPHAN_SECONDS = 60.0
"""A row that says it runs, and does not, for this long is put back onto its queue."""

log = logging.getLogger("node.workflow")


class Steps(Protocol):
    """What the workflows run. Each may run again after a kill, so each looks first at what is already done."""

    def assess(self, revision_id: int) -> None: ...
    def report(self, revision_id: int) -> None: ...
    def deliver(self, delivery_id: int, attempt: int) -> None: ...


_steps: Steps | None = None
_running: set[str] = set()
_running_lock = threading.Lock()


@contextmanager
def _noted() -> Iterator[Steps]:
    """Keeps the workflow's id in the set of what really runs in this process."""
    if _steps is None:
        raise RuntimeError("the workflow engine runs without steps")
    workflow_id = str(DBOS.workflow_id)
    with _running_lock:
        _running.add(workflow_id)
    try:
        yield _steps
    finally:
        with _running_lock:
            _running.discard(workflow_id)


@DBOS.step(name="assess")
def _assess(revision_id: int) -> int:
    assert _steps is not None
    _steps.assess(revision_id)
    return revision_id


@DBOS.step(name="report")
def _report(revision_id: int) -> int:
    assert _steps is not None
    _steps.report(revision_id)
    return revision_id


@DBOS.step(name="deliver")
def _deliver(delivery_id: int, attempt: int) -> int:
    assert _steps is not None
    _steps.deliver(delivery_id, attempt)
    return delivery_id


@DBOS.workflow(name="series_revision", max_recovery_attempts=ASSESS_RECOVERIES)
def series_revision(revision_id: int) -> int:
    """One series revision: its end, then its result objects and planned deliveries."""
    with _noted():
        _assess(revision_id)
        _report(revision_id)
    return revision_id


@DBOS.workflow(name="delivery_try", max_recovery_attempts=DELIVER_RECOVERIES)
def delivery_try(delivery_id: int, attempt: int) -> int:
    """One try of one delivery."""
    with _noted():
        _deliver(delivery_id, attempt)
    return delivery_id


def assess_id(revision_id: int, attempt: int) -> str:
    return f"assess:{revision_id}:{attempt}"


def deliver_id(delivery_id: int, attempt: int) -> str:
    return f"deliver:{delivery_id}:{attempt}"


def _sqlite_engine(url: sa.URL, synchronous: str) -> sa.Engine:
    """An engine of DBOS's own on our file: WAL as ours, every transaction IMMEDIATE (a read lock cannot be raised to a write lock)."""
    engine = sa.create_engine(url)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "busy_timeout=30000", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


class WorkflowEngine:
    """Launches DBOS for the one worker that holds the lock, and answers what the repair loop asks.

    executor: constant name of this worker (`node.name`). url: of the database that also holds our tables.
    """

    def __init__(self, url: sa.URL, executor: str, steps: Steps, synchronous: str = "NORMAL",
                 polling_seconds: float = POLLING_SECONDS) -> None:
        self._url, self._executor, self._steps = url, executor, steps
        self._synchronous, self._polling = synchronous, polling_seconds
        self._suspects: dict[str, float] = {}
        self._engine: sa.Engine | None = None
        self._client: Any = None
        self._busy = False

    def launch(self) -> None:
        """Start the engine: what a killed worker was running is resumed, rows of another contract or executor are dropped."""
        global _steps
        _steps = self._steps
        sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(self._url, self._synchronous) if sqlite else sa.create_engine(self._url, pool_pre_ping=True)
        serializer = DBOSPortableJSONSerializer()
        DBOS(config={"name": APPLICATION, "system_database_engine": self._engine, "application_version": VERSION,
                     "executor_id": self._executor, "serializer": serializer, "log_level": "WARNING",
                     "use_listen_notify": False})
        _log_through_ours()
        DBOS.listen_queues([ASSESS, DELIVER])
        DBOS.launch()
        self._client = DBOSClient(system_database_engine=self._engine, serializer=serializer, application_name=APPLICATION)
        self._drop_foreign()
        self._assess_queue = DBOS.register_queue(ASSESS, worker_concurrency=1, polling_interval_sec=self._polling,
                                                 on_conflict="always_update")
        DBOS.register_queue(DELIVER, worker_concurrency=DELIVERIES_AT_ONCE, partition_concurrency=ASSOCIATIONS_PER_DESTINATION,
                            polling_interval_sec=self._polling, on_conflict="always_update")

    def stop(self, seconds: float) -> None:
        """Take nothing new, let running workflows end for at most `seconds`; what does not end is resumed at the next start."""
        DBOS.destroy(workflow_completion_timeout_sec=max(0, int(seconds)))
        if self._engine is not None:
            self._engine.dispose()

    def enqueue_assess(self, conn: sa.Connection, revision_id: int, attempt: int) -> None:
        """Plan the assessment of a revision in the caller's transaction: both are committed, or neither."""
        self._enqueue(conn, "series_revision", ASSESS, assess_id(revision_id, attempt), None, revision_id)

    def enqueue_deliver(self, conn: sa.Connection, delivery_id: int, attempt: int, destination: str) -> None:
        """Plan try number `attempt` of a delivery in the caller's transaction."""
        self._enqueue(conn, "delivery_try", DELIVER, deliver_id(delivery_id, attempt), destination, delivery_id, attempt)

    def _enqueue(self, conn: sa.Connection, workflow: str, queue: str, workflow_id: str, partition: str | None, *args: int) -> None:
        options: dict[str, Any] = {"workflow_name": workflow, "queue_name": queue, "workflow_id": workflow_id,
                                   "app_version": VERSION, "application_name": APPLICATION}
        if partition is not None:
            options["queue_partition_key"] = partition
        self._client.enqueue_in_transaction(conn, options, *args)

    def pace(self, busy: bool) -> None:
        """Look for the next assessment often (`busy`: several wait) or, as at the start, seldom. Called several times a second."""
        if busy != self._busy:
            self._assess_queue.set_polling_interval_sec(min(self._polling, BUSY_POLLING_SECONDS) if busy else self._polling)
            self._busy = busy

    def states(self, workflow_ids: Sequence[str]) -> dict[str, str]:
        """State of each of `workflow_ids` that the engine knows: PENDING, ENQUEUED, DELAYED, SUCCESS, ERROR, CANCELLED, ..."""
        if not workflow_ids:
            return {}
        rows = self._client.list_workflows(workflow_ids=list(workflow_ids), load_input=False, load_output=False)
        return {row.workflow_id: row.status for row in rows}

    def forget(self, workflow_ids: Sequence[str]) -> None:
        """Delete rows of the engine, so that the same identifiers may run again."""
        if workflow_ids:
            self._client.delete_workflows(list(workflow_ids))

    def prune(self, older_than_days: float) -> int:
        """Delete rows that ended longer ago; the number of them. Nothing else prunes them."""
        before = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - older_than_days * 86400))
        rows = self._client.list_workflows(completed_before=before, load_input=False, load_output=False, limit=1000)
        self.forget([row.workflow_id for row in rows])
        return len(rows)

    def requeue_orphans(self, now: float) -> list[str]:
        """Put rows that claim to run but do not (the disk was full when a step ended) back onto their queue; `now` is monotonic."""
        rows = self._client.list_workflows(status=["PENDING"], executor_id=self._executor, load_input=False, load_output=False)
        with _running_lock:
            lost = {row.workflow_id: row.queue_name for row in rows if row.workflow_id not in _running}
        self._suspects = {w: self._suspects.get(w, now) for w in lost}
        due = [w for w, since in self._suspects.items() if now - since >= ORPHAN_SECONDS]
        for workflow_id in due:
            self._client.cancel_workflow(workflow_id)
            self._client.resume_workflow(workflow_id, queue_name=lost[workflow_id])
            del self._suspects[workflow_id]
        return due

    def _drop_foreign(self) -> None:
        """Unfinished rows that this worker would never take (another contract or executor name); the repair loop plans them anew."""
        rows = self._client.list_workflows(status=list(LIVE), load_input=False, load_output=False)
        foreign = [row.workflow_id for row in rows if row.app_version != VERSION
                   or (row.status == "PENDING" and row.executor_id != self._executor)]
        if foreign:
            log.warning("%d unfinished workflows of another version or name are planned anew", len(foreign))
            self.forget(foreign)


def _log_through_ours() -> None:
    """DBOS brings handlers of its own; its lines go through ours instead."""
    theirs = logging.getLogger("dbos")
    theirs.handlers.clear()
    theirs.propagate = True
