"""One decoder process for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qa_engine.decode import Decoder


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(30) as made:
        yield made
