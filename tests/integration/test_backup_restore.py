"""A backup under traffic, more traffic, kill -9, restore, start: everything is found again and no PACS gets anything twice."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import ROOT, NodeUnderTest, send
from tests.support.orthanc import Orthanc
from tests.support.pacs import SmallPacs
from tests.support.ports import wait_for

pytestmark = [pytest.mark.model, pytest.mark.peer]


def numbers(pacs: SmallPacs) -> list[tuple[str, int]]:
    return sorted((str(ds.SeriesInstanceUID), int(ds.InstanceNumber)) for ds in pacs.datasets())


@pytest.mark.timeout(900)
def test_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    from qa_engine.simulation.dicom_series import write_sample

    for k in range(4):
        write_sample("mr", tmp_path / f"patient{k}", slices=8, size=96, seed=k)
    copy = tmp_path / "copies" / "monday.db"
    orthanc = Orthanc(tmp_path / "orthanc")
    with SmallPacs() as pacs:
        node = NodeUnderTest(tmp_path / "node", [("pacs", "PACS", pacs.port), ("orthanc", "ORTHANC", orthanc.dicom_port)])
        orthanc.start(node.port)
        try:
            node.start()
            assert send(tmp_path / "patient0", node.port) == 8
            node.wait_for_ends(1)
            node.wait_delivered()
            sender = threading.Thread(target=send, args=(tmp_path / "patient1", node.port))
            sender.start()
            said = node.mediqa_json("backup", "create", str(copy))
            sender.join()
            assert said["records"] > 0 and Path(said["file"]) == copy and copy.with_name("monday.db.anchor").exists()
            assert send(tmp_path / "patient2", node.port) == 8
            node.wait_for_ends(3, 240)
            node.wait_delivered()
            before = everything(node)
            done = subprocess.run([sys.executable, "-m", "node", "backup", "restore", str(copy), "-c", str(node.config)], cwd=ROOT,
                                  capture_output=True, text=True)
            assert done.returncode == 1 and done.stderr.count("\n") == 1 and "already running" in done.stderr
            node.kill_all()
            sent, held, named = dict(pacs.encoded), len(orthanc.rest("/instances")), numbers(pacs)

            done = node.mediqa_json("backup", "restore", str(copy))
            assert done["records"] == said["records"] and done["records_replaced"] > 0 and Path(done["replaced"]).is_file()
            assert node.rows("select count(*) as n from instance")[0]["n"] < 24
            node.start()
            node.wait_for_ends(3, 240)
            node.wait_delivered()
            assert everything(node) == before
            assert pacs.encoded == sent and pacs.other_bytes == [] and len(orthanc.rest("/instances")) == held == 6
            told = node.mediqa_json("audit", "verify")
            assert told["ok"] and told["restored"] == [{"seq": said["records"] + 1, "at": told["restored"][0]["at"], "missing": done["records_replaced"]}]
            assert "put a backup in the place of the log" in node.mediqa("audit", "verify")

            # and on: the next series gets numbers of its own
            assert send(tmp_path / "patient3", node.port) == 8
            node.wait_for_ends(4, 240)
            node.wait_delivered()
            wait_for(lambda: len(numbers(pacs)) == 8, 20, "delivered")
            assert set(named) <= set(numbers(pacs)) and len(set(numbers(pacs))) == 8
            assert node.mediqa_json("audit", "verify")["ok"]
            node.stop()
        finally:
            orthanc.stop()
            if node.process is not None and node.process.poll() is None:
                node.kill_all()


def everything(node: NodeUnderTest) -> list[dict[str, Any]]:
    """What was received and what came of it, whatever numbers the rows have."""
    return (node.rows("select sop_uid, digest, path, current, arrival from instance order by sop_uid")
            + node.rows('select series_uid, revision, "end", score, low, high, verdict, instances from results order by series_uid')
            + node.rows("select kind, sop_uid, digest, path from result_object order by sop_uid, kind"))
