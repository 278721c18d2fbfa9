"""What an association of the worker does, without the start of a process: `python benchmarks/send_inside.py FOLDER PORT`.

Says `ready` when it is loaded, waits for a line, sends the folder as `mediqa send` does, and says as JSON how long that took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from node.cli.send import Outcome, find_files
from node.cli.store_scu import send_files
from node.deliver.peer import Peer


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    outcome = Outcome()
    print("ready", flush=True)
    sys.stdin.readline()
    began, cpu = time.perf_counter(), time.process_time()
    send_files(find_files(folder, outcome), Peer("MEDIQA", "127.0.0.1", port, "SENDER", 60), outcome, lambda: None)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    [peak] = [int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM:")]
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": peak, "failed": outcome.failed}), flush=True)


if __name__ == "__main__":
    main()
