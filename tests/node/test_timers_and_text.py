"""The watch over the clock, the daily jobs, and an Assessment that survives as text."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from node.assessment_text import dump, load, load_pictures, save_pictures
from node.timers import ClockWatch, DailyJob, Timers
from tests.support.assessments import assessed, skipped
from tests.support.ports import wait_for


def test_clock_steps_are_told_from_slewing() -> None:
    wall, mono = [1000.0], [50.0]
    watch = ClockWatch(lambda: wall[0], lambda: mono[0])
    wall[0], mono[0] = 1012.0, 60.0
    assert watch.jump() == 0.0
    wall[0] += 3600 + 10
    mono[0] += 10
    assert watch.jump() == pytest.approx(3600)
    assert watch.jump() == 0.0
    wall[0] -= 7200
    assert watch.jump() == pytest.approx(-7200)


def test_a_step_is_known_from_an_offset_of_before() -> None:
    watch = ClockWatch(lambda: 5_000.0, lambda: 1_000.0, offset=4_000.0 + 3_600.0)
    assert watch.jump() == -3_600.0 and watch.jump() == 0.0 and watch.offset == 4_000.0
    assert ClockWatch(lambda: 5_000.0, lambda: 1_000.0, offset=3_999.0).jump() == 0.0


def test_daily_jobs_run_are_armed_anew_and_tell_of_failures() -> None:
    ran, failed = threading.Event(), []

    def fails() -> None:
        raise ValueError

    timers = Timers([DailyJob("anchor", 3, 7, ran.set), DailyJob("bad", 4, 8, fails)], failed.append)
    timers.start()
    try:
        scheduler, now = timers._scheduler, datetime.now(UTC)
        scheduler.modify_job("anchor", next_run_time=now + timedelta(days=3))  # as after a step of the clock three days back
        timers.rearm()
        due = {job.id: job.next_run_time for job in scheduler.get_jobs()}
        assert {name: (at.hour, at.minute) for name, at in due.items()} == {"anchor": (3, 7), "bad": (4, 8)}
        assert all(timedelta(0) < at - now <= timedelta(days=1) for at in due.values())
        for name in due:
            scheduler.modify_job(name, next_run_time=now)
        assert ran.wait(5)
        wait_for(lambda: failed == ["bad"], 5, "a job that fails is told of")
    finally:
        timers.stop()
    timers.stop()


@pytest.mark.parametrize("assessment", [assessed(), skipped()])
def test_assessment_comes_back_without_loss(assessment) -> None:
    text = dump(assessment)
    again = load(text, assessment.pictures)
    for name in assessment.__dataclass_fields__:
        assert getattr(again, name) == getattr(assessment, name), name
    said = json.loads(text)
    assert {k: said[k] for k in assessment.to_json()} == json.loads(json.dumps(assessment.to_json()))


def test_pictures_come_back(tmp_path: Path) -> None:
    pictures = assessed().pictures
    save_pictures(pictures, tmp_path / "a" / "7.npz")
    again = load_pictures(tmp_path / "a" / "7.npz")
    assert again is not None and len(again) == len(pictures)
    for one, two in zip(pictures, again, strict=True):
        assert np.array_equal(one.pixels, two.pixels)
        assert (one.spacing_mm, one.markers) == (two.spacing_mm, two.markers)
    save_pictures((), tmp_path / "none.npz")
    assert load_pictures(tmp_path / "none.npz") == ()


def test_lost_or_damaged_pictures_are_none(tmp_path: Path) -> None:
    assert load_pictures(tmp_path / "gone.npz") is None
    (tmp_path / "bad.npz").write_bytes(b"PK\3\4 nonsense")
    assert load_pictures(tmp_path / "bad.npz") is None
