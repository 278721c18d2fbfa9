"""The benchmark of reception as it is called; what it finds on a busy machine is no evidence, that it finds it is."""

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
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "receive.py", "--quick", "--json", "--folder", tmp_path], capture_output=True,
                          text=True, check=True)
    found = json.loads(done.stdout)
    assert {"one_vs_orthanc", "ten_vs_orthanc", "multiframe_vs_orthanc", "os_one_vs_storescp", "os_ten_vs_storescp",
            "nagle_vs_storescp"} <= set(found["ratios"]) == set(found["medians"])
    assert all(value > 0 for value in (*found["ratios"].values(), found["cpu_ms_per_slice"], found["peak_mb"]))
    assert {row["workload"] for row in found["rows"]} == {"one", "ten", "multiframe", "mr", "nagle"}
    assert found["peak_mb"] < 100 and set(found["goals"]) > {"cpu_ms_per_slice", "peak_mb", "idle_percent"}
    assert list(tmp_path.iterdir()) == []
