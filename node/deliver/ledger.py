"""Rows of deliveries: what is due, who has it, what was answered. The rows are the truth; a workflow is only the hand that tries.

States: `pending` (due at next_try_at), `sending`, `held` (its destination is down), `delivered`, `refused`, `expired`, `dropped` (by an
operator). A destination that cannot be reached is held as a whole with one due time and probed with one item; a bad item waits on its
own clock. Every function takes the connection of the caller's transaction and the time as it is to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from node.deliver.answers import Action, Answer, Judgement, Kind, judge
from node.deliver.retry import expired, later, wait_before
from storage.schema import delivery, destination, result_object, revision, series

WAITING = ("pending", "held")
ENDED = ("delivered", "committed", "refused", "expired")


@dataclass(frozen=True)
class Due:
    delivery_id: int
    attempt: int
    destination: str


@dataclass(frozen=True)
class Claim:
    """A try that may begin. `objects` are rows of result_object, the one to offer first in front."""

    delivery_id: int
    attempt: int
    revision_id: int
    kind: str
    destination: str
    study_uid: str
    series_uid: str
    objects: tuple[Any, ...]


@dataclass(frozen=True)
class Patience:
    """`deliver:` of the configuration: seconds, and days until giving up."""

    first: float
    last: float
    give_up_after: float


@dataclass(frozen=True)
class Recorded:
    """What an answer led to. `state` is the delivery's from now on; `wait` the seconds to the next try."""

    state: str
    judgement: Judgement
    wait: float | None = None


def plan(conn: sa.Connection, revision_id: int, kinds: Sequence[str], destinations: Sequence[str], now: str, sr_wait: float,
         live: bool = True) -> int:
    """One row per kind and destination; rows that are there stay as they are. The number of new rows.

    The SR refers to the SC, so it waits for it, but no longer than `sr_wait` seconds. Not `live` = planned and never due by itself.
    """
    there = {(r.kind, r.destination) for r in conn.execute(
        sa.select(delivery.c.kind, delivery.c.destination).where(delivery.c.revision_id == revision_id))}
    rows = [{"revision_id": revision_id, "kind": kind, "destination": name, "state": "pending", "tries": 0, "final_answers": 0,
             "warning": 0, "made_at": now,
             "next_try_at": None if not live else later(now, sr_wait) if kind == "sr" and "sc" in kinds else now}
            for name in destinations for kind in kinds if (kind, name) not in there]
    if rows:
        conn.execute(sa.insert(delivery), rows)
    return len(rows)


def due(conn: sa.Connection, now: str) -> list[Due]:
    """The try that may begin now at each destination; what else is due there goes on the same association (`next_at`)."""
    names = conn.execute(sa.select(delivery.c.destination).distinct().where(
        delivery.c.state.in_(WAITING), delivery.c.next_try_at <= now)).scalars().all()
    return [found for name in names if (found := next_at(conn, name, now)) is not None]


def next_at(conn: sa.Connection, name: str, now: str) -> Due | None:
    """The try of a destination that is due for the longest time; None while the destination is held."""
    known = conn.execute(sa.select(destination).where(destination.c.name == name)).one_or_none()
    if known is not None and known.failures and (known.held_until or "") > now:
        return None
    row = conn.execute(
        sa.select(delivery.c.id, delivery.c.tries).where(
            delivery.c.destination == name, delivery.c.state.in_(WAITING), delivery.c.next_try_at <= now)
        .order_by(delivery.c.next_try_at, delivery.c.id).limit(1)).one_or_none()
    return None if row is None else Due(row.id, row.tries + 1, name)


def destination_of(conn: sa.Connection, delivery_id: int) -> str | None:
    """Name of the destination of a delivery."""
    return conn.execute(sa.select(delivery.c.destination).where(delivery.c.id == delivery_id)).scalar_one_or_none()


def waiting_classes(conn: sa.Connection, name: str) -> list[tuple[str, str]]:
    """(SOP class, path of one such object) of all that waits for a destination or is on its way there: what an association proposes."""
    which = (delivery.c.revision_id == result_object.c.revision_id) & (delivery.c.kind == result_object.c.kind)
    rows = conn.execute(sa.select(result_object.c.sop_class_uid, sa.func.min(result_object.c.path)).join(delivery, which).where(
        delivery.c.destination == name, delivery.c.state.in_((*WAITING, "sending"))).group_by(result_object.c.sop_class_uid))
    return [(sop_class_uid, path) for sop_class_uid, path in rows]


