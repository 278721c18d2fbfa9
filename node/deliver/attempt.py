"""Tries of deliveries: claim a row, C-STORE, write the answer and the next due time, tell the audit log.

A try that has its association takes along what else is due at the destination: one association for all, one row after the other, each
claimed before its first byte and recorded before the next is claimed (docs/decisions/0016).
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from node.deliver import ledger
from node.deliver.answers import Answer, Kind
from node.deliver.association import Association, NoAssociation
from node.deliver.peer import Peer
from node.deliver.scu import Item, Sent, connect, offer
from storage import clock

log = logging.getLogger("node.deliver")

BATCH_SECONDS = 10.0
"""After which an association takes no further try: a worker that is to end need not wait for a backlog."""


class Audit(Protocol):
    """What is used of `storage.audit_log.AuditLog`."""

    def append(self, conn: sa.Connection, event: str, actor: str, **more: Any) -> Any: ...


@dataclass(frozen=True)
class Sender:
    """Tries deliveries. `path` gives the file of a row of result_object; `peers` are the destinations by name.

    sr_classes: SOP class UIDs in the wanted order.
    """

    engine: sa.Engine
    audit: Audit
    peers: Mapping[str, Peer]
    path: Callable[[str], Path]
    patience: ledger.Patience
    sr_classes: Sequence[str]
    now: Callable[[], str]
    dice: Callable[[], float] = random.random
    monotonic: Callable[[], float] = clock.monotonic
    _lock: Any = field(default_factory=threading.Lock, init=False)
    _busy: set[str] = field(default_factory=set, init=False)

    def busy(self, name: str) -> bool:
        """Whether an association with the destination is in use: it takes what is due there by itself."""
        return name in self._busy

    def attempt(self, delivery_id: int, attempt: int) -> list[ledger.Recorded]:
        """Try number `attempt` of a delivery, and of whatever else is due at its destination; what each led to.

        Nothing when there is nothing to try: not the next one, held, no such row, or an association of this process is on it.
        """
        with self.engine.connect() as conn:
            name = ledger.destination_of(conn, delivery_id)
        done: list[ledger.Recorded] = []
        with self._alone(name) as alone:
            if alone and name is not None:
                with self.engine.begin() as conn:
                    taken = ledger.claim(conn, delivery_id, attempt, self.now())
                if taken is not None:
                    self._batch(taken, done)
        return done

    @contextmanager
    def _alone(self, name: str | None) -> Iterator[bool]:
        """Whether nobody else of this process sends to the destination: two would take a row that is being sent for one that was left."""
        with self._lock:
            alone = name is not None and name not in self._busy
            if alone:
                self._busy.add(str(name))
        try:
            yield alone
        finally:
            if alone:
                with self._lock:
                    self._busy.discard(str(name))

    def _batch(self, first: ledger.Claim, done: list[ledger.Recorded]) -> None:
        """One association: `first`, then what is due, as long as it holds and BATCH_SECONDS are not over."""
        until = self.monotonic() + BATCH_SECONDS
        try:
            association = self._connect(first)
        except NoAssociation as error:
            self._record(first, Sent(error.answer), done)
            return
        with association:
            taken: ledger.Claim | None = first
            while taken is not None:
                self._record(taken, self._send(association, taken), done)
                taken = None if association.lost() or self.monotonic() >= until else self._next(first.destination)

    def _connect(self, taken: ledger.Claim) -> Association:
        peer = self.peers.get(taken.destination)
        if peer is None:
            raise NoAssociation(Answer(Kind.UNREACHABLE, comment="the destination is not in the configuration"))
        if not taken.objects:
            raise NoAssociation(Answer(Kind.FAILED_HERE, comment="no rendered object"))
        with self.engine.connect() as conn:
            others = ledger.waiting_classes(conn, taken.destination)
        return connect(peer, [*((o.sop_class_uid, self.path(o.path)) for o in taken.objects), *((uid, self.path(path)) for uid, path in others)])

    def _next(self, name: str) -> ledger.Claim | None:
        """The next try, claimed: one that a killed worker left first, nobody else sends to this destination; else what is due."""
        with self.engine.begin() as conn:
            left = ledger.unattended(conn, name)
            found = left[0] if left else ledger.next_at(conn, name, self.now())
            return None if found is None else ledger.claim(conn, found.delivery_id, found.attempt, self.now())

    def _send(self, association: Association, taken: ledger.Claim) -> Sent:
        items = [Item(o.id, self.path(o.path), o.sop_class_uid, o.sop_uid) for o in taken.objects]
        if taken.kind == "sr":
            items = [item for item in items if item.sop_class_uid in self.sr_classes] or items
        if not items:
            return Sent(Answer(Kind.FAILED_HERE, comment="no rendered object"))

        def chosen(item: Item) -> None:
            with self.engine.begin() as conn:
                ledger.choose(conn, taken.delivery_id, item.key)

        return offer(association, items, chosen)

    def _record(self, taken: ledger.Claim, sent: Sent, done: list[ledger.Recorded]) -> None:
        object_id = None if sent.item is None else sent.item.key
        with self.engine.begin() as conn:
            recorded = ledger.record(conn, taken, sent.answer, object_id, self.now(), self.patience, self.dice)
            self._tell(conn, taken, sent, recorded)
        done.append(recorded)

    def _tell(self, conn: sa.Connection, taken: ledger.Claim, sent: Sent, done: ledger.Recorded) -> None:
        """Every try is in the audit log; patients are not."""
        event = {"delivered": "delivered", "refused": "delivery-refused", "expired": "delivery-expired"}.get(done.state, "delivery-failed")
        item, answer = sent.item, sent.answer
        self.audit.append(conn, event, "worker", study_uid=taken.study_uid, series_uid=taken.series_uid,
                          sop_uid=None if item is None else item.sop_uid, destination=taken.destination, kind=taken.kind,
                          sop_class=None if item is None else item.sop_class_uid, tried=taken.attempt, answer=answer.text,
                          comment=answer.comment, warning=done.judgement.warning,
                          next_in=None if done.wait is None else round(done.wait, 1))
        if done.state == "delivered" and taken.kind == "sr" and item is not None \
                and ledger.remember_sr_class(conn, taken.destination, item.sop_class_uid):
            self.audit.append(conn, "sr-class-chosen", "worker", destination=taken.destination, sop_class=item.sop_class_uid)
