"""The power is cut in effect: the last rows are gone, the files are there. Before the node listens, everything is found again.

With synchronous NORMAL a power cut takes the tail of the write-ahead log, never a synced file. So a receiver that was killed gets its log cut
at several places, in the middle of a frame as well, and starts again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.truth import Truth, digest
from tests.support.node import ROOT, NodeUnderTest, send
from tests.support.pacs import SmallPacs
from tests.support.ports import listening, wait_for

KINDS = {"mr": "assessed", "compressed": "assessed", "too-small": "skipped", "localizer": "skipped"}
"""Kind of series -> its end."""
SHARES = (0.0, 0.45, 0.8, 0.97)
"""How much of the write-ahead log survives."""


class Before:
    """The folder of a receiver that was killed after it had acknowledged a series of each kind, and what was sent."""

    def __init__(self, tmp_path: Path) -> None:
        self.truth = Truth(tmp_path / "truth", 1, time.monotonic)
        node = node_in(tmp_path / "before")
        with receiver(node):
            for kind in KINDS:
                series = self.truth.make(kind)
                assert send(series.folder, node.port) == len(series.instances)
                self.truth.acknowledge(series.instances)
        self.folder = node.folder
        self.log_bytes = (node.folder / "data" / "node.db-wal").stat().st_size

    def copy(self, share: float) -> Path:
        """The folder as the disk has it after a power cut: a part of the log, and no shared memory of the database."""
        made = self.folder.with_name(f"cut-{share}")
        shutil.copytree(self.folder, made, ignore=shutil.ignore_patterns("*-shm", "*.ready"))
        with (made / "data" / "node.db-wal").open("r+b") as log:
            log.truncate(int(self.log_bytes * share))
        return made


def node_in(folder: Path, *pacs: SmallPacs) -> NodeUnderTest:
    return NodeUnderTest(folder, [("pacs", "PACS", p.port) for p in pacs], quiet=1, contiguous=1, announced=1)


@contextmanager
def receiver(node: NodeUnderTest) -> Iterator[None]:
    """The receiver of a node alone; killed at the end."""
    with node.log.open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "node.receive", "-c", str(node.config)], cwd=ROOT, stdout=log, stderr=log)
    try:
        wait_for(lambda: listening(node.port) or process.poll() is not None, 60, "listening", every=0.02)
        assert process.poll() is None, node.tail()
        yield
    finally:
        process.kill()
        process.wait(20)


def indexed(node: NodeUnderTest) -> list[tuple[str, str]]:
    return sorted((r["sop_uid"], r["digest"]) for r in node.rows("select sop_uid, digest from instance where current = 1"))


def adopted(node: NodeUnderTest) -> int:
    """Instances of which the audit log says that they were found without a row."""
    return sum(r["n"] for r in node.rows("select json_extract(details, '$.instances') as n from audit where event = 'adopted'"))


@pytest.mark.timeout(180)
def test_the_tail_of_the_write_ahead_log_is_gone(tmp_path: Path) -> None:
    before, found = Before(tmp_path), {}
    for share in SHARES:
        node = node_in(before.copy(share))
        part = node.folder / "data" / "objects" / "parts" / "1-0-aa.part"
        part.write_bytes(b"half an object")
        with receiver(node):  # it listens, so the rows are there
            assert indexed(node) == sorted(before.truth.acknowledged), share
            assert not part.exists()
            found[share] = adopted(node)
            node.mediqa("audit", "verify")
    assert found[0.0] == len(before.truth.acknowledged) > found[0.8] > 0
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.model
@pytest.mark.timeout(180)
def test_what_was_found_again_goes_all_the_way(tmp_path: Path) -> None:
    before = Before(tmp_path)
    with SmallPacs() as pacs, node_in(before.copy(0.5), pacs) as node:
        ends = node.wait_for_ends(len(KINDS))
        assert adopted(node) > 0
        assert {s.kind: ends[s.series_uid]["outcome"] for s in before.truth.series.values()} == KINDS
        assert all(ends[s.series_uid]["instances"] == len(s.instances) for s in before.truth.series.values())
        node.wait_delivered()
        assert len(pacs.of_modality("SR")) == len(pacs.of_modality("OT")) == 2 and pacs.other_bytes == []
        node.mediqa("audit", "verify")


@pytest.mark.model
@pytest.mark.timeout(180)
def test_a_file_that_is_gone_is_reported_and_taken_again(tmp_path: Path) -> None:
    """The opposite, which only a broken disk or a hand can do: the start says so, nothing is invented, the sender's copy repairs it."""
    before = Before(tmp_path)
    [series] = [s for s in before.truth.series.values() if s.kind == "mr"]
    one = series.instances[2]
    node = node_in(before.folder)
    [gone] = node.rows("select id, path from instance where sop_uid = ?", one.sop_uid)
    path = node.folder / "data" / "objects" / gone["path"]
    path.unlink()
    for _ in range(2):  # told once, however often it starts
        with receiver(node):
            lost = node.rows("select details from audit where event = 'files-lost'")
            assert [r["details"] for r in lost] == [f'{{"count":1,"instances":[{gone["id"]}]}}']
    with receiver(node):
        assert send(series.folder, node.port) == len(series.instances)
    assert digest(path.read_bytes()) == one.digest
    with node:
        assert wait_for(lambda: node.ends().get(series.series_uid), 60, node.tail())["outcome"] == "assessed"
        assert node.rows("select count(*) as n from audit where event = 'files-lost'") == [{"n": 1}]
        node.mediqa("audit", "verify")
