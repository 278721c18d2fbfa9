"""Tries against real peers with real rows: one copy in the end, whatever happened in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from node.deliver import ledger
from node.deliver.attempt import Sender
from node.deliver.peer import Peer
from node.deliver.retry import later
from storage.database import open_engine
from storage.schema import delivery, destination, metadata, result_object, revision, series
from tests.support import raw_peer
from tests.support.ports import free_port
from tests.support.raw_acceptor import Accepted, RawAcceptor
from tests.support.scripted_pacs import ABORT, CUT, LOSE_RESPONSE, ScriptedPacs
from tests.support.small_objects import SC, image, write

SR = ("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.88.11")
T0 = "2026-01-01T00:00:00.000000Z"


class Told:
    """Keeps what the audit log is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def append(self, conn: sa.Connection, event: str, actor: str, **more: Any) -> None:
        self.events.append((event, more))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


class Desk:
    """A database with one assessed revision, its objects on disk, and a clock that is moved by hand."""

    def __init__(self, folder: Path, port: int) -> None:
        self.engine = open_engine(folder / "node.db")
        metadata.create_all(self.engine)
        self.now, self.told, self.folder = T0, Told(), folder
        peer = Peer("PACS", "127.0.0.1", port, "MEDIQA", 2)
        self.sender = Sender(self.engine, self.told, {"pacs": peer, "other": peer}, lambda path: folder / path,
                             ledger.Patience(30, 3600, 7), SR, lambda: self.now, lambda: 0.5)

    def point_at(self, port: int) -> None:
        """The destination is at another port from now on."""
        self.sender = dataclasses.replace(self.sender, peers={"pacs": Peer("PACS", "127.0.0.1", port, "MEDIQA", 2)})

    def revision(self, number: int = 1, kinds: tuple[str, ...] = ("sc", "sr"), names: tuple[str, ...] = ("pacs",),
                 live: bool = True) -> int:
        with self.engine.begin() as conn:
            series_id = conn.execute(sa.insert(series).values(
                study_uid="1.2", series_uid=f"1.2.{number}", first_at=T0, last_at=T0, first_mono=0, last_mono=0, boot_id="b")).lastrowid
            revision_id = conn.execute(sa.insert(revision).values(
                series_id=series_id, number=1, changes=1, completed_at=T0, completed_by="quiet", instances=1, content_digest="d")).lastrowid
            for kind, classes in (("sc", (SC,)), ("sr", SR)):
                for uid in classes if kind in kinds else ():
                    ds = image(uid)
                    name = f"{number}-{uid}.dcm"
                    write(ds, self.folder / name)
                    conn.execute(sa.insert(result_object).values(
                        revision_id=revision_id, kind=kind, sop_class_uid=uid, sop_uid=ds.SOPInstanceUID, series_uid="1.2.9",
                        study_uid="1.2", path=name, digest="d", bytes=1, made_at=T0))
            ledger.plan(conn, revision_id, kinds, names, self.now, 3600, live)
        return revision_id

    def round(self) -> int:
        """Try everything that is due now; how many tries."""
        with self.engine.begin() as conn:
            due = ledger.due(conn, self.now)
        return sum(len(self.sender.attempt(d.delivery_id, d.attempt)) for d in due)

    def wait(self, seconds: float) -> None:
        self.now = later(self.now, seconds)

    def rows(self) -> dict[str, Any]:
        with self.engine.begin() as conn:
            return {r.kind: r for r in conn.execute(sa.select(delivery).order_by(delivery.c.id))}

    def all(self) -> list[Any]:
        with self.engine.begin() as conn:
            return list(conn.execute(sa.select(delivery).order_by(delivery.c.id)))

    def objects(self, *classes: str) -> list[Any]:
        """Rows of the objects of these SOP classes, class by class."""
        with self.engine.begin() as conn:
            found = list(conn.execute(sa.select(result_object).order_by(result_object.c.id)))
        return [o for uid in classes for o in found if o.sop_class_uid == uid]

    def target(self) -> Any:
        with self.engine.begin() as conn:
            return conn.execute(sa.select(destination).where(destination.c.name == "pacs")).one_or_none()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def desk(tmp_path: Path, port: int) -> Iterator[Desk]:
    yield Desk(tmp_path, port)


