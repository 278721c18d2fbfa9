"""How fast and how frugally objects are sent: `mediqa send` beside DCMTK's storescu and pynetdicom's storescu, in one run.

    python benchmarks/send.py [--json] [--quick] [--rounds N]

Every measurement starts a receiver with an empty store, sends it a few objects to warm up, then the workload on one association over the
loopback interface: 500 CT slices, 200 small MR slices, one multi-frame object of 300 MB. Receivers: DCMTK's storescp that writes what it
reads (--bit-preserving), and our node without fsync; both take longer than a sender needs, so a ratio of 1 is near the limit. In all of
these rows DCMTK's programs have TCP_NODELAY=1; the rows `stock` send 50 CT slices to a storescp, and with a storescu, in the environment that
they come with (Nagle's algorithm on). Seconds, CPU and memory are those of the whole process of the sender, its start included; the rows
`association` are the same code in a process that is there already, as in the worker that delivers results, looking for the files included. A
ratio is the other's time by ours, best of the rounds, and beside it the median of the pairs; who comes first alternates. `send_vs_storescu` is
of the association, `..._command_vs_storescu` of `mediqa send` with the start of Python. Only the ratios of one run mean anything on a machine
that does other work; on a slow or busy disk write to memory (--folder /dev/shm), or the disk is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.receive_work import SECONDS, Workload, environment, make, send
from benchmarks.receivers import ROOT, Node, Receiver, Storescp
from benchmarks.transfer import arguments, judged, print_table

GOALS = {"send_vs_storescu": 0.75}
MOST = {"peak_mb": 80.0}
OURS, INSIDE, DCMTK, LIBRARY = "mediqa send", "association", "storescu", "pynetdicom"
PAIRS = {("one", "storescp"): "send", ("mr", "storescp"): "mr", ("multiframe", "storescp"): "multiframe", ("one", "node"): "node_send",
         ("mr", "node"): "node_mr", ("multiframe", "node"): "node_multiframe", ("nagle", "stock"): "nagle"}
RATIOS = {f"{name}_vs_storescu": (*place, INSIDE, DCMTK) for place, name in PAIRS.items()} | {
    f"{name}_command_vs_storescu": (*place, OURS, DCMTK) for place, name in PAIRS.items()} | {
    "command_vs_pynetdicom": ("one", "storescp", OURS, LIBRARY)}
SAMPLE_SECONDS = 0.01
TRIES = 5

Found = dict[tuple[str, str, str], list[tuple[float, float, float]]]
"""Seconds, CPU seconds and peak MB of each round by (workload, receiver, sender)."""


class BitPreserving(Storescp):
    """DCMTK's storescp that writes the bytes as they come, one association after the other."""

    def command(self) -> list[str]:
        program, *_ = super().command()
        return [program, "--bit-preserving", "-od", str(self.folder), "-aet", "MEDIQA", str(self.port)]


def command(sender: str, folder: Path, port: int) -> list[str]:
    """The command line that sends `folder` to 127.0.0.1:`port` on one association."""
    if sender == OURS:
        return [sys.executable, "-m", "node", "send", str(folder), f"MEDIQA@127.0.0.1:{port}", "--calling", "SENDER", "--quiet"]
    if sender == DCMTK:
        return ["storescu", "-R", "-aet", "SENDER", "-aec", "MEDIQA", "127.0.0.1", str(port), "+sd", str(folder)]
    return [sys.executable, "-m", "pynetdicom", "storescu", "-q", "-cx", "-r", "-aet", "SENDER", "-aec", "MEDIQA", "127.0.0.1", str(port), str(folder)]


