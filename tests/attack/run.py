"""One attack upon a site: what it cost, while an honest peer is served."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from tests.attack.crowd import addresses
from tests.attack.peers import Attack
from tests.attack.site import ROOT, HonestPeer, Site

ACCEPTED_SECONDS, GROWTH_MB, SPARE_SECONDS = 1.0, 100.0, 2.0
"""What is promised: the honest peer is accepted, memory grows by less, and places are free after the time-out and this."""


@dataclass(frozen=True)
class Cost:
    """attempts: connections made; honest: seconds until accepted at worst; served: until released; growth: MB; free: seconds from the last connection."""

    attack: str
    tls: bool
    attempts: int
    honest: float
    served: float
    growth: float
    threads: int
    free: float
    allowed: float
    problem: str = ""

    @property
    def held(self) -> bool:
        """Whether the promises were."""
        return self.honest <= ACCEPTED_SECONDS and self.growth < GROWTH_MB and self.free <= self.allowed and not self.problem


def ask(crowd: subprocess.Popen[str]) -> str:
    """A line for a line."""
    assert crowd.stdout is not None and crowd.stdin is not None
    crowd.stdin.write("\n")
    crowd.stdin.flush()
    return crowd.stdout.readline()


def run(site: Site, attack: Attack, seconds: float) -> Cost:
    """Attacks for `seconds`, then waits until the receiver holds no connection of the attackers, who hang up on nothing."""
    HonestPeer(site).once()  # what is loaded once is no growth
    before, most, threads = site.resident(), 0, 0
    command = [sys.executable, "-m", "tests.attack.crowd", attack.name, str(site.port), "tls" if site.is_tls else "plain"]
    crowd = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert crowd.stdout is not None
        assert crowd.stdout.readline() == "begun\n"
        with HonestPeer(site) as honest:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                most, threads = max(most, site.resident()), max(threads, site.threads())
                time.sleep(0.1)
            attempts, ended = int(ask(crowd)), time.monotonic()
            allowed = site.timeout + SPARE_SECONDS
            while site.strangers() and time.monotonic() - ended < 10 * allowed:
                most = max(most, site.resident())
                time.sleep(0.05)
            freed = time.monotonic()
        free = max(0.0, freed - max(ended, float(ask(crowd))))
        try:
            problem = "" if site.places(addresses(attack)[0]) else "places are not free"
        except OSError as error:
            problem = f"places cannot be counted: {error}"
    finally:
        crowd.kill()
        crowd.wait()
    problem = "; ".join(filter(None, (problem, *sorted(set(honest.failures)))))
    served = max(honest.served, default=float("inf"))
    return Cost(attack.name, site.is_tls, attempts, honest.worst, served, (most - before) / 1e6, threads, free, allowed, problem)
