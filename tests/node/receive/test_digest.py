"""The digest of a data set is that of its bytes, whoever hashes them, with buffers that are used again as the receive path does."""

from __future__ import annotations

import hashlib
import random
import threading

import pytest

from node.receive import digest
from node.receive.digest import Digest, Helper


def received(helper: Helper, seed: int, reads: int = 60) -> tuple[bytes, bytes]:
    """Bytes come into two buffers in turn, each overwritten as soon as the contract allows; the digest, and what it must be."""
    rng, buffers, wanted = random.Random(seed), [bytearray(40_000), bytearray(40_000)], hashlib.sha256()
    made = Digest(helper)
    for k in range(reads):
        buffer, size = buffers[k % 2], rng.randrange(1, 40_000)
        buffer[:size] = rng.randbytes(size)
        wanted.update(buffer[:size])
        cut = rng.randrange(size)
        made.update((memoryview(buffer)[:cut], memoryview(buffer)[cut:size]))
    return made.digest(), wanted.digest()


@pytest.mark.parametrize("help_from", [0, 500_000, 10**9])
def test_with_and_without_help(monkeypatch: pytest.MonkeyPatch, help_from: int) -> None:
    monkeypatch.setattr(digest, "HELP_FROM", help_from)
    asked, helper = [], Helper()
    monkeypatch.setattr(Helper, "ask", lambda self, one, ask=Helper.ask: (asked.append(1), ask(self, one)))
    for seed in range(20):
        found, wanted = received(helper, seed)
        assert found == wanted
    assert bool(asked) == (help_from < 10**9)


def test_the_helper_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else does where the receiving thread leaves it the time."""
    monkeypatch.setattr(digest, "HELP_FROM", 0)
    helper = Helper()
    one = Digest(helper)
    one.update((b"abc",))
    for _ in range(500):
        if helper.free:
            break
        threading.Event().wait(0.01)
    assert helper.free and not one._left and one.digest() == hashlib.sha256(b"abc").digest()


def test_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "HELP_FROM", 0)
    helper, results = Helper(), []
    threads = [threading.Thread(target=lambda k=k: results.append(received(helper, k))) for k in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 10 and all(found == wanted for found, wanted in results)
