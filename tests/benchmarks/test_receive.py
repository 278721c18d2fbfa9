"""The benchmark of reception as it is called; what it finds on a busy machine is no evidence, that it finds it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.receive_index import UID_PREFIX, fill, rows_of
from storage.database import open_engine
from storage.index import ReceivedInstance, admit
from storage.schema import instance, series

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.peer
def test_json(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "receive.py", "--quick", "--json", "--rows", "5000", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert {"one_vs_orthanc", "ten_vs_orthanc", "multiframe_vs_orthanc", "os_one_vs_storescp", "os_ten_vs_storescp",
            "nagle_vs_storescp", "many_rows_vs_empty"} <= set(found["ratios"]) == set(found["medians"])
    assert all(value > 0 for value in (*found["ratios"].values(), found["cpu_ms_per_slice"], found["peak_mb"]))
    assert {row["workload"] for row in found["rows"]} == {"one", "ten", "multiframe", "mr", "nagle", "more"}
    assert found["peak_mb"] < 100 and set(found["goals"]) > {"cpu_ms_per_slice", "peak_mb", "idle_percent"}
    assert found["index_rows"] == 5120  # those that were made, and those that came
    assert list(tmp_path.iterdir()) == []


def test_an_index_of_many_rows_is_one_of_the_node(tmp_path: Path) -> None:
    """Every row is an instance of its series, every key is spread over the whole range, and the node's own code reads and writes it."""
    database = tmp_path / "index.db"
    fill(database, 1000)
    engine = open_engine(database)
    with engine.begin() as conn:
        assert conn.execute(sa.select(sa.func.count(), sa.func.count(sa.distinct(instance.c.series_id)), sa.func.count(sa.distinct(
            sa.func.substr(instance.c.path, 1, 2)))).select_from(instance).join(series, series.c.id == instance.c.series_id)).one() == (1000, 5, 256)
        first, last = conn.execute(sa.select(sa.func.min(instance.c.sop_uid), sa.func.max(instance.c.sop_uid))).one()
        assert first.startswith(f"{UID_PREFIX}10") and last.startswith(f"{UID_PREFIX}89") and len(first) == len(last) == 64
        assert admit(conn, ReceivedInstance("1", "2", "3", "4", "5", "6", 7, "aa/b/c/d.dcm")).kind == "new"
        assert admit(conn, ReceivedInstance("1", "2", first, "4", "5", "6", 7, "aa/b/c/e.dcm")).kind == "unclassified"
    engine.dispose()
    assert rows_of(database) == 1002
