"""Both receive paths pass one suite."""

from __future__ import annotations

import pytest

from tests.support import receiver


@pytest.fixture(params=["fast", "stock"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The receive path of every receiver that the test makes."""
    monkeypatch.setattr(receiver, "PATH", request.param)
    return request.param
