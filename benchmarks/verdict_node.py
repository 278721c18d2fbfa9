"""The same seconds through a node that runs: from the last C-STORE answer to report and picture in the PACS.

    python benchmarks/verdict_node.py [--json] [--quick]

`mediqa serve` with its defaults but for the wait, a small PACS, and one sender whose 20 first series (two slices each, sent at once) teach the
wait of `auto`; then a CT series of 300 slices several times, each on one association. The node shares the machine with sender and PACS.
`--quick` sends it once and leaves the fixed wait out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pydicom
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context

from benchmarks.inference import make_series
from node.quiet import ENOUGH
from tests.support.checkpoint import steady
from tests.support.node import NodeUnderTest
from tests.support.pacs import SmallPacs
from tests.support.ports import wait_for

SECTIONS, RUNS = 4, 3
CALLER = "SENDER"


def send(node: NodeUnderTest, sets: Sequence[pydicom.Dataset]) -> tuple[str, float]:
    """Send them as a series of a new study; its Study Instance UID, and the moment of the last answer on the monotonic clock."""
    study, series = generate_uid(), generate_uid()
    ae = AE(CALLER)
    ae.requested_contexts = [build_context(sets[0].SOPClassUID, sets[0].file_meta.TransferSyntaxUID)]
    association = steady(ae.associate("127.0.0.1", node.port, ae_title="MEDIQA"))
    for ds in sets:
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        status = association.send_c_store(ds)
        if status.get("Status") != 0:
            raise SystemExit(f"the node answered {status}")
    last = time.monotonic()
    association.release()
    return study, last


def seconds(node: NodeUnderTest, pacs: SmallPacs, sets: Sequence[pydicom.Dataset]) -> dict[str, float]:
    """One series: seconds from the last answer until the PACS holds report and picture, and what the node says of its parts."""
    study, last = send(node, sets)
    wait_for(lambda: len([d for d in pacs.datasets() if d.StudyInstanceUID == study]) >= 2, 200, node.tail())
    total = time.monotonic() - last
    [row] = node.rows("select (julianday(r.completed_at) - julianday(s.last_at)) * 86400 as waited, r.total_seconds as engine, "
                      "r.report_seconds as report from revision r join series s on s.id = r.series_id where s.study_uid = ?", study)
    return {"total": round(total, 2), "waited": round(row["waited"], 2), "after": round(total - row["waited"], 2),
            "engine": round(row["engine"], 2), "report": round(row["report"], 2)}


def measure(quiet: str, runs: int, files: list[Path], folder: Path) -> list[dict[str, float]]:
    """`runs` series through a node with this `completion.quiet`."""
    sets = [pydicom.dcmread(file) for file in files]
    with SmallPacs() as pacs, NodeUnderTest(folder, [("pacs", "PACS", pacs.port)], quiet=quiet, contiguous=30, announced=5) as node:
        if quiet == "auto":
            print("verdict_node: the wait is learned", file=sys.stderr, flush=True)
            for _ in range(ENOUGH):
                send(node, sets[:2])
            wait_for(lambda: node.rows("select * from waits where contiguous_seconds is not null"), 200, node.tail())
            wait_for(lambda: not node.rows("select id from revision where outcome is null"), 200, node.tail())
        found = []
        for _ in range(runs):
            print(f"verdict_node: quiet {quiet}", file=sys.stderr, flush=True)
            found.append(seconds(node, pacs, sets))
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one series, the learned wait alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        (folder := Path(scratch, "files")).mkdir()
        files = make_series(folder, SECTIONS)
        found: dict[str, Any] = {}
        for quiet, runs in (("auto", 1),) if options.quick else (("auto", RUNS), ("60", 1)):
            found[quiet] = measure(quiet, runs, files, Path(scratch, quiet))
    if options.json:
        print(json.dumps({"slices": len(files), "runs": found}, indent=2))
        return 0
    print(f"Seconds from the last C-STORE answer to report and picture in the PACS, {len(files)} slices")
    for quiet, rows in found.items():
        for row in rows:
            print(f"  quiet {quiet:5}" + "".join(f"{name:>9} {value:6.2f}" for name, value in row.items()))
        print(f"  quiet {quiet:5}   median {median(row['total'] for row in rows):6.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
