"""Who waits together commits together; nobody pays for the failure of another, nobody waits for a group that is not his."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from node.receive.group_commit import GroupCommit
from storage.database import open_engine
from storage.objects import ObjectStore
from tests.support.ports import wait_for


class Counted(ObjectStore):
    """Counts what is synced together."""

    groups: list[int]

    def sync_folders(self, relatives) -> None:
        self.groups.append(len(list(relatives)))


@pytest.fixture
def store(tmp_path: Path) -> Counted:
    store = Counted(tmp_path / "objects")
    store.groups = []
    return store


@pytest.fixture
def group(tmp_path: Path, store: Counted) -> GroupCommit:
    engine = open_engine(tmp_path / "a.db")
    with engine.begin() as conn:
        conn.exec_driver_sql("create table t (k integer)")
    return GroupCommit(engine, store)


def row(k: int):
    def fact(conn: sa.Connection) -> int:
        conn.exec_driver_sql("insert into t values (?)", (k,))
        return k
    return fact


def rows(group: GroupCommit) -> list[int]:
    with group._engine.connect().execution_options(readonly=True) as conn:
        return sorted(conn.exec_driver_sql("select k from t").scalars())


def together(group: GroupCommit, facts: list) -> list:
    """Results or errors of `facts`, all but the first of which arrive while the first one is being committed."""
    entered, go, answers = threading.Event(), threading.Event(), {}

    def first(conn: sa.Connection) -> str:
        entered.set()
        assert go.wait(10)
        return "first"

    def ask(k: object, fact: object) -> None:
        try:
            answers[k] = group.commit("a/b", fact)
        except Exception as error:
            answers[k] = error

    threads = [threading.Thread(target=ask, args=("first", first))]
    threads[0].start()
    assert entered.wait(10)
    for k, fact in enumerate(facts):
        threads.append(threading.Thread(target=ask, args=(k, fact)))
        threads[-1].start()
    wait_for(lambda: len(group._waiting) == len(facts), 10, "they wait")
    go.set()
    for thread in threads:
        thread.join(20)
    assert answers.pop("first") == "first"
    return [answers[k] for k in range(len(facts))]


def test_alone_it_is_a_plain_commit(group: GroupCommit, store: Counted) -> None:
    assert [group.commit("a/b", row(k)) for k in range(3)] == [0, 1, 2]
    assert rows(group) == [0, 1, 2] and store.groups == [1, 1, 1]
    with pytest.raises(ValueError, match="mine"):
        group.commit("a/b", lambda conn: (_ for _ in ()).throw(ValueError("mine")))
    assert group.commit("a/b", row(7)) == 7


def test_those_who_wait_share_one_sync_and_one_transaction(group: GroupCommit, store: Counted) -> None:
    assert together(group, [row(k) for k in range(5)]) == [0, 1, 2, 3, 4]
    assert store.groups == [1, 5] and rows(group) == [0, 1, 2, 3, 4]


def test_a_failure_is_only_its_own(group: GroupCommit, store: Counted) -> None:
    def bad(conn: sa.Connection) -> None:
        conn.exec_driver_sql("insert into t values (99)")
        raise ValueError("mine")

    found = together(group, [row(0), bad, row(2)])
    assert (found[0], str(found[1]), found[2]) == (0, "mine", 2)
    assert rows(group) == [0, 2] and store.groups == [1, 3, 1, 1, 1]


def test_a_disk_that_fails_fails_for_all_of_them(group: GroupCommit, store: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(relatives: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(5, "scratch")
    calls: list[int] = []
    monkeypatch.setattr(store, "sync_folders", fail)
    assert [str(error) for error in together(group, [row(1), row(2)])] == ["[Errno 5] scratch"] * 2
    assert rows(group) == [] and len(calls) == 2  # not tried again: the second time it might seem to succeed


def test_many_at_once(group: GroupCommit, store: Counted) -> None:
    answers: list[int] = []
    threads = [threading.Thread(target=lambda k=k: answers.extend(group.commit("a/b", row(100 * k + i)) for i in range(40))) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == rows(group) and len(answers) == 320 and sum(store.groups) == 320