def test_sc_first_then_sr(desk: Desk, port: int) -> None:
    desk.revision()
    with ScriptedPacs(port=port) as pacs:
        assert desk.round() == 2 and {r.state for r in desk.all()} == {"delivered"}
        assert desk.round() == 0
        assert pacs.order == [o.sop_uid for o in desk.objects(SC, SR[0])] and list(pacs.times.values()) == [1, 1]
        assert len(pacs.proposed) == 1  # associations
    assert desk.told.names() == ["delivered", "delivered", "sr-class-chosen"]
    assert desk.target().sr_class_uid == SR[0]


def test_sr_waits_for_its_sc_no_longer_than_an_hour(desk: Desk, port: int) -> None:
    desk.revision()
    with ScriptedPacs([0x0110] * 10, port=port):
        assert desk.round() == 1
        desk.wait(3601)
        assert desk.round() == 2


def test_down_for_three_tries_holds_one_copy_in_the_end(desk: Desk, port: int) -> None:
    desk.revision()
    desk.revision(2)
    waits = []
    for _ in range(3):
        assert desk.round() == 1  # the first finds nobody there and holds the others back
        assert {r.state for r in desk.all()} == {"held"}
        assert desk.round() == 0
        waits.append(desk.target().failures)
        desk.wait(3600)
    assert waits == [1, 2, 3]
    with ScriptedPacs(port=port) as pacs:
        assert desk.round() == 4
        assert {r.state for r in desk.all()} == {"delivered"}
        assert list(pacs.times.values()) == [1] * 4
    assert desk.target().failures == 0


@pytest.mark.parametrize("misbehaviour", [LOSE_RESPONSE, ABORT, CUT])
def test_unknown_is_sent_again_the_same(desk: Desk, port: int, misbehaviour: str) -> None:
    desk.revision(kinds=("sr",))
    with ScriptedPacs([misbehaviour], port=port) as pacs:
        assert desk.round() == 1
        row = desk.rows()["sr"]
        assert row.state == "pending" and row.last_answer.startswith("no-response")
        pacs.script = [0xA900]  # even a refusal of the class does not lead to a second object
        desk.wait(31)
        assert desk.round() == 1
        assert len(pacs.held) <= 1 and pacs.other_bytes == []
        assert desk.rows()["sr"].state == "refused"


def test_killed_in_the_middle_offers_the_same_object_again(desk: Desk, port: int) -> None:
    desk.revision(kinds=("sr",))
    with desk.engine.begin() as conn:
        taken = ledger.claim(conn, 1, 1, desk.now)
        assert taken is not None
        ledger.choose(conn, 1, taken.objects[2].id)
    with desk.engine.begin() as conn:
        assert [u.attempt for u in ledger.unattended(conn)] == [1]
        assert ledger.due(conn, desk.now) == []
    with ScriptedPacs(port=port) as pacs:
        assert len(desk.sender.attempt(1, 1)) == 1
        assert list(pacs.held) == [taken.objects[2].sop_uid]
    assert desk.sender.attempt(1, 1) == []  # a stale workflow finds nothing to do


@pytest.mark.parametrize(("classes", "taken"), [((SR[2],), SR[2]), ((SR[3],), SR[3]), ((SR[1], SR[3]), SR[1])])
def test_first_accepted_class_is_remembered(desk: Desk, port: int, classes: tuple[str, ...], taken: str) -> None:
    desk.revision(kinds=("sr",))
    with ScriptedPacs(port=port, classes=classes) as pacs:
        desk.round()
        assert desk.rows()["sr"].state == "delivered" and len(pacs.held) == 1
    assert desk.target().sr_class_uid == taken


def test_class_refused_by_status_falls_back_and_is_remembered(desk: Desk, port: int) -> None:
    desk.revision(kinds=("sr",))
    with ScriptedPacs([0x0122, 0x0122], port=port) as pacs:
        desk.round()
        assert desk.target().sr_class_uid == SR[2]
        desk.revision(2, kinds=("sr",))
        desk.round()
        assert pacs.script == [] and len(pacs.held) == 2 and desk.all()[1].state == "delivered"


