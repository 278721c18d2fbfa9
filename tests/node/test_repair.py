"""What the repair loop does with attempts that the machine did not let run; its clock is moved by hand."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest

from node.build import open_workplace, sender_of
from node.repair import PAUSES, Repair
from node.steps import RevisionSteps
from node.workflow import WorkflowEngine, assess_id
from storage import index
from storage.database import database_url
from tests.support.assessments import assessed
from tests.support.bench import Bench
from tests.support.ports import free_port, wait_for
from tests.support.worker import renderer


class Machine:
    """One frozen revision, the real steps and engine, an assessment that finds the disk full while `full`."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder / "node", free_port())
        self.bench.put_series()
        self.full, self.now, self.place = True, 1000.0, open_workplace(self.bench.config)
        steps = RevisionSteps(self.place, self.assess, renderer(self.place, None), sender_of(self.place))
        self.engine = WorkflowEngine(database_url(self.bench.config.database_target), "mediqa", steps, polling_seconds=0.1)
        self.repair = Repair(self.place, self.engine, lambda: self.now)
        self.engine.launch()
        with self.place.engine.begin() as conn:
            self.revision = index.freeze_revision(conn, 1, "quiet")
            self.engine.enqueue_assess(conn, self.revision, 1)

    def assess(self, files: Sequence[Path]) -> Any:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        sets = [pydicom.dcmread(f, stop_before_pixels=True) for f in files]
        return assessed(sets[0].SeriesInstanceUID, [d.SOPInstanceUID for d in sets], study_uid=sets[0].StudyInstanceUID)

    def wait_failed(self, attempt: int) -> None:
        wanted = assess_id(self.revision, attempt)
        wait_for(lambda: self.engine.states([wanted]).get(wanted) == "ERROR", 15, f"attempt {attempt}")

    def look(self, after: float) -> dict[str, Any]:
        """The revision after one look of the repair loop `after` seconds later."""
        self.now += after
        self.repair.revisions()
        return self.bench.rows("select attempt, outcome, reason from revision")[0]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.engine.stop(0)


def test_a_disk_that_was_full_for_a_while_costs_no_series(machine: Machine) -> None:
    machine.wait_failed(1)
    assert [machine.look(s)["attempt"] for s in (0, PAUSES[0] - 1, 2)] == [1, 1, 2]
    machine.wait_failed(2)
    machine.full = False
    assert [machine.look(s)["attempt"] for s in (0, PAUSES[1] - 1, 2)] == [2, 2, 3]
    machine.bench.wait_rows("select id from revision where outcome = 'assessed' and report_seconds is not null")
    errors = machine.bench.rows("select error from operation_outputs where error is not null")
    assert errors and all("OSError" in e["error"] and "No space" not in e["error"] for e in errors)


def test_three_attempts_then_it_is_set_aside_and_a_lost_row_is_planned_at_once(machine: Machine) -> None:
    machine.wait_failed(1)
    machine.engine.forget([assess_id(machine.revision, 1)])
    assert machine.look(0) == {"attempt": 1, "outcome": None, "reason": None}
    for attempt in (1, 2):
        machine.wait_failed(attempt)
        machine.look(0)
        assert machine.look(PAUSES[attempt - 1] + 1)["attempt"] == attempt + 1
    machine.wait_failed(3)
    machine.look(0)
    assert machine.look(PAUSES[2] - 1)["outcome"] is None
    assert machine.look(2) == {"attempt": 3, "outcome": "failed", "reason": "set-aside"}
