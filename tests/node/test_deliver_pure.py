"""Row by row: what an answer means, when the next try is due, which destination serves which AE title."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from node.deliver.answers import FULL_FLOOR, HALF_HOUR, HOURLY, Action, Answer, Kind, judge
from node.deliver.retry import backoff, expired, later, moment, wait_before
from node.deliver.routing import serving, unserved

ROWS = [
    # status, action, warning, hold, floor
    (0x0000, Action.DELIVERED, False, False, 0),
    (0xB000, Action.DELIVERED, True, False, 0),
    (0xB006, Action.DELIVERED, True, False, 0),
    (0xB007, Action.DELIVERED, True, False, 0),
    (0xBFFF, Action.DELIVERED, True, False, 0),
    (0x0001, Action.DELIVERED, True, False, 0),
    (0x0107, Action.DELIVERED, True, False, 0),
    (0x0116, Action.DELIVERED, True, False, 0),
    (0xA700, Action.RETRY, False, True, FULL_FLOOR),
    (0xA76F, Action.RETRY, False, True, FULL_FLOOR),
    (0xA780, Action.RETRY, False, True, FULL_FLOOR),
    (0xA7FF, Action.RETRY, False, True, FULL_FLOOR),
    (0x0213, Action.RETRY, False, True, FULL_FLOOR),
    (0xA770, Action.REFUSED, False, False, 0),
    (0xA777, Action.REFUSED, False, False, 0),
    (0xA77B, Action.REFUSED, False, False, 0),
    (0xA77A, Action.RETRY, False, False, 0),
    (0x0110, Action.RETRY, False, False, 0),
    (0x0210, Action.RETRY, False, False, 0),
    (0xA900, Action.REFUSED, False, False, 0),
    (0xA9FF, Action.REFUSED, False, False, 0),
    (0xC000, Action.RETRY, False, False, HALF_HOUR),
    (0xC211, Action.RETRY, False, False, HALF_HOUR),
    (0xCFFF, Action.RETRY, False, False, HALF_HOUR),
    (0x0122, Action.RETRY, False, False, 0),
    (0x0124, Action.RETRY, False, True, 0),
    (0x0117, Action.RETRY, False, False, 0),
    (0x0211, Action.RETRY, False, False, 0),
    (0x0212, Action.RETRY, False, False, 0),
    (0x0105, Action.RETRY, False, False, 0),
    (0xE123, Action.RETRY, False, False, 0),
    (0xFE00, Action.RETRY, False, False, 0),
    (0xFF00, Action.RETRY, False, False, 0),
    (None, Action.RETRY, False, False, 0),
]


@pytest.mark.parametrize(("status", "action", "warning", "hold", "floor"), ROWS)
def test_first_answer(status: int | None, action: Action, warning: bool, hold: bool, floor: float) -> None:
    said = judge(Answer(Kind.STATUS, status))
    assert (said.action, said.warning, said.hold, said.floor) == (action, warning, hold, floor)



def test_every_status_has_a_meaning() -> None:
    taken = {s for s in range(0x10000) if judge(Answer(Kind.STATUS, s)).action is Action.DELIVERED}
    assert taken == {0x0000, 0x0001, 0x0107, 0x0116, *range(0xB000, 0xC000)}


@pytest.mark.parametrize(("status", "earlier", "action"), [
    (0xC000, 1, Action.RETRY), (0xC000, 2, Action.REFUSED),
    (0x0122, 1, Action.REFUSED), (0x0117, 1, Action.REFUSED), (0x0124, 1, Action.REFUSED), (0x0210, 1, Action.REFUSED),
    (0x0110, 50, Action.RETRY), (0xFE00, 50, Action.RETRY),
])
def test_patience_ends(status: int, earlier: int, action: Action) -> None:
    assert judge(Answer(Kind.STATUS, status), earlier_against=earlier).action is action


def test_full_destination_is_the_item_s_fault_only_while_others_pass() -> None:
    full = Answer(Kind.STATUS, 0xA700)
    assert judge(full, earlier_against=40).action is Action.RETRY
    assert judge(full, earlier_against=3, others_pass=True).action is Action.RETRY
    assert not judge(full, earlier_against=3, others_pass=True).hold
    assert judge(full, earlier_against=4, others_pass=True).action is Action.REFUSED


@pytest.mark.parametrize("status", [0x0122, 0xA900, 0xA9FE])
def test_refused_class_gives_way_to_the_next(status: int) -> None:
    assert judge(Answer(Kind.STATUS, status), another_class=True).action is Action.NEXT_CLASS


@pytest.mark.parametrize(("kind", "hold", "floor", "unknown"), [
    (Kind.UNREACHABLE, True, 0, False), (Kind.REJECTED_TRANSIENT, True, 0, False), (Kind.REJECTED_PERMANENT, True, HOURLY, False),
    (Kind.NO_RESPONSE, False, 0, True), (Kind.FAILED_HERE, False, 0, False)])
def test_without_a_status(kind: Kind, hold: bool, floor: float, unknown: bool) -> None:
    said = judge(Answer(kind), earlier_against=99)
    assert (said.action, said.hold, said.floor, said.unknown) == (Action.RETRY, hold, floor, unknown)


def test_no_context_is_final_after_three_associations() -> None:
    assert [judge(Answer(Kind.NO_CONTEXT), n).action for n in range(3)] == [Action.RETRY, Action.RETRY, Action.REFUSED]


def test_backoff_doubles_up_to_the_cap() -> None:
    assert [backoff(n, 30, 3600, 0.5) for n in (1, 2, 3, 8, 400)] == [30, 60, 120, 3600, 3600]
    assert backoff(1, 30, 3600, 0.0) == pytest.approx(24)
    assert backoff(1, 30, 3600, 1.0) == pytest.approx(36)
    assert wait_before(1, 30, 3600, 0.5, floor=300) == 300


def test_expiry_and_times() -> None:
    made = "2026-01-01T00:00:00.000000Z"
    assert not expired(made, "2026-01-07T23:59:59.000000Z", 7)
    assert expired(made, "2026-01-08T00:00:00.000000Z", 7)
    assert not expired(made, "2036-01-08T00:00:00.000000Z", 0)
    assert later(made, 90.5) == "2026-01-01T00:01:30.500000Z"
    assert later(made, 1) > made and moment(later(made, 1)) > moment(made)


@dataclass
class Target:
    name: str
    serves: tuple[str, ...] = ()


def test_routing() -> None:
    assert serving("ANY", [Target("a")]) == ["a"]
    assert serving("CT1", [Target("a", ("CT1",))]) == ["a"]
    assert serving("CT2", [Target("a", ("CT1",))]) == []
    two = [Target("a", ("CT1",)), Target("b", ("CT2 ", "CT1"))]
    assert serving("CT1", two) == ["a", "b"]
    assert serving(" CT2", two) == ["b"]
    assert serving("MR1", [Target("a"), Target("b", ("CT1",))]) == []
    assert serving("MR1", []) == []
    assert unserved(["CT1", "MR1"], two) == ["MR1"]
