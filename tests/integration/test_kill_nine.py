"""kill -9 of any process during a long transfer and during scoring: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context

from tests.support.node import NodeUnderTest
from tests.support.pacs import SmallPacs
from tests.support.ports import listening, wait_for

pytestmark = [pytest.mark.model]

SLICES = 500


def long_series(folder: Path) -> list[pydicom.Dataset]:
    """A simulated CT patient repeated along z to 500 slices of 256 x 256, as data sets."""
    from qa_engine.simulation.dicom_series import write_sample

    write_sample("ct", folder, slices=10, size=256, seed=3)
    base = [pydicom.dcmread(p) for p in sorted(folder.iterdir())]
    series, sets = generate_uid(), []
    for k in range(SLICES):
        ds = pydicom.dcmread(base[k * len(base) // SLICES].filename)
        ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.InstanceNumber = series, generate_uid(), k + 1
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        x, y, _ = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y, float(k)]
        ds.SliceThickness = 1
        sets.append(ds)
    return sets


class PersistentSender(threading.Thread):
    """Sends until each data set got SUCCESS, with a new association after each failure, as a modality's queue does."""

    def __init__(self, sets: list[pydicom.Dataset], port: int) -> None:
        super().__init__(daemon=True)
        self.waiting, self.port = list(sets), port
        self.acknowledged: set[str] = set()

    def run(self) -> None:
        while self.waiting:
            ae = AE("SENDER")
            ae.dimse_timeout = ae.network_timeout = 10
            ae.requested_contexts = [build_context(self.waiting[0].SOPClassUID, self.waiting[0].file_meta.TransferSyntaxUID)]
            assoc = ae.associate("127.0.0.1", self.port, ae_title="MEDIQA")
            while assoc.is_established and self.waiting:
                ds = self.waiting[0]
                try:
                    answer = assoc.send_c_store(ds)
                except (RuntimeError, ValueError):
                    break
                if answer.get("Status") != 0x0000:
                    break
                self.acknowledged.add(str(ds.SOPInstanceUID))
                self.waiting.pop(0)
            if assoc.is_established:
                assoc.release()
            time.sleep(0.1)


@pytest.mark.timeout(600)
def test_killed_again_and_again(tmp_path: Path) -> None:
    sets = long_series(tmp_path / "patient")
    with SmallPacs() as pacs:
        node = NodeUnderTest(tmp_path / "node", [("pacs", "PACS", pacs.port)], quiet=4, contiguous=3, announced=3)
        node.start()
        try:
            sender = PersistentSender(sets, node.port)
            sender.start()
            for target, at in (("node.receive", 100), ("node.worker", 200), ("everything", 300)):
                wait_for(lambda at=at: len(sender.acknowledged) >= at or not sender.is_alive(), 120, f"{at} acknowledged\n{node.tail()}")
                if target == "everything":
                    node.kill_all()
                    node.start()
                else:
                    process = node.member(target)
                    assert process is not None, target
                    process.kill()
                    wait_for(lambda: listening(node.port), 30, "the supervisor starts it again")
            sender.join(180)
            assert len(sender.acknowledged) == SLICES
            stored = {r["sop_uid"] for r in node.rows("select sop_uid from instance where current = 1")}
            assert sender.acknowledged <= stored
            # the workflow is at work now: kill the worker in its steps, then everything
            for _ in range(3):
                wait_for(lambda: node.rows("select id from revision"), 60, f"a revision\n{node.tail()}")
                time.sleep(1.0)
                worker = node.member("node.worker")
                if worker is not None:
                    worker.kill()
            node.kill_all()
            node.start()
            node.wait_for_ends(1, 180)
            node.wait_delivered(180)
            assert node.rows("select count(*) as n from revision where outcome is null")[0]["n"] == 0
            revisions = node.rows("select * from revision order by number")
            assert [r["number"] for r in revisions] == list(range(1, len(revisions) + 1))
            newest = revisions[-1]
            assert newest["instances"] == SLICES
            assert newest["outcome"] == "assessed", (newest["outcome"], newest["reason"])
            assessed = [r for r in revisions if r["outcome"] == "assessed"]
            assert len(pacs.of_modality("SR")) == len(pacs.of_modality("OT")) == len(assessed)
            assert list((node.folder / "data").rglob("*.part")) == []
            node.mediqa("audit", "verify")
        finally:
            if node.process is not None and node.process.poll() is None:
                node.stop()
