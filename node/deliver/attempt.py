"""One try of one delivery: claim the row, C-STORE, write the answer and the next due time, tell the audit log."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from node.deliver import ledger
from node.deliver.answers import Answer, Kind
from node.deliver.scu import Item, Peer, Sent, send

log = logging.getLogger("node.deliver")


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

    def attempt(self, delivery_id: int, attempt: int) -> ledger.Recorded | None:
        """Try number `attempt` of a delivery; None when there is nothing to try (not the next one, held, no such row)."""
        with self.engine.begin() as conn:
            taken = ledger.claim(conn, delivery_id, attempt, self.now())
        if taken is None:
            return None
        sent = self._send(taken)
        object_id = None if sent.item is None else sent.item.key
        with self.engine.begin() as conn:
            done = ledger.record(conn, taken, sent.answer, object_id, self.now(), self.patience, self.dice)
            self._tell(conn, taken, sent, done)
        return done

    def _send(self, taken: ledger.Claim) -> Sent:
        peer = self.peers.get(taken.destination)
        if peer is None:
            return Sent(Answer(Kind.UNREACHABLE, comment="the destination is not in the configuration"))
        items = [Item(o.id, self.path(o.path), o.sop_class_uid, o.sop_uid) for o in taken.objects]
        if taken.kind == "sr":
            items = [item for item in items if item.sop_class_uid in self.sr_classes] or items
        if not items:
            return Sent(Answer(Kind.FAILED_HERE, comment="no rendered object"))

        def chosen(item: Item) -> None:
            with self.engine.begin() as conn:
                ledger.choose(conn, taken.delivery_id, item.key)

        try:
            return send(peer, items, chosen)
        except OSError as error:
            return Sent(Answer(Kind.FAILED_HERE, comment=type(error).__name__))

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
