"""Poison through a whole node: each series has its end, no process dies of it or fills the memory, and the honest series behind it is judged."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil
import pytest

from qa_engine.outcome import Reason, end_of
from tests.support.node import NodeUnderTest, send
from tests.support.poison import NAMES, poison
from tests.support.ports import wait_for
from tests.support.small_objects import CT, image, write
from tests.support.sweep import send_raw

GROWTH = {"node.receive": 100e6, "node.worker": 700e6, "decoder_process": 1500e6}
"""Bytes by which a process may grow; the decoder holds the largest frame that engine.max_megapixels allows."""


class Watch(threading.Thread):
    """The most memory of each process, every 50 ms."""

    def __init__(self, node: NodeUnderTest) -> None:
        super().__init__(daemon=True)
        self._node, self.over, self.most = node, threading.Event(), dict.fromkeys(GROWTH, 0)

    def run(self) -> None:
        while not self.over.wait(0.05):
            for word in GROWTH:
                try:
                    process = self._node.member(word)
                    if process is not None:
                        self.most[word] = max(self.most[word], process.memory_info().rss)
                except psutil.Error:
                    continue


@pytest.mark.model
@pytest.mark.timeout(400)
def test_poison_ends_and_takes_nothing_with_it(tmp_path: Path) -> None:
    extra = "engine: {decode_seconds: 20, max_megapixels: 64}"
    with NodeUnderTest(tmp_path / "node", [], quiet=1, contiguous=1, announced=1, extra=extra) as node:
        first = [write(image(CT, study="1.2", series="1.2.1", number=k), tmp_path / "first" / f"{k}.dcm") for k in range(3)]
        assert send(first, node.port) == 3
        node.wait_for_ends(1)
        workers = {word: node.member(word) for word in ("node.receive", "node.worker")}
        before = {word: process.memory_info().rss for word, process in workers.items()} | {"decoder_process": 0}
        watch = Watch(node)
        watch.start()
        answers = {name: send_raw(poison(name, k), node.port) for k, name in enumerate(NAMES)}
        kept = [name for name, answer in answers.items() if answer == "0000"]
        assert len(kept) >= 8, answers
        ends = node.wait_for_ends(1 + len(kept), 300)
        second = [write(image(CT, study="1.3", series="1.3.1", number=k), tmp_path / "second" / f"{k}.dcm") for k in range(3)]
        assert send(second, node.port) == 3
        ends = node.wait_for_ends(2 + len(kept))
        watch.over.set()
        watch.join()
        assert (ends["1.3.1"]["outcome"], ends["1.3.1"]["reason"]) == (ends["1.2.1"]["outcome"], ends["1.2.1"]["reason"])
        for row in ends.values():
            assert end_of(Reason(row["reason"]) if row["reason"] else None) == row["outcome"] != "failed", dict(row)
            assert row["attempt"] == 1, "nothing had to be tried again"
        grown = {word: watch.most[word] - before[word] for word in GROWTH}
        assert all(grown[word] < GROWTH[word] for word in GROWTH), grown
        assert all(process.is_running() and node.member(word) == process for word, process in workers.items()), "a process was restarted"
        audited = node.rows("select count(*) as n from audit where event = 'ended'")[0]["n"]
        assert audited == len(ends) and node.mediqa_json("audit", "verify")["ok"]
        wait_for(lambda: not list((node.folder / "data" / "objects" / "parts").iterdir()), 10, "no part file is left")
    assert '"ERROR"' not in node.log.read_text(errors="replace")