def claim(conn: sa.Connection, delivery_id: int, attempt: int, now: str) -> Claim | None:
    """Take a delivery for try number `attempt`; None when it is not the next one or its destination is held.

    A try that was killed in the middle takes its own row again: what it had sent is unknown, so the same object is offered alone.
    """
    row = conn.execute(sa.select(delivery).where(delivery.c.id == delivery_id)).one_or_none()
    if row is None:
        return None
    again = row.state == "sending" and row.tries == attempt
    if not again and not (row.state in WAITING and row.tries == attempt - 1 and row.next_try_at is not None):
        return None
    known = conn.execute(sa.select(destination).where(destination.c.name == row.destination)).one_or_none()
    if not again and known is not None and known.failures and (known.held_until or "") > now:
        conn.execute(sa.update(delivery).where(delivery.c.id == delivery_id).values(state="held"))
        return None
    conn.execute(sa.update(delivery).where(delivery.c.id == delivery_id).values(state="sending", tries=attempt))
    unknown = row.object_id is not None and (again or (row.last_answer or "").startswith(str(Kind.NO_RESPONSE)))
    about = conn.execute(sa.select(series.c.study_uid, series.c.series_uid).join(revision, revision.c.series_id == series.c.id)
                         .where(revision.c.id == row.revision_id)).one()
    objects = list(conn.execute(sa.select(result_object).where(
        result_object.c.revision_id == row.revision_id, result_object.c.kind == row.kind).order_by(result_object.c.id)))
    if unknown:
        objects = [o for o in objects if o.id == row.object_id] or objects
    elif known is not None and row.kind == "sr":
        objects.sort(key=lambda o: o.sop_class_uid != known.sr_class_uid)  # stable: the others keep their order
    return Claim(delivery_id, attempt, row.revision_id, row.kind, row.destination, about.study_uid, about.series_uid, tuple(objects))


def choose(conn: sa.Connection, delivery_id: int, object_id: int) -> None:
    """Note which object begins to leave, before its first byte does."""
    conn.execute(sa.update(delivery).where(delivery.c.id == delivery_id).values(object_id=object_id))


def record(conn: sa.Connection, taken: Claim, answer: Answer, object_id: int | None, now: str, patience: Patience,
           dice: Callable[[], float]) -> Recorded:
    """Write what came back, and when the next try is due."""
    row = conn.execute(sa.select(delivery).where(delivery.c.id == taken.delivery_id)).one()
    said = judge(answer, row.final_answers, _others_pass(conn, row))
    values: dict[str, Any] = {"last_status": answer.status, "last_answer": f"{answer.text} {answer.comment}".strip(),
                              "final_answers": row.final_answers + said.against_item, "warning": int(said.warning)}
    if object_id is not None:
        values["object_id"] = object_id
    wait: float | None = None
    if said.action in (Action.DELIVERED, Action.REFUSED, Action.NEXT_CLASS):
        state = "delivered" if said.action is Action.DELIVERED else "refused"
    elif expired(row.made_at, now, patience.give_up_after):
        state = "expired"
    else:
        state = "held" if said.hold else "pending"
        wait = wait_before(taken.attempt, patience.first, patience.last, dice(), said.floor)
    if said.hold:
        hold_wait = _hold(conn, taken.destination, answer, now, patience, dice(), said.floor)
        wait = hold_wait if wait is not None else None
    elif answer.kind in (Kind.STATUS, Kind.NO_CONTEXT):
        _release(conn, taken.destination, now, str(values["last_answer"]))
    values |= {"state": state, "next_try_at": None if wait is None else later(now, wait), "ended_at": now if state in ENDED else None}
    conn.execute(sa.update(delivery).where(delivery.c.id == taken.delivery_id).values(**values))
    if state in ENDED and taken.kind == "sc":
        _let_sr_go(conn, taken, now)
    return Recorded(state, said, wait)


def remember_sr_class(conn: sa.Connection, name: str, sop_class_uid: str) -> bool:
    """Keep the SR class that a destination took; whether that is news."""
    _make_known(conn, name)
    changed = conn.execute(sa.update(destination).where(
        destination.c.name == name, sa.func.coalesce(destination.c.sr_class_uid, "") != sop_class_uid).values(sr_class_uid=sop_class_uid))
    return changed.rowcount > 0


def shift_due_times(conn: sa.Connection, seconds: float) -> None:
    """Move every due time by the step that the wall clock made, so that waits keep their length; the life of what has no end as well."""
    open_ones = delivery.c.state.in_((*WAITING, "sending"))
    columns = ((delivery, delivery.c.id, delivery.c.next_try_at, open_ones), (delivery, delivery.c.id, delivery.c.made_at, open_ones),
               (destination, destination.c.name, destination.c.held_until, sa.true()))
    for table, key, column, which in columns:
        for identity, at in conn.execute(sa.select(key, column).where(column.is_not(None), which)).all():
            conn.execute(sa.update(table).where(key == identity).values({column.name: later(at, seconds)}))


