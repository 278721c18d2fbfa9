"""kill -9 of each process during a long transfer, during scoring and during delivery: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pydicom
import pytest
from pydicom.uid import RLELossless, generate_uid
from pynetdicom import AE, build_context

from tests.support.checkpoint import steady
from tests.support.node import NodeUnderTest
from tests.support.pacs import SmallPacs
from tests.support.ports import wait_for

pytestmark = [pytest.mark.model]

SLICES = 500


def long_series(folder: Path) -> list[pydicom.Dataset]:
    """A simulated MR patient stretched along z to 500 slices of 256 x 256, as data sets, run-length encoded so that a decoder is needed."""
    from qa_engine.simulation.dicom_series import write_sample

    write_sample("mr", folder, slices=10, size=256, seed=3)
    base = [pydicom.dcmread(p) for p in sorted(folder.iterdir())]
    for ds in base:
        ds.compress(RLELossless)
        ds.save_as(ds.filename)
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
            assoc = steady(ae.associate("127.0.0.1", self.port, ae_title="MEDIQA"))
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


def kill_during_scoring(node: NodeUnderTest, word: str) -> None:
    """kill -9 of the process whose command line holds `word` (supervisor: all die), surely while a series is being read and scored."""
    decoder = wait_for(lambda: node.member("decoder_process"), 60, f"scoring\n{node.tail()}", every=0.02)
    worker = node.member("node.worker")
    assert worker is not None
    for process in (decoder, worker):
        process.suspend()
    assert node.rows("select outcome from revision") == [{"outcome": None}]
    assert node.rows("select status from workflow_status where workflow_uuid like 'assess:%' order by created_at desc limit 1") == \
        [{"status": "PENDING"}]
    target = node.members()[0] if word == "supervisor" else decoder if word == "decoder_process" else node.member(word)
    assert target is not None, word
    target.kill()
    if target != decoder:  # a stopped process would outlive its parent
        decoder.kill()
    if word not in ("supervisor", "node.worker"):
        worker.resume()
    if word == "supervisor":
        assert node.process is not None
        node.process.wait(10)
    _, alive = psutil.wait_procs([target, decoder, *([worker] if word == "supervisor" else [])], timeout=20)
    assert not alive
    if word == "supervisor":
        node.start()


@pytest.mark.timeout(600)
def test_killed_again_and_again(tmp_path: Path) -> None:
    sets = long_series(tmp_path / "patient")
    with SmallPacs() as pacs:
        node = NodeUnderTest(tmp_path / "node", [("pacs", "PACS", pacs.port)], quiet=12, contiguous=8, announced=8)
        node.start()
        try:
            sender = PersistentSender(sets, node.port)
            sender.start()
            for target, at in (("node.receive", 80), ("node.worker", 160), ("supervisor", 240), ("everything", 320)):
                wait_for(lambda at=at: len(sender.acknowledged) >= at, 120, f"{at} acknowledged\n{node.tail()}", every=0.02)
                assert sender.waiting, "killed in the middle"
                if target == "supervisor":
                    children = node.members()[1:]
                    node.members()[0].kill()
                    _, alive = psutil.wait_procs(children, timeout=10)
                    assert not alive, "the children die with their supervisor"
                    node.process.wait(10)
                    node.start()
                elif target == "everything":
                    node.kill_all()
                    node.start()
                else:
                    process = node.member(target)
                    assert process is not None, target
                    process.kill()
            sender.join(180)
            assert len(sender.acknowledged) == SLICES
            stored = {r["sop_uid"] for r in node.rows("select sop_uid from instance where current = 1")}
            assert sender.acknowledged <= stored

            pacs.gate.clear()
            for word in ("decoder_process", "node.worker", "supervisor", "node.receive"):
                kill_during_scoring(node, word)
            node.wait_for_ends(1, 180)

            # the result set is on its way and its answer does not come: kill the worker, then everything
            assert pacs.asked.wait(60), node.tail()
            assert node.rows("select state from delivery where state = 'sending'")
            node.member("node.worker").kill()
            pacs.asked.clear()
            assert pacs.asked.wait(60), node.tail()
            node.kill_all()
            pacs.gate.set()
            node.start()
            node.wait_delivered(180)

            assert {r["sop_uid"] for r in node.rows("select sop_uid from instance where current = 1")} >= sender.acknowledged
            [revision] = node.rows("select * from revision")
            assert (revision["outcome"], revision["instances"], revision["missing"]) == ("assessed", SLICES, 0), revision["reason"]
            assert node.rows("select count(*) as n from audit where event = 'ended'") == [{"n": 1}]
            assert len(pacs.of_modality("SR")) == len(pacs.of_modality("OT")) == 1 and pacs.other_bytes == []
            assert list((node.folder / "data").rglob("*.part")) == []
            node.mediqa("audit", "verify")
            assert "Traceback" not in node.log.read_text(errors="replace")
        finally:
            pacs.gate.set()
            if node.process is not None and node.process.poll() is None:
                node.stop()
