"""The worker anchors the audit log while it runs: a tail that is cut off under it is found without waiting for its stop."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.bench import Bench
from tests.support.node import ROOT
from tests.support.ports import wait_for

RUN = "import sys, node.worker; node.worker.REPAIR_EVERY = 0.5; import tests.support.worker; sys.exit(tests.support.worker.main())"


def test_a_cut_tail_is_found_while_the_worker_runs(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "node", 1)
    anchor = bench.config.audit_anchor_path
    with bench.log.open("wb") as log:
        worker = subprocess.Popen([sys.executable, "-c", RUN, "--config", str(bench.config_file)], cwd=ROOT, stdout=log, stderr=log,
                                  env=dict(os.environ, ASSESS_COUNT=str(bench.counted), OMP_NUM_THREADS="1"))
    try:
        wait_for(anchor.exists, 60, bench.tail())
        assert bench.audit().verify().ok
        bench.write("delete from audit_record where seq = (select max(seq) from audit_record)")
        report = bench.audit().verify()
        assert not report.ok and "cut off" in report.problem
    finally:
        worker.kill()
        worker.wait(20)