def test_no_sr_class_at_all_is_refused_and_the_sc_delivered(desk: Desk, port: int) -> None:
    desk.revision()
    with ScriptedPacs(port=port, classes=(SC,)) as pacs:
        for _ in range(8):
            desk.round()
            desk.wait(3600)
        assert (desk.rows()["sc"].state, desk.rows()["sr"].state) == ("delivered", "refused")
        assert len(pacs.held) == 1
    assert "delivery-refused" in desk.told.names()


@pytest.mark.parametrize(("status", "state"), [
    (0x0000, "delivered"), (0xB000, "delivered"), (0xB006, "delivered"), (0x0107, "delivered"), (0xA700, "held"), (0x0213, "held"),
    (0xA777, "refused"), (0xA77A, "pending"), (0x0110, "pending"), (0x0210, "pending"), (0xA900, "refused"), (0xC000, "pending"),
    (0x0122, "pending"), (0x0124, "held"), (0x0117, "pending"), (0xFE00, "pending")])
def test_each_status(desk: Desk, port: int, status: int, state: str) -> None:
    desk.revision(kinds=("sc",))
    with ScriptedPacs([status], port=port):
        desk.round()
    row = desk.rows()["sc"]
    assert (row.state, row.last_status, row.tries) == (state, status, 1)
    assert row.warning == int((status >= 0xB000 and status < 0xC000) or status == 0x0107)
    assert (row.ended_at is None) == (state in ("pending", "held"))


def test_gives_up_after_seven_days_and_stays_visible(desk: Desk, port: int) -> None:
    desk.revision(kinds=("sc",))
    for _ in range(8):
        desk.round()
        desk.wait(86400)
    assert desk.rows()["sc"].state == "expired"
    assert desk.told.names()[-1] == "delivery-expired"


def test_shadow_plans_and_never_sends(desk: Desk, port: int) -> None:
    desk.revision(live=False)
    desk.wait(86400)
    assert desk.round() == 0 and {r.state for r in desk.all()} == {"pending"}


def test_two_destinations_do_not_hide_each_other(desk: Desk, port: int) -> None:
    desk.revision(kinds=("sc",), names=("pacs", "other"))
    with ScriptedPacs([0xA900], port=port):
        desk.round()
    assert sorted(r.state for r in desk.all()) == ["delivered", "refused"]


def test_planning_twice_is_once_and_clock_steps_move_due_times(desk: Desk, port: int) -> None:
    revision_id = desk.revision()
    with desk.engine.begin() as conn:
        assert ledger.plan(conn, revision_id, ("sc", "sr"), ("pacs",), desk.now, 3600) == 0
        ledger.shift_due_times(conn, 3600)
        assert ledger.due(conn, desk.now) == []
        assert len(ledger.due(conn, later(desk.now, 3600))) == 1


def test_one_association_takes_all_that_is_due(desk: Desk, port: int) -> None:
    for number in (1, 2, 3):
        desk.revision(number)
    with ScriptedPacs([0xB000, 0x0000, 0xC000], port=port) as pacs:
        assert desk.round() == 5  # the report of the second series waits for its picture
        assert len(pacs.proposed) == 1 and len(pacs.held) == 4 and desk.round() == 0
    states = [(r.kind, r.state, r.warning, r.tries) for r in desk.all()]
    assert states == [("sc", "delivered", 1, 1), ("sr", "delivered", 0, 1), ("sc", "pending", 0, 1), ("sr", "pending", 0, 0),
                      ("sc", "delivered", 0, 1), ("sr", "delivered", 0, 1)]
    assert desk.told.names().count("delivered") == 4 and not desk.sender.busy("pacs")


@pytest.mark.parametrize("last", [raw_peer.ABORT, raw_peer.RELEASE, b""])
def test_an_end_between_two_objects_costs_the_second_no_try(desk: Desk, last: bytes) -> None:
    desk.revision(kinds=("sc",))
    desk.revision(2, kinds=("sc",))
    first, second = desk.objects(SC)
    kept: list[str] = []

    def ends(accepted: Accepted) -> None:
        accepted.accept()
        message = accepted.message()
        kept.append(message.sop_uid)
        accepted.send(message.response() + last)

    def stays(accepted: Accepted) -> None:
        accepted.accept()
        while (message := accepted.message()) is not None:
            kept.append(message.sop_uid)
            accepted.send(message.response())

    with RawAcceptor(ends, stays) as acceptor:
        desk.point_at(acceptor.port)
        desk.round()
        one, two = desk.all()
        assert (one.state, one.tries) == ("delivered", 1) and kept == [first.sop_uid]
        if two.tries:  # the end of the stream came a moment after the look
            assert last == b"" and two.last_answer.startswith("no-response")
            desk.wait(31)
        assert two.state == "pending"
        desk.round()
    assert {r.state for r in desk.all()} == {"delivered"} and kept == [first.sop_uid, second.sop_uid]


