"""The benchmark of sending as it is called; what it finds on a busy machine is no evidence, that it finds it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.peer
def test_json(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "send.py", "--quick", "--json", "--folder", tmp_path], capture_output=True,
                          text=True, check=True)
    found = json.loads(done.stdout)
    assert {"send_vs_storescu", "mr_vs_storescu", "multiframe_vs_storescu", "nagle_vs_storescu", "send_command_vs_storescu"} \
        <= set(found["ratios"]) == set(found["medians"])
    assert all(value > 0 for value in (*found["ratios"].values(), found["cpu_ms_per_slice"], found["peak_mb"]))
    assert {(r["workload"], r["receiver"]) for r in found["rows"]} == {
        *((w, r) for w in ("one", "multiframe", "mr") for r in ("storescp", "node")), ("nagle", "stock")}
    assert found["peak_mb"] < 80 and set(found["goals"]) == {"send_vs_storescu", "peak_mb"}
    assert list(tmp_path.iterdir()) == []
