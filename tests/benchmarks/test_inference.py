"""The benchmark of inference as it is called; its ratio holds on a busy machine too, its seconds need a quiet one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.model
def test_json(tmp_path: Path) -> None:
    """The files that it makes are kept and used again where a folder is named."""
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "inference.py", "--quick", "--json", "--device", "cpu", "--files", tmp_path],
                          capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert "simulating" in done.stderr and len(list(tmp_path.glob("*.dcm"))) == found["slices"] == 300
    stages = found["cpu"]
    parts = sum(stages[name]["best"] for name in ("read_decode", "measures_views", "network", "rest"))
    assert 0 < parts <= stages["seconds"]["median"] * 1.01 and stages["slices_scored"] >= 7
    assert found["seven_slices"]["ratio"] >= 20 and found["seven_slices"]["ratio_cpu"] >= 20
    assert set(found["goals"]) == {"seconds", "network", "ratio"} and 0 < found["score"] < 100
