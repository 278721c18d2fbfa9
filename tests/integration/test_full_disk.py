"""Free space below the reserve: nothing new is taken, what is here is finished, and everybody is told what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.node import ROOT, NodeUnderTest, send
from tests.support.pacs import SmallPacs

pytestmark = [pytest.mark.model]


def test_below_the_reserve(tmp_path: Path) -> None:
    from qa_engine.simulation.dicom_series import write_sample

    write_sample("mr", tmp_path / "first", slices=10, size=128, seed=5)
    write_sample("mr", tmp_path / "second", slices=3, size=64, seed=6)
    with SmallPacs() as pacs:
        node = NodeUnderTest(tmp_path / "node", [("pacs", "PACS", pacs.port)], quiet=600, contiguous=600, announced=600)
        with node:
            assert send(tmp_path / "first", node.port) == 10
        text = node.config.read_text(encoding="utf-8")
        node.config.write_text(text.replace("reserve: 64 MiB", "reserve: 9000 TiB").replace("600", "1"), encoding="utf-8")
        with node:
            done = subprocess.run([sys.executable, "-m", "node", "send", str(tmp_path / "second"), f"MEDIQA@127.0.0.1:{node.port}",
                                   "--calling", "SENDER"], cwd=ROOT, capture_output=True, text=True, timeout=60)
            assert done.returncode == 1 and done.stdout.startswith("0 sent, 3 failed") and done.stderr.count("\n") == 1
            assert "0xA700 (free space is below the reserve)" in done.stderr
            # what was here before goes all the way
            assert [e["outcome"] for e in node.wait_for_ends(1).values()] == ["assessed"]
            node.wait_delivered()
            assert len(pacs.datasets()) == 2
            said = {c["check"]: c for c in node.mediqa_json("check", code=1)["checks"]}
            assert said["disk"]["state"] == "failed" and "C-STORE would answer 0xA700, make room or write a smaller" in said["disk"]["text"]
            assert said["port"]["state"] == said["destination pacs"]["state"] == "ok"
        assert node.rows("select count(*) as n from instance") == [{"n": 10}]
        [refused, counted] = node.rows("select details from audit where event = 'store-refused' order by seq")
        assert '"status":"0xA700"' in refused["details"] and ":3" in counted["details"]
        assert "Traceback" not in node.log.read_text(errors="replace")
