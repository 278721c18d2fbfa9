"""Early work: only for the very same files, never twice at once, never instead of a judgement, never a trap for the worker."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from node.config import Config
from node.early import KEPT, LEAST, MARK, SHARE, TRIES, EarlyWork, begins
from storage.database import migrate, open_engine
from storage.schema import node_fact
from tests.support.ports import wait_for


class Engine:
    """An engine that counts its calls and waits for `gate` in each."""

    def __init__(self) -> None:
        self.calls: list[tuple[Path, ...]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.at_once = self.most = 0

    def __call__(self, files: Sequence[Path]) -> object:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.calls.append(tuple(files))
        self.gate.wait(20)
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        return (len(self.calls), tuple(files))


@pytest.fixture
def place(tmp_path: Path) -> Any:
    engine = open_engine(tmp_path / "node.db")
    migrate(engine)
    return SimpleNamespace(engine=engine, config=Config())


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def early(place: Any, engine: Engine) -> Iterator[EarlyWork]:
    early = EarlyWork(place, engine, lambda: True)
    thread = threading.Thread(target=early.run)
    thread.start()
    yield early
    engine.gate.set()
    early.stop()
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{k}.dcm" for k in range(3)]
    for k, file in enumerate(found):
        file.write_bytes(b"x" * (k + 1))
    return found


def ask(early: EarlyWork, files: list[Path], series_id: int = 1, changes: int = 3) -> None:
    """Ask for early work and wait until it is done."""
    wait_for(lambda: early.wants(series_id, changes), 20, "free")
    early.want(series_id, changes, files)
    wait_for(lambda: early._slot is None, 20, "done")


def marks(place: Any) -> int:
    with place.engine.connect() as conn:
        return int(conn.execute(sa.select(sa.func.count()).select_from(node_fact).where(node_fact.c.name == f"{MARK} mediqa")).scalar_one())


@given(st.floats(0, 1e6), st.floats(0.01, 1000))
def test_it_begins_in_the_wait_or_not_at_all(last: float, wait: float) -> None:
    at = begins(last, last + wait)
    assert at is None or (last + LEAST <= at < last + wait and at == last + max(LEAST, SHARE * ((last + wait) - last)))
    assert at is not None or wait <= LEAST + 1e-6


def test_the_step_gets_what_was_made_early_once(early: EarlyWork, engine: Engine, files: list[Path], place: Any) -> None:
    ask(early, files)
    assert engine.calls == [tuple(files)] and marks(place) == 0
    assert early.assess(files) == (1, tuple(files))
    assert early.assess(files) == (2, tuple(files))  # given away: whoever asks again asks the engine


@pytest.mark.parametrize("change", ["another", "fewer", "order", "content", "time", "gone"])
def test_other_files_are_assessed_anew(early: EarlyWork, engine: Engine, files: list[Path], change: str) -> None:
    ask(early, files)
    wanted = list(files)
    if change == "another":
        wanted.append(files[0].with_name("9.dcm"))
        wanted[-1].write_bytes(b"")
    elif change == "fewer":
        wanted.pop()
    elif change == "order":
        wanted.reverse()
    elif change == "content":
        files[1].write_bytes(b"longer than before")
    elif change == "time":
        os.utime(files[1], ns=(1, 1))
    else:
        files[1].unlink()  # the engine says in its own words what that means
    assert early.assess(wanted) == (2, tuple(wanted))


def test_a_step_waits_for_early_work_under_way(early: EarlyWork, engine: Engine, files: list[Path], place: Any) -> None:
    engine.gate.clear()
    early.want(1, 3, files)
    wait_for(lambda: engine.calls, 20, "begun")
    found: list[Any] = []
    step = threading.Thread(target=lambda: found.append(early.assess(files)))
    step.start()
    step.join(0.2)
    assert found == [] and not early.wants(2, 1) and marks(place) == 1  # one at a time
    engine.gate.set()
    step.join(20)
    assert found == [(1, tuple(files))] and engine.most == 1


def test_an_error_is_the_steps_to_judge(early: EarlyWork, engine: Engine, files: list[Path], place: Any) -> None:
    engine.error = ValueError("no")
    ask(early, files)
    assert marks(place) == 0
    with pytest.raises(ValueError, match="no"):
        early.assess(files)
    assert len(engine.calls) == 2
    engine.error = None
    ask(early, files, changes=4)  # the thread lives on
    assert early.assess(files) == (3, tuple(files))


def test_limits(early: EarlyWork, engine: Engine, files: list[Path]) -> None:
    for changes in range(TRIES):
        ask(early, files[:1], changes=changes)
        assert not early.wants(1, changes)
    assert not early.wants(1, TRIES)
    early.forget({2})
    assert early.wants(1, TRIES)
    for k in range(KEPT + 1):
        ask(early, [files[0]] * (k + 2), series_id=10 + k)
    calls = len(engine.calls)
    early.assess([files[0]] * (KEPT + 2))
    assert len(engine.calls) == calls
    early.assess([files[0]] * 2)  # made room
    assert len(engine.calls) == calls + 1


def test_frozen_revisions_come_first(place: Any, engine: Engine) -> None:
    assert not EarlyWork(place, engine, lambda: False).wants(1, 1)


def test_after_a_death_in_early_work_there_is_none_for_one_life(place: Any, engine: Engine, files: list[Path]) -> None:
    with place.engine.begin() as conn:
        conn.execute(node_fact.insert().values(name=f"{MARK} mediqa", value=""))
    careful = EarlyWork(place, engine, lambda: True)
    assert not careful.wants(1, 1) and marks(place) == 0
    assert careful.assess(files) == (1, tuple(files))
    assert EarlyWork(place, engine, lambda: True).wants(1, 1)
