"""kill -9 inside and between the steps of a series revision: one end, one copy, the same bytes, an audit chain that holds."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.support.bench import Bench
from tests.support.ports import wait_for
from tests.support.scripted_pacs import LOSE_RESPONSE, ScriptedPacs
from tests.support.worker import POINTS

DELIVERED = "select * from delivery where state = 'delivered'"
ENDED = "select * from revision where outcome is not null"


def shuffled(seed: int, size: int) -> list[tuple[str, ...]]:
    """All POINTS in groups, in an order that `seed` fixes."""
    points = list(POINTS)
    random.Random(seed).shuffle(points)
    return [tuple(points[k:k + size]) for k in range(0, len(points), size)]


def check(bench: Bench, pacs: ScriptedPacs, series: int) -> None:
    """What must hold whatever was killed."""
    bench.wait_rows(DELIVERED, 2 * series, 60)
    revisions = bench.rows("select * from revision")
    assert len(revisions) == series and {r["outcome"] for r in revisions} == {"assessed"}
    assert len(bench.rows("select seq from audit where event = 'ended'")) == series
    assert len(bench.rows("select id from result_object")) == 5 * series
    assert len(pacs.held) == 2 * series and pacs.other_bytes == []
    assert bench.audit().verify().ok


@pytest.mark.timeout(180)
@pytest.mark.parametrize("points", shuffled(7, 3), ids=",".join)
def test_killed_at(tmp_path: Path, points: tuple[str, ...]) -> None:
    with ScriptedPacs([LOSE_RESPONSE] if "after-send" in points else []) as pacs:
        bench = Bench(tmp_path / "node", pacs.port)
        (tmp_path / "marks").mkdir()
        bench.put_series()
        try:
            def delivered() -> bool:
                if bench.process is None or bench.process.poll() is not None:
                    bench.start(KILL_AT=",".join(points), KILL_MARK=str(tmp_path / "marks"))
                return len(bench.rows(DELIVERED)) == 2

            wait_for(delivered, 120, "delivered", every=0.2)
            assert sorted(p.name for p in (tmp_path / "marks").iterdir()) == sorted(points)
            check(bench, pacs, 1)
        finally:
            bench.kill()


@pytest.mark.timeout(180)
def test_killed_from_outside_at_random_moments(tmp_path: Path) -> None:
    """Several series, several kills at moments that a seed chooses; the short form of a long chaos run."""
    dice = random.Random(11)
    with ScriptedPacs() as pacs:
        bench = Bench(tmp_path / "node", pacs.port)
        try:
            for _ in range(5):
                bench.put_series(2)  # there is something to do at each kill
                bench.start(ASSESS_SECONDS="0.3")
                wait_for(lambda: b"worker runs" in bench.log.read_bytes(), 30, "runs")
                time.sleep(dice.uniform(0.1, 2.0))
                bench.kill()
                bench.log.write_bytes(b"")
            bench.start()
            check(bench, pacs, 5)
        finally:
            bench.kill()
