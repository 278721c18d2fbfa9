"""A short chaos run in each test run, and the rules of the schedule; the long one is `make chaos`."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import pytest

from tests.chaos.node import Disk
from tests.chaos.run import Plan, run
from tests.chaos.schedule import CALM, FAULTS, MINUTE, schedule
from tests.chaos.truth import KINDS, Truth, digest

SHORT = Plan(Path(), seed=3, kills=8, minutes=2, gap=2.0, fault_gap=4.0, backlog=10, megabytes=600, library_senders=1)


@pytest.mark.model
@pytest.mark.peer
@pytest.mark.timeout(280)
def test_nothing_is_lost_doubled_or_left_without_an_end(tmp_path: Path) -> None:
    lines: list[str] = []
    done = run(Plan(**{**vars(SHORT), "folder": tmp_path, "say": lines.append}))
    assert done.violations == []
    assert done.figures["kills"] >= 3 and done.figures["acknowledged"] >= 10
    assert sum(n for what, n in done.figures["faults"].items() if not what.startswith(("kill", "put off"))) >= 2
    assert done.figures["tracebacks"] == 0
    if done.figures["left_out"]:
        pytest.skip("held, without " + ", ".join(done.figures["left_out"]))


def test_the_schedule_follows_from_the_seed_alone() -> None:
    one, same, other = (list(islice(schedule(seed, 2.0, 10.0), 3000)) for seed in (1, 1, 2))
    assert one == same != other
    assert all(a.at <= b.at for a, b in pairwise(one))
    kills = [e for e in one if e.kind == "kill"]
    assert set(Counter(e.what for e in kills)) == {"receiver", "worker", "decoder", "supervisor"}
    assert {e.what for e in kills if e.at % MINUTE >= CALM} == {"receiver", "decoder"}
    assert {e.kind for e in one[:60]} == {"kill", *FAULTS}
    assert kills[-1].at / len(kills) == pytest.approx(2.0, rel=0.1)


def test_the_driver_knows_what_it_made(tmp_path: Path) -> None:
    """Fresh UIDs in the bytes of a template: valid files, each with its own digest; what was acknowledged stands on disk at once."""
    import pydicom

    poisoned: list[str] = []
    truth = Truth(tmp_path, 1, lambda: 1.5, lambda study, series, sop: poisoned.append(sop))
    made = [truth.make(kind) for kind in KINDS for _ in range(2)]
    instances = [i for s in made for i in s.instances]
    assert len({i.sop_uid for i in instances}) == len({i.digest for i in instances}) == len(instances)
    for series in made:
        for one in series.instances:
            ds = pydicom.dcmread(one.path)
            assert (ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID) == (one.sop_uid, series.series_uid, series.study_uid)
            assert ds.file_meta.MediaStorageSOPInstanceUID == one.sop_uid and digest(one.path.read_bytes()) == one.digest
            assert ds.pixel_array.size == ds.Rows * ds.Columns
    assert poisoned == [s.instances[1].sop_uid for s in made if s.kind == "poison"]
    truth.acknowledge(instances[:2])
    truth.acknowledge(instances[:1])
    assert truth.answers == 3
    assert (tmp_path / "acknowledged.txt").read_text().split() == [w for i in instances[:2] for w in ("1.500", i.sop_uid, i.digest)]


def test_a_disk_can_be_full(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk", 8)
    if disk.why_not:
        pytest.skip(f"no small file system: {disk.why_not}")
    try:
        (disk.folder / "some").write_bytes(bytes(300_000))
        disk.fill(0)
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "more").write_bytes(bytes(100_000))
        disk.clear()
        (disk.folder / "more").write_bytes(bytes(100_000))
    finally:
        disk.unmount()
