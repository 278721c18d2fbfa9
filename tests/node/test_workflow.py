"""The workflow engine alone: what is enqueued runs once, what is rolled back never, what is lost or stuck runs again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from node.workflow import ORPHAN_SECONDS, WorkflowEngine, assess_id, deliver_id
from storage.database import database_url, open_engine
from tests.support.ports import wait_for


class Notes:
    """Steps that note what they were asked; revision 13 fails, delivery 99 hangs until `go` is set."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []
        self.go = threading.Event()

    def assess(self, revision_id: int) -> None:
        self.done.append(("assess", revision_id))
        if revision_id == 13:
            raise ValueError("thirteen")

    def report(self, revision_id: int) -> None:
        self.done.append(("report", revision_id))

    def deliver(self, delivery_id: int, attempt: int) -> None:
        if delivery_id == 99:
            self.go.wait(20)
        self.done.append(("deliver", delivery_id))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[tuple[WorkflowEngine, sa.Engine, Notes]]:
    ours, notes = open_engine(tmp_path / "node.db"), Notes()
    with ours.begin() as conn:
        conn.exec_driver_sql("create table note (id integer primary key)")
    engine = WorkflowEngine(database_url(tmp_path / "node.db"), "mediqa", notes, polling_seconds=0.1)
    engine.launch()
    try:
        yield engine, ours, notes
    finally:
        notes.go.set()
        engine.stop(0)


def wait_state(engine: WorkflowEngine, workflow_id: str, state: str) -> None:
    wait_for(lambda: engine.states([workflow_id]).get(workflow_id) == state, 15, f"{workflow_id} {engine.states([workflow_id])}")


def test_once_in_order_whatever_was_enqueued_how_often(bench: tuple[WorkflowEngine, sa.Engine, Notes]) -> None:
    engine, ours, notes = bench

    def enqueue() -> None:
        for revision_id in range(1, 6):
            with ours.begin() as conn:
                engine.enqueue_assess(conn, revision_id, 1)

    threads = [threading.Thread(target=enqueue) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for revision_id in range(1, 6):
        wait_state(engine, assess_id(revision_id, 1), "SUCCESS")
    assert sorted(notes.done) == sorted([("assess", k) for k in range(1, 6)] + [("report", k) for k in range(1, 6)])


def test_the_queue_is_looked_at_often_only_while_several_wait(tmp_path: Path) -> None:
    from dbos import DBOS

    engine = WorkflowEngine(database_url(tmp_path / "node.db"), "mediqa", Notes(), polling_seconds=0.5)
    engine.launch()
    try:
        seconds = []
        for busy in (False, True, True, False):
            engine.pace(busy)
            queue = DBOS.retrieve_queue("assess")
            assert queue is not None and queue.worker_concurrency == 1
            seconds.append(queue.polling_interval_sec)
        assert seconds == [0.5, 0.05, 0.05, 0.5]
    finally:
        engine.stop(0)


def test_rolled_back_together_committed_together(bench: tuple[WorkflowEngine, sa.Engine, Notes]) -> None:
    engine, ours, notes = bench
    with pytest.raises(RuntimeError), ours.begin() as conn:
        conn.exec_driver_sql("insert into note values (1)")
        engine.enqueue_assess(conn, 7, 1)
        raise RuntimeError
    with ours.begin() as conn:
        conn.exec_driver_sql("insert into note values (2)")
        engine.enqueue_assess(conn, 8, 1)
    wait_state(engine, assess_id(8, 1), "SUCCESS")
    assert engine.states([assess_id(7, 1)]) == {} and ("assess", 7) not in notes.done
    with ours.connect() as conn:
        assert conn.exec_driver_sql("select id from note").scalars().all() == [2]


def test_failure_stops_before_the_report_and_stays_visible(bench: tuple[WorkflowEngine, sa.Engine, Notes]) -> None:
    engine, ours, notes = bench
    with ours.begin() as conn:
        engine.enqueue_assess(conn, 13, 1)
    wait_state(engine, assess_id(13, 1), "ERROR")
    assert notes.done == [("assess", 13)]


def test_destination_that_hangs_does_not_stop_the_other(bench: tuple[WorkflowEngine, sa.Engine, Notes]) -> None:
    engine, ours, notes = bench
    with ours.begin() as conn:
        engine.enqueue_deliver(conn, 99, 1, "slow")
        for delivery_id in (1, 2, 3):
            engine.enqueue_deliver(conn, delivery_id, 1, "quick")
    wait_state(engine, deliver_id(3, 1), "SUCCESS")
    assert ("deliver", 99) not in notes.done
    notes.go.set()
    wait_state(engine, deliver_id(99, 1), "SUCCESS")


def test_forgotten_may_run_again_and_old_rows_go(bench: tuple[WorkflowEngine, sa.Engine, Notes]) -> None:
    engine, ours, notes = bench
    for _ in range(2):
        with ours.begin() as conn:
            engine.enqueue_deliver(conn, 5, 1, "pacs")
        wait_state(engine, deliver_id(5, 1), "SUCCESS")
        engine.forget([deliver_id(5, 1)])
    assert notes.done == [("deliver", 5)] * 2
    with ours.begin() as conn:
        engine.enqueue_deliver(conn, 6, 1, "pacs")
    wait_state(engine, deliver_id(6, 1), "SUCCESS")
    assert engine.prune(7) == 0 and engine.prune(-1) == 1


def test_orphan_goes_back_onto_its_queue_after_a_minute(bench: tuple[WorkflowEngine, sa.Engine, Notes]) -> None:
    engine, ours, notes = bench
    with ours.begin() as conn:
        engine.enqueue_deliver(conn, 5, 1, "pacs")
    wait_state(engine, deliver_id(5, 1), "SUCCESS")
    with ours.begin() as conn:  # as after a full disk: the step ran, its end could not be written
        conn.exec_driver_sql("delete from operation_outputs")
        conn.exec_driver_sql("update workflow_status set status = 'PENDING', completed_at = null")
    now = time.monotonic()
    assert engine.requeue_orphans(now) == []
    assert engine.requeue_orphans(now + ORPHAN_SECONDS + 1) == [deliver_id(5, 1)]
    wait_state(engine, deliver_id(5, 1), "SUCCESS")
    assert notes.done == [("deliver", 5)] * 2


def test_rows_of_another_version_or_name_are_dropped_at_launch(tmp_path: Path) -> None:
    ours, notes = open_engine(tmp_path / "node.db"), Notes()
    engine = WorkflowEngine(database_url(tmp_path / "node.db"), "mediqa", notes, polling_seconds=30)
    engine.launch()
    with ours.begin() as conn:
        for revision_id in (1, 2, 3):
            engine.enqueue_assess(conn, revision_id, 1)
    engine.stop(0)
    with ours.begin() as conn:
        conn.exec_driver_sql("update workflow_status set status = 'ENQUEUED'")
        conn.exec_driver_sql("update workflow_status set application_version = 'wf-0' where workflow_uuid = 'assess:1:1'")
        conn.exec_driver_sql("update workflow_status set status = 'PENDING', executor_id = 'old' where workflow_uuid = 'assess:2:1'")
    engine = WorkflowEngine(database_url(tmp_path / "node.db"), "mediqa", notes, polling_seconds=0.1)
    engine.launch()
    try:
        assert set(engine.states([assess_id(k, 1) for k in (1, 2, 3)])) == {assess_id(3, 1)}
    finally:
        engine.stop(0)