def test_an_abort_behind_the_second_data_set_is_unknown_for_that_one_alone(desk: Desk, port: int) -> None:
    for number in (1, 2, 3):
        desk.revision(number, kinds=("sc",))
    with ScriptedPacs([0x0000, LOSE_RESPONSE], port=port) as pacs:
        assert desk.round() == 2
        assert [(r.state, r.tries) for r in desk.all()] == [("delivered", 1), ("pending", 1), ("pending", 0)]
        assert desk.round() == 1  # the third is due at once, the second after its pause
        desk.wait(31)
        assert desk.round() == 1 and {r.state for r in desk.all()} == {"delivered"}
        assert sorted(pacs.times.values()) == [1, 1, 2] and pacs.other_bytes == []


def test_what_is_ours_stops_nobody_else(desk: Desk, port: int) -> None:
    for number in (1, 2, 3):
        desk.revision(number, kinds=("sc",))
    gone, other, _ = desk.objects(SC)
    (desk.folder / gone.path).unlink()
    write(image(SC), desk.folder / other.path)
    with ScriptedPacs(port=port) as pacs:
        assert desk.round() == 3 and len(pacs.proposed) == len(pacs.held) == 1
    assert [(r.state, (r.last_answer or "").split()[0]) for r in desk.all()] == [
        ("pending", "failed-here"), ("pending", "failed-here"), ("delivered", "0x0000")]


def test_a_full_destination_ends_the_batch(desk: Desk, port: int) -> None:
    for number in (1, 2, 3):
        desk.revision(number, kinds=("sc",))
    with ScriptedPacs([0xA700], port=port) as pacs:
        assert desk.round() == 1 and {r.state for r in desk.all()} == {"held"} and pacs.held == {}


def test_an_association_ends_after_its_time_and_the_rest_waits_for_the_next(desk: Desk, port: int) -> None:
    for number in (1, 2, 3):
        desk.revision(number, kinds=("sc",))
    ticks = iter(range(0, 1000, 6))
    desk.sender = dataclasses.replace(desk.sender, monotonic=lambda: float(next(ticks)))
    with ScriptedPacs(port=port) as pacs:
        assert [desk.round() for _ in range(2)] == [2, 1] and len(pacs.proposed) == 2


def test_while_one_sends_nobody_else_takes_its_rows(desk: Desk, port: int) -> None:
    desk.revision(kinds=("sc",))
    desk.revision(2, kinds=("sc",))
    found: list[object] = []

    def look(accepted: Accepted) -> None:
        accepted.accept()
        while (message := accepted.message()) is not None:
            sending = [r for r in desk.all() if r.state == "sending"]
            found.extend([desk.sender.busy("pacs"), len(sending), desk.sender.attempt(sending[0].id, 1), desk.sender.attempt(2, 1)])
            accepted.send(message.response())

    with RawAcceptor(look) as acceptor:
        desk.point_at(acceptor.port)
        assert desk.round() == 2
    assert found == [True, 1, [], []] * 2 and not desk.sender.busy("pacs")


def test_a_row_that_cannot_be_written_is_taken_up_again(desk: Desk, port: int) -> None:
    desk.revision(kinds=("sc",))
    real, desk.sender = desk.sender, dataclasses.replace(desk.sender, dice=lambda: 1 / 0)
    with ScriptedPacs([0x0110], port=port) as pacs:
        with pytest.raises(ZeroDivisionError):
            desk.round()
        assert desk.rows()["sc"].state == "sending" and not desk.sender.busy("pacs")
        assert len(real.attempt(1, 1)) == 1 and desk.rows()["sc"].state == "delivered"
        assert len(pacs.held) == 1
