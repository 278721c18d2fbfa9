"""What an answer of a destination means for the item and for the destination (pure).

Sources: PS3.4 table B.2-1, PS3.7 annex C (C-STORE statuses), PS3.8 9.3.4 (association rejection); the codes A770-A77B are those of
dcm4chee-arc's store service, which lie inside the A7 range but speak about the item.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How far a try came."""

    STATUS = "status"  # a C-STORE response with a status
    UNREACHABLE = "unreachable"  # no connection, or the association request was aborted or not answered
    REJECTED_PERMANENT = "rejected-permanent"
    REJECTED_TRANSIENT = "rejected-transient"
    NO_CONTEXT = "no-context"  # associated, but no proposed presentation context was accepted
    NO_RESPONSE = "no-response"  # abort, reset or silence after the data set began to leave: unknown, never failed
    FAILED_HERE = "failed-here"  # our own file or encoder failed; nothing left


class Action(StrEnum):
    """What happens to the item."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REFUSED = "refused"
    NEXT_CLASS = "next-class"  # the destination does not take this SOP class: try the next one at once


@dataclass(frozen=True)
class Answer:
    """One answer. `status` is (0000,0900) when `kind` is STATUS; `comment` are our own words, no patient data."""

    kind: Kind
    status: int | None = None
    comment: str = ""

    @property
    def text(self) -> str:
        """Short form for tables and the audit log, e.g. `0xA700`, `no-response`."""
        if self.kind is Kind.STATUS:
            return "no status" if self.status is None else f"0x{self.status:04X}"
        return str(self.kind)


@dataclass(frozen=True)
class Judgement:
    """`floor` is the least number of seconds to the next try; `hold` stops the whole destination; `unknown` = may have arrived.

    `against_item` counts the answer against the item: after so many of them the item is refused.
    """

    action: Action
    warning: bool = False
    hold: bool = False
    floor: float = 0.0
    against_item: bool = False
    unknown: bool = False


FULL_FLOOR = 300.0
"""Seconds before a full destination is asked again."""
HOURLY = 3600.0
HALF_HOUR = 1800.0
"""Three tries this far apart spread over an hour."""
FULL_LIMIT = 5
"""Answers A7xx on one item, while others pass, after which it is the item's fault."""
CONTEXT_LIMIT = 3
"""Associations without an accepted context after which the destination is taken at its word."""

_DELIVERED = Judgement(Action.DELIVERED)
_WARNING = Judgement(Action.DELIVERED, warning=True)
_REFUSED = Judgement(Action.REFUSED, against_item=True)
_RETRY = Judgement(Action.RETRY)

WARNINGS = frozenset({0x0001, 0x0107, 0x0116})
DELETION_IN_PROGRESS = 0xA77A
REFUSED_AFTER_RETRY = frozenset({0x0117, 0x0122, 0x0124, 0x0210, 0x0211, 0x0212})
NOT_AUTHORISED = 0x0124
RESOURCE_LIMITATION = 0x0213
CLASS_NOT_SUPPORTED = 0x0122


def judge(answer: Answer, earlier_against: int = 0, others_pass: bool = False, another_class: bool = False) -> Judgement:
    """What `answer` means.

    earlier_against: answers counted against the item before this one (`Judgement.against_item`).
    others_pass: the destination took another item since this item's first try.
    another_class: a further SOP class of the same result can be offered.
    """
    tries = earlier_against + 1
    if answer.kind is Kind.STATUS:
        return _judge_status(answer.status, tries, others_pass, another_class)
    if answer.kind is Kind.NO_RESPONSE:
        return Judgement(Action.RETRY, unknown=True)
    if answer.kind is Kind.NO_CONTEXT:
        return _REFUSED if tries >= CONTEXT_LIMIT else Judgement(Action.RETRY, against_item=True)
    if answer.kind is Kind.REJECTED_PERMANENT:
        return Judgement(Action.RETRY, hold=True, floor=HOURLY)
    if answer.kind in (Kind.REJECTED_TRANSIENT, Kind.UNREACHABLE):
        return Judgement(Action.RETRY, hold=True)
    return _RETRY


def _judge_status(status: int | None, tries: int, others_pass: bool, another_class: bool) -> Judgement:
    """The rows of the C-STORE status table, from the definite to the vague."""
    if status is None:
        return _RETRY
    if status == 0x0000:
        return _DELIVERED
    if status in WARNINGS or 0xB000 <= status <= 0xBFFF:
        return _WARNING
    if status == DELETION_IN_PROGRESS:
        return _RETRY
    if 0xA770 <= status <= 0xA77B:
        return _REFUSED
    if status == RESOURCE_LIMITATION or 0xA700 <= status <= 0xA76F or 0xA780 <= status <= 0xA7FF:
        if others_pass and tries >= FULL_LIMIT:
            return _REFUSED
        return Judgement(Action.RETRY, hold=not others_pass, floor=FULL_FLOOR, against_item=True)
    if status == CLASS_NOT_SUPPORTED and another_class:
        return Judgement(Action.NEXT_CLASS)
    if 0xA900 <= status <= 0xA9FF:
        return Judgement(Action.NEXT_CLASS) if another_class else _REFUSED
    if 0xC000 <= status <= 0xCFFF:
        return _REFUSED if tries >= 3 else Judgement(Action.RETRY, floor=HALF_HOUR, against_item=True)
    if status in REFUSED_AFTER_RETRY:
        if tries >= 2:
            return Judgement(Action.REFUSED, hold=status == NOT_AUTHORISED, against_item=True)
        return Judgement(Action.RETRY, hold=status == NOT_AUTHORISED, against_item=True)
    return _RETRY
