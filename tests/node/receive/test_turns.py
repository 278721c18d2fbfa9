"""One works, the others wait; nobody waits for long, and a wait costs nobody else his turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from node.receive import turns
from node.receive.turns import Turns


def beside(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_one_at_a_time() -> None:
    turn, at_once, most = Turns(), [], []

    def work() -> None:
        for _ in range(5):
            with turn:
                at_once.append(1)
                most.append(len(at_once))
                time.sleep(0.001)  # gives the interpreter away
                at_once.pop()

    for thread in [beside(work) for _ in range(5)]:
        thread.join()
    assert len(most) == 25 and max(most) == 1


def test_a_wait_inside_a_turn_lets_another_work() -> None:
    turn, worked = Turns(), threading.Event()

    def work() -> None:
        with turn:
            assert turn.mine
            worked.set()

    with turn:
        with turn.aside():
            assert not turn.mine
            thread = beside(work)
            assert worked.wait(turns.PATIENCE_SECONDS / 2)  # at once, not when its patience has ended
        assert turn.mine
    thread.join()
    assert not turn.mine


def test_who_keeps_a_turn_stops_nobody() -> None:
    turn, found = Turns(), []

    def work() -> None:
        began = time.monotonic()
        with turn:
            found.append((turn.mine, time.monotonic() - began))

    with turn:
        beside(work).join(10)
        [(mine, waited)] = found
        assert not mine and waited >= turns.PATIENCE_SECONDS
    beside(work).join(10)
    assert found[1][0]  # the turn that was kept is there again, and only that one
    assert turn._free.qsize() == 1


def test_aside_without_a_turn_gives_none_away() -> None:
    turn = Turns()
    with turn.aside():
        assert not turn.mine
    assert not turn.mine and turn._free.qsize() == 1


def test_an_error_gives_the_turn_back() -> None:
    turn = Turns()
    for _ in range(2):
        try:
            with turn, turn.aside():
                raise OSError
        except OSError:
            pass
    assert not turn.mine and turn._free.qsize() == 1
