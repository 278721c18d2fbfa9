"""The wall clock of the running node jumps hours forward and backward: nothing completes at once, nothing waits for ever."""

from __future__ import annotations

import copy
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context

from node.deliver.retry import moment
from tests.support.checkpoint import steady
from tests.support.node import NodeUnderTest
from tests.support.pacs import SmallPacs
from tests.support.ports import wait_for
from tests.support.wall_clock import WallClock

pytestmark = [pytest.mark.model]

QUIET = 3.0


def fresh(patient: list[pydicom.Dataset]) -> list[pydicom.Dataset]:
    study, series = generate_uid(), generate_uid()
    made = [copy.deepcopy(ds) for ds in patient]
    for ds in made:
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return made


@pytest.mark.timeout(240)
def test_hours_forward_and_backward(tmp_path: Path) -> None:
    from qa_engine.simulation.dicom_series import write_sample

    write_sample("mr", tmp_path / "patient", slices=10, size=128, seed=5)
    patient = [pydicom.dcmread(p) for p in sorted((tmp_path / "patient").iterdir())]
    clock = WallClock(tmp_path / "clock")
    pacs = SmallPacs()
    with NodeUnderTest(tmp_path / "node", [("pacs", "PACS", pacs.port)], quiet=QUIET, contiguous=QUIET, announced=QUIET,
                       environment=clock.environment) as node:
        wait_for(lambda: node.rows("select seq from audit where event = 'application-start' and actor = 'worker'"), 30, node.tail())
        for count, hours in enumerate((5, -9), 1):
            sets = fresh(patient)
            uid = sets[0].SeriesInstanceUID
            ae = AE("SENDER")
            ae.requested_contexts = [build_context(sets[0].SOPClassUID, sets[0].file_meta.TransferSyntaxUID)]
            assoc = steady(ae.associate("127.0.0.1", node.port, ae_title="MEDIQA"))
            assert [assoc.send_c_store(ds).Status for ds in sets[:5]] == [0] * 5
            clock.step(hours)
            time.sleep(QUIET / 2)
            assert node.rows("select r.id from revision r join series s on s.id = r.series_id where s.series_uid = ?", uid) == []
            assert assoc.is_established  # the receiver's time limits do not follow the wall clock
            assert [assoc.send_c_store(ds).Status for ds in sets[5:]] == [0] * 5
            assoc.release()
            stepped = time.monotonic()
            end = wait_for(lambda uid=uid: node.ends().get(uid), 30, f"ended\n{node.tail()}")
            assert (end["instances"], end["number"], end["outcome"]) == (10, 1, "assessed")
            assert time.monotonic() - stepped > QUIET - 0.5
            at = moment(end["ended_at"]) - datetime.now(UTC)
            assert abs(at - timedelta(seconds=clock.seconds)) < timedelta(minutes=1), "the records have the node's wall clock"
            wait_for(lambda: node.rows("select name from destination where failures > 0"), 30, "a try that found nobody")
            wait_for(lambda n=count: len(node.rows("select seq from audit where event = 'clock-step'")) == n, 15, node.tail())
        # nobody took the results so far; those of the first series were due at times that are hours away now
        assert {r["state"] for r in node.rows("select state from delivery")} <= {"held", "pending", "sending"}
        pacs.start()
        try:
            node.wait_delivered(40)
            assert len(pacs.of_modality("SR")) == len(pacs.of_modality("OT")) == 2
        finally:
            pacs.stop()
        steps = [r["details"] for r in node.rows("select details from audit where event = 'clock-step' order by seq")]
        assert len(steps) == 2 and '"seconds":18000' in steps[0] and '"seconds":-32400' in steps[1], steps
        assert "the chain holds" in node.mediqa("audit", "verify")
        assert "Traceback" not in node.log.read_text(errors="replace")