def measured_send(sender: str, work: Workload, port: int) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MB of one sender; SystemExit when it fails."""
    if sender == INSIDE:
        return _inside(work, port)
    began = time.perf_counter()
    process = subprocess.Popen(command(sender, work.folders[0], port), cwd=ROOT, env=environment(work.stock), stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE)
    peak = [0.0]
    threading.Thread(target=_watch, args=(process.pid, peak), daemon=True).start()
    killer = threading.Timer(SECONDS, process.kill)
    killer.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    killer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    with process:
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"send: {sender} failed: {said[:500]}")
    return seconds, usage.ru_utime + usage.ru_stime, peak[0]


def _inside(work: Workload, port: int) -> tuple[float, float, float]:
    """The same of an association in a process that is loaded already, by its own word."""
    with subprocess.Popen([sys.executable, "benchmarks/send_inside.py", str(work.folders[0]), str(port)], cwd=ROOT, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, env=environment(work.stock)) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        said = json.loads(process.communicate("\n", SECONDS)[0])
    if said["failed"]:
        raise SystemExit(f"send: {INSIDE} failed: {said['failed'][0]}")
    return said["seconds"], said["cpu"], said["peak_mb"]


def _watch(pid: int, peak: list[float]) -> None:
    """Keeps what the process has had resident at most, as long as it is there."""
    while True:
        try:
            lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            return
        found = [int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM:")]
        if not found:
            return  # it has ended
        peak[0] = found[0]
        time.sleep(SAMPLE_SECONDS)


Make = Callable[[Path], Receiver]
STOCK: dict[str, Make] = {"stock": lambda folder: BitPreserving("storescp", folder, True)}
USUAL: dict[str, Make] = {"storescp": lambda folder: BitPreserving("storescp", folder), "node": lambda folder: Node("node os", folder, "os")}
"""Receivers by the names of the table."""


@contextmanager
def started(make: Make, folder: Path) -> Iterator[Receiver]:
    """A receiver that runs; where its port was taken by somebody else meanwhile, on another one."""
    for k in range(TRIES):
        receiver = make(folder / str(k))
        try:
            receiver.__enter__()
            break
        except SystemExit:
            if k == TRIES - 1:
                raise
    try:
        yield receiver
    finally:
        receiver.__exit__()


def run(folder: Path, quick: bool, rounds: int) -> tuple[list[Workload], Found]:
    """Everything that is measured."""
    warm, *all_works = make(folder / "work", quick)
    works = [work for work in all_works if len(work.folders) == 1]
    found: Found = {}
    for k in range(rounds):
        print(f"send: round {k + 1} of {rounds}", file=sys.stderr)
        for work in works:
            senders = [OURS, DCMTK, INSIDE] if k % 2 else [INSIDE, DCMTK, OURS]
            if work.name == "one":
                senders.append(LIBRARY)
            for sender in senders:
                for name, make_receiver in (STOCK if work.stock else USUAL).items():
                    if sender == LIBRARY and name != "storescp":
                        continue
                    with started(make_receiver, folder / f"{k}-{work.name}-{sender}-{name}") as receiver:
                        send(warm, receiver.port)
                        os.sync()
                        figures = measured_send(sender, work, receiver.port)
                        if (there := receiver.count() - warm.instances) == work.instances:
                            found.setdefault((work.name, name, sender), []).append(figures)
                        elif sender == LIBRARY:  # it takes a lost response for the end, and ends well
                            print(f"send: {sender} brought {there} of {work.instances} objects, this round is left out", file=sys.stderr)
                        else:
                            raise SystemExit(f"send: {name} holds {there} objects after {sender} sent {work.instances}")
    return works, found


def measured(folder: Path, quick: bool, rounds: int) -> dict[str, Any]:
    """Everything that is printed."""
    works, found = run(folder, quick, rounds)
    rows = []
    for (work_name, receiver, sender), rounds_of in found.items():
        work = next(w for w in works if w.name == work_name)
        seconds = min(m[0] for m in rounds_of)
        rows.append({"workload": work_name, "receiver": receiver, "sender": sender, "seconds": round(seconds, 3),
                     "median": round(median(m[0] for m in rounds_of), 3), "mb_per_s": round(work.bytes / seconds / 1e6, 1),
                     "instances_per_s": round(work.instances / seconds, 1),
                     "cpu_ms_per_instance": round(1000 * min(m[1] for m in rounds_of) / work.instances, 2),
                     "peak_mb": round(max(m[2] for m in rounds_of), 1)})
    pairs = {name: [(o[0], t[0]) for o, t in zip(found[work, receiver, ours], found[work, receiver, other], strict=other != LIBRARY)]
             for name, (work, receiver, ours, other) in RATIOS.items() if (work, receiver, other) in found}
    said: dict[str, Any] = {
        "quick": quick, "rounds": rounds, "load": round(os.getloadavg()[0], 2), "rows": rows,
        "ratios": {name: round(min(t for _, t in of) / min(o for o, _ in of), 2) for name, of in pairs.items()},
        "medians": {name: round(median(t / o for o, t in of), 2) for name, of in pairs.items()},
        "cpu_ms_per_slice": next(r["cpu_ms_per_instance"] for r in rows if (r["workload"], r["receiver"], r["sender"]) == ("one", "storescp", INSIDE)),
        "peak_mb": max(r["peak_mb"] for r in rows if r["sender"] in (OURS, INSIDE))}
    said["goals"] = judged(said, GOALS, MOST)
    return said


def main() -> None:
    """Make the files, measure, print."""
    args = arguments(__doc__, "sender").parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        said = measured(Path(scratch), args.quick, args.rounds or (1 if args.quick else 3))
    if args.json:
        print(json.dumps(said))
    else:
        print_table(said, ("workload", "receiver", "sender"), GOALS)


if __name__ == "__main__":
    main()
