"""A worker on a bench with one PACS that is told what to answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bench import Bench
from tests.support.scripted_pacs import ScriptedPacs


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    with ScriptedPacs() as pacs:
        yield pacs


@pytest.fixture
def bench(tmp_path: Path, pacs: ScriptedPacs) -> Iterator[Bench]:
    bench = Bench(tmp_path / "node", pacs.port)
    yield bench
    bench.kill()