def bring_near(conn: sa.Connection, now: str, longest: float) -> int:
    """Due times more than `longest` seconds away, which no rule sets: the wall clock stepped and nobody saw it. They are due now; how many."""
    beyond = later(now, longest)
    near = conn.execute(sa.update(delivery).where(delivery.c.state.in_(WAITING), delivery.c.next_try_at > beyond).values(next_try_at=now))
    held = conn.execute(sa.update(destination).where(destination.c.held_until > beyond).values(held_until=now))
    return near.rowcount + held.rowcount


def retry_now(conn: sa.Connection, delivery_id: int, now: str) -> bool:
    """An operator's word: due now with a new life, whatever it was waiting for; its destination is probed at once."""
    row = conn.execute(sa.select(delivery).where(delivery.c.id == delivery_id)).one_or_none()
    if row is None or row.state in ("delivered", "committed", "sending"):
        return False
    conn.execute(sa.update(delivery).where(delivery.c.id == delivery_id).values(
        state="pending", next_try_at=now, made_at=now, ended_at=None, final_answers=0))
    conn.execute(sa.update(destination).where(destination.c.name == row.destination, destination.c.failures > 0).values(held_until=now))
    return True


def drop(conn: sa.Connection, delivery_id: int, now: str) -> bool:
    """An operator's word: not sent, and visibly so."""
    return conn.execute(sa.update(delivery).where(
        delivery.c.id == delivery_id, delivery.c.state.in_((*WAITING, "refused", "expired"))).values(
        state="dropped", next_try_at=None, ended_at=now)).rowcount > 0


def unattended(conn: sa.Connection, name: str | None = None) -> list[Due]:
    """Rows that say `sending`, of destination `name` or of all: each must have a live workflow, else its try is taken up again."""
    rows = conn.execute(sa.select(delivery.c.id, delivery.c.tries, delivery.c.destination).where(
        delivery.c.state == "sending", *([] if name is None else [delivery.c.destination == name])).order_by(delivery.c.id))
    return [Due(row.id, row.tries, row.destination) for row in rows]


def _others_pass(conn: sa.Connection, row: Any) -> bool:
    """Whether the destination took another item since this one was made."""
    return conn.execute(sa.select(delivery.c.id).where(
        delivery.c.destination == row.destination, delivery.c.id != row.id, delivery.c.state.in_(("delivered", "committed")),
        delivery.c.ended_at >= row.made_at).limit(1)).first() is not None


def _make_known(conn: sa.Connection, name: str) -> Any:
    row = conn.execute(sa.select(destination).where(destination.c.name == name)).one_or_none()
    if row is None:
        conn.execute(sa.insert(destination).values(name=name, failures=0))
        row = conn.execute(sa.select(destination).where(destination.c.name == name)).one()
    return row


def _hold(conn: sa.Connection, name: str, answer: Answer, now: str, patience: Patience, dice: float, floor: float) -> float:
    """Hold a destination: one due time for all of its items. The seconds until it is probed."""
    failures = _make_known(conn, name).failures + 1
    wait = wait_before(failures, patience.first, patience.last, dice, floor)
    conn.execute(sa.update(destination).where(destination.c.name == name).values(
        failures=failures, held_until=later(now, wait), last_answer=answer.text))
    conn.execute(sa.update(delivery).where(delivery.c.destination == name, delivery.c.state == "pending",
                                           delivery.c.next_try_at.is_not(None)).values(state="held"))
    return wait


def _release(conn: sa.Connection, name: str, now: str, answer: str) -> None:
    """The destination answers again: what was held is due, an SR that waits for its SC goes on waiting."""
    if not _make_known(conn, name).failures:
        return
    conn.execute(sa.update(destination).where(destination.c.name == name).values(failures=0, held_until=None, last_answer=answer))
    held = (delivery.c.destination == name) & (delivery.c.state == "held")
    conn.execute(sa.update(delivery).where(held & ((delivery.c.tries > 0) | (delivery.c.kind == "sc"))).values(
        state="pending", next_try_at=now))
    conn.execute(sa.update(delivery).where(held).values(state="pending"))


def _let_sr_go(conn: sa.Connection, taken: Claim, now: str) -> None:
    """The SC has an end at this destination, so the SR that refers to it is due."""
    conn.execute(sa.update(delivery).where(
        delivery.c.revision_id == taken.revision_id, delivery.c.destination == taken.destination, delivery.c.kind == "sr",
        delivery.c.tries == 0, delivery.c.state.in_(WAITING), delivery.c.next_try_at > now).values(next_try_at=now))
