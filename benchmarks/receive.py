"""How fast and how frugally objects are received: our node beside DCMTK's storescp, Orthanc and pynetdicom's storescp, in one run.

    python benchmarks/receive.py [--json] [--quick] [--rounds N] [--rows N] [--index FILE]

Every round starts each receiver with an empty store, sends it a few objects to warm up, then the same five workloads, with DCMTK's storescu on the
loopback interface: 500 CT slices on one association, the same on ten, one multi-frame object of 300 MB, 200 small MR slices, and 100 CT slices with a
sender and a receiver of DCMTK in the environment that they come with (Nagle's algorithm on). All other rows set TCP_NODELAY=1 for DCMTK's programs
and for Orthanc, which is built on them. Then two of our receivers, one whose index is empty and one with ten million instances in it (rows, no
files), get 200 CT slices in turns. Seconds include the start of the senders. A ratio is the other's time by ours: of the best times, and beside it
the median of the rounds. The disk is told to write back before each measurement, and the page cache to let go of what was received. Only the ratios
of one run mean anything on a machine that does other work; storescp and pynetdicom sync nothing.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

from benchmarks.receive_index import fill, rows_of
from benchmarks.receive_work import CT, Workload, make, make_more, plain_writing, send, settle
from benchmarks.receivers import Node, Receiver, all_receivers
from benchmarks.transfer import arguments, judged, print_table

IDLE = 100
ROWS, QUICK_ROWS = 10_000_000, 200_000
TURNS = 2
"""Of the two indexes in each round."""
SETTLE_SECONDS = 0.5
"""Before each workload, for what is left of the one before."""
GOALS = {"one_vs_orthanc": 1.3, "ten_vs_orthanc": 1.7, "multiframe_vs_orthanc": 3.5, "os_one_vs_storescp": 1.0, "os_ten_vs_storescp": 0.85,
         "nagle_vs_storescp": 20.0, "many_rows_vs_empty": 0.9}
MOST = {"cpu_ms_per_slice": 1.8, "peak_mb": 80.0, "idle_percent": 10.0}
PAIRS = {"one_vs_orthanc": ("one", "node", "orthanc"), "ten_vs_orthanc": ("ten", "node", "orthanc"),
         "multiframe_vs_orthanc": ("multiframe", "node", "orthanc"), "os_one_vs_storescp": ("one", "node os", "storescp"),
         "os_ten_vs_storescp": ("ten", "node os", "storescp"), "nagle_vs_storescp": ("nagle", "node", "storescp"),
         "one_vs_plain_writing": ("one", "node", "plain"), "one_vs_stock_path": ("one", "node", "node stock path"),
         "ten_vs_stock_path": ("ten", "node", "node stock path"), "one_vs_pynetdicom": ("one", "node", "pynetdicom"),
         "many_rows_vs_empty": ("more", "node many rows", "node empty"),
         "full_one_vs_orthanc": ("one", "node full", "orthanc"), "mr_vs_orthanc": ("mr", "node", "orthanc")}


class Figures:
    """Measurements by (receiver, workload), one entry per round: seconds, CPU seconds, peak MB."""

    def __init__(self) -> None:
        self.all: dict[tuple[str, str], list[tuple[float, float, float]]] = {}

    def add(self, receiver: str, work: Workload, seconds: float, cpu: float = 0.0, peak: float = 0.0) -> None:
        self.all.setdefault((receiver, work.name), []).append((seconds, cpu, peak))

    def ratio(self, work: str, ours: str, theirs: str) -> dict[str, float]:
        """Their time by ours."""
        a, b = ([m[0] for m in self.all[name, work]] for name in (ours, theirs))
        return {"best": round(min(b) / min(a), 2), "median": round(median(y / x for x, y in zip(a, b, strict=True)), 2)}

    def row(self, receiver: str, work: Workload) -> dict[str, Any]:
        found = self.all[receiver, work.name]
        seconds, cpu = min(m[0] for m in found), min(m[1] for m in found)
        return {"receiver": receiver, "workload": work.name, "seconds": round(seconds, 3), "median": round(median(m[0] for m in found), 3),
                "mb_per_s": round(work.bytes / seconds / 1e6, 1), "instances_per_s": round(work.instances / seconds, 1),
                "cpu_ms_per_instance": round(1000 * cpu / work.instances, 2), "peak_mb": round(max(m[2] for m in found), 1)}


def measure(receiver: Receiver, warm: Workload, works: list[Workload], figures: Figures) -> None:
    """One round of one receiver; `warm` is not measured."""
    with receiver:
        send(warm, receiver.port)
        for k, work in enumerate(works):
            settle(receiver.folder)
            time.sleep(SETTLE_SECONDS)
            receiver.watch()
            cpu = receiver.cpu
            try:
                seconds = send(work, receiver.port)
            except SystemExit:
                if receiver.name != "pynetdicom":
                    raise
                return  # it takes ten associations and is slow to forget those before
            figures.add(receiver.name, work, seconds, receiver.cpu - cpu, receiver.peak())
            wanted = warm.instances + sum(w.instances for w in works[:k + 1])
            if receiver.count() < wanted:
                raise SystemExit(f"receive: {receiver.name} holds {receiver.count()} of {wanted} objects")


def measure_rows(folder: Path, quick: bool, rounds: int, database: Path, rows: int, figures: Figures) -> list[Workload]:
    """The same slices to a node whose index is empty and to one that has `rows` instances, in turns; what was sent."""
    if not database.exists():
        print(f"receive: making an index of {rows:,} instances", file=sys.stderr)
        fill(database, rows)
    works = make_more(folder / "more", quick, TURNS * rounds + 1)
    with Node("node empty", folder / "empty", "default") as empty, Node("node many rows", folder / "many", "default", database=database) as many:
        print(f"receive: an empty index and one of {rows_of(database):,} instances", file=sys.stderr)
        for k, work in enumerate(works):
            for receiver in (empty, many) if k % 2 else (many, empty):
                os.sync()
                time.sleep(SETTLE_SECONDS)
                receiver.watch()
                cpu = receiver.cpu
                seconds = send(work, receiver.port)
                if k:  # the first warms up
                    figures.add(receiver.name, work, seconds, receiver.cpu - cpu, receiver.peak())
        for receiver in (empty, many):
            if receiver.count() != sum(work.instances for work in works):
                raise SystemExit(f"receive: {receiver.name} holds {receiver.count()} objects")
    return works[1:2]


def request() -> bytes:
    """An A-ASSOCIATE-RQ for CT images."""
    primitive, length, implementation, context = A_ASSOCIATE(), MaximumLengthNotification(), ImplementationClassUIDNotification(), build_context(CT)
    length.maximum_length_received, implementation.implementation_class_uid, context.context_id = 16384, "1.2.3", 1
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "SENDER", "MEDIQA"
    primitive.presentation_context_definition_list, primitive.user_information = [context], [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return pdu.encode()


def idle(folder: Path, seconds: float) -> float:
    """Percent of a core that our receiver takes while IDLE associations do nothing."""
    with Node("node", folder / "idle", "default") as receiver:
        peers = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(IDLE)]
        for peer in peers:
            peer.sendall(request())
            if peer.recv(1) != b"\x02":
                raise SystemExit("receive: an idle association was refused")
        time.sleep(0.5)
        cpu, began = receiver.cpu, time.monotonic()
        time.sleep(seconds)
        return 100 * (receiver.cpu - cpu) / (time.monotonic() - began)


def measured(folder: Path, quick: bool, rounds: int, database: Path, rows: int) -> dict[str, Any]:
    """Everything that is printed; `database` is made of `rows` instances where it is not there."""
    warm, *works = make(folder / "work", quick)
    usual, stock = [w for w in works if not w.stock], [w for w in works if w.stock]
    figures = Figures()
    for k in range(rounds):
        for receiver in all_receivers(folder / f"run-{k}"):
            print(f"receive: round {k + 1} of {rounds}, {receiver.name}", file=sys.stderr)
            measure(receiver, warm, usual, figures)
        for receiver in all_receivers(folder / f"stock-{k}", stock=True):
            if receiver.name in ("node", "storescp", "orthanc"):
                measure(receiver, warm, stock, figures)
        for work in usual:
            settle(folder / f"plain-{k}")
            figures.add("plain", work, plain_writing(work, folder / f"plain-{k}" / work.name))
    works += measure_rows(folder, quick, rounds, database, rows, figures)
    table = [figures.row(name, work) for work in works for name, of in figures.all if of == work.name]
    ratios = {name: figures.ratio(*pair) for name, pair in PAIRS.items()}
    ours = {row["workload"]: row for row in table if row["receiver"] == "node"}
    found: dict[str, Any] = {"quick": quick, "rounds": rounds, "load": round(os.getloadavg()[0], 2), "index_rows": rows_of(database),
                             "rows": table,
                             "ratios": {name: ratio["best"] for name, ratio in ratios.items()},
                             "medians": {name: ratio["median"] for name, ratio in ratios.items()},
                             "cpu_ms_per_slice": ours["one"]["cpu_ms_per_instance"], "peak_mb": ours["multiframe"]["peak_mb"],
                             "idle_percent": round(idle(folder / "last", 2 if quick else 5), 2)}
    found["goals"] = judged(found, GOALS, MOST)
    return found


def main() -> None:
    """Make the files, measure, print."""
    parser = arguments(__doc__, "receiver")
    parser.add_argument("--rows", type=int, default=0, help=f"instances in the large index ({ROWS:,}; {QUICK_ROWS:,} with --quick)")
    parser.add_argument("--index", type=Path, help="file of the large index: made where it is absent, used and kept where it is there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        database = (args.index or Path(scratch) / "index.db").resolve()
        found = measured(Path(scratch), args.quick, args.rounds or (1 if args.quick else 3), database,
                         args.rows or (QUICK_ROWS if args.quick else ROWS))
    if args.json:
        print(json.dumps(found))
    else:
        print_table(found, ("workload", "receiver"), GOALS, f"{IDLE} idle associations: {found['idle_percent']:g} % of a core")


if __name__ == "__main__":
    main()
