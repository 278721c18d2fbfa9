"""Every attack of `python -m tests.attack`, for seconds in the normal run and for a minute each in the slow one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attack.peers import ATTACKS, Attack
from tests.attack.run import GROWTH_MB, run
from tests.attack.site import Site

SHORT, LONG = (2.0, 2.0), (60.0, 10.0)
"""Seconds of an attack, and seconds of each time-out of the receiver."""
QUICK = ("silent-40-addresses", "drip-request", "drip-data", "many-items", "empty-fragments", "no-reader", "half-handshake", "huge-hello")
"""Those that have found something, or would."""


def upon(tls: bool) -> list[Attack]:
    return [a for a in ATTACKS if a.tls in ("both", "yes" if tls else "no")]


SLACK = 3.0
"""Seconds by which a machine that runs other tests as well may be late; what locks out or holds for good is later."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_seconds_of_each(tmp_path: Path, tls: bool) -> None:
    with Site(tmp_path, tls, SHORT[1]) as site:
        costs = [run(site, attack, SHORT[0]) for attack in upon(tls) if attack.name in QUICK]
        assert len(costs) >= 4
        for cost in costs:
            assert cost.attempts > 0 and not cost.problem and cost.growth < GROWTH_MB, cost
            assert cost.honest < SLACK and cost.free < cost.allowed + SLACK, cost
        assert "Traceback" not in site.log() and '"ERROR"' not in site.log()
        assert site.log().count("\n") < 500, "nobody fills the log from outside"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("tls", "attack"), [pytest.param(tls, a, id=f"{a.name}-{'tls' if tls else 'plain'}") for tls in (False, True)
                                            for a in upon(tls)])
def test_a_minute_of_each(tmp_path: Path, tls: bool, attack: Attack) -> None:
    with Site(tmp_path, tls, LONG[1]) as site:
        cost = run(site, attack, LONG[0])
        assert cost.attempts > 0 and cost.held, cost
