"""Habits of senders: one row each, found again, never too many; which arrivals a series had."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from storage import senders
from storage.index import ReceivedInstance, admit, open_association, set_arrival
from storage.schema import sender_habit


def keep(conn: sa.Connection, calling_ae: str, modality: str = "CT", wait: float | None = 7.0, history: str = "[]") -> None:
    senders.keep_habit(conn, calling_ae, modality, wait=wait, contiguous=6.0, longest=2.5, between=1.5, seen=30, split=1, history=history)


def test_a_habit_is_one_row_for_each_title_and_modality(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        assert senders.habit(conn, "A", "CT") is None and senders.learned_waits(conn, "A", "CT") == (None, None, 0.0)
        keep(conn, "A")
        keep(conn, "A", "MR", None)
        keep(conn, "A", wait=9.0, history="[[1,2.5,0]]")
    with engine.connect() as conn:
        assert conn.execute(sa.select(sa.func.count()).select_from(sender_habit)).scalar() == 2
        row: Any = senders.habit(conn, "A", "CT")
        assert (row.wait_seconds, row.longest_gap_seconds, row.series_seen, row.series_split, row.history) == (9.0, 2.5, 30, 1, "[[1,2.5,0]]")
        assert senders.learned_waits(conn, "A", "CT") == (9.0, 6.0, 1.5)
        assert senders.learned_waits(conn, "A", "MR") == (None, 6.0, 1.5) and senders.learned_waits(conn, "B", "CT") == (None, None, 0.0)


def test_the_one_that_was_silent_longest_makes_room(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "MOST", 3)
    with engine.begin() as conn:
        for title in ("A", "B", "C", "A", "D", "E"):  # A was heard again after B and C
            keep(conn, title)
        assert sorted(conn.execute(sa.select(sender_habit.c.calling_ae)).scalars()) == ["A", "D", "E"]


def test_new_arrivals_know_their_receiver(engine: sa.Engine) -> None:
    """Second versions, our own objects and other series are none; what was adopted at start has no receiver."""
    def came(conn: sa.Connection, number: int, association: int | None, series: str = "1.2.3", sop: str = "", own: bool = False) -> int:
        return admit(conn, ReceivedInstance("1.2", series, sop or f"1.2.3.{number}", "1", "2", f"{number:064}", 10, f"p{number}", "A", association,
                                            own=own)).instance_id

    with engine.begin() as conn:
        first, second = open_association(conn, "r1", "A", "N", "p"), open_association(conn, "r2", "A", "N", "p")
        ids = [came(conn, 1, first), came(conn, 2, None), came(conn, 3, second)]
        came(conn, 4, second, own=True)
        came(conn, 5, second, series="1.2.9")
        set_arrival(conn, came(conn, 6, second, sop="1.2.3.1"), "update", make_current=True)
        series_id = conn.execute(sa.text("select id from series where series_uid = '1.2.3'")).scalar_one()
        found = senders.new_arrivals(conn, series_id)
        assert [(a.id, a.association_id, a.start_id) for a in found] == list(zip(ids, [first, None, second], ["r1", None, "r2"], strict=True))
        assert found[0].received_mono <= found[1].received_mono <= found[2].received_mono
