"""Free ports on 127.0.0.1 and waiting with a deadline."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


LOWEST, PORTS = 15_000, 17_000
"""Below the ports that the system gives to clients: other tests open thousands of connections."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on right now, drawn so that two who ask at once hardly get the same."""
    while True:
        port = LOWEST + secrets.randbelow(PORTS)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_for(what: Callable[[], T], seconds: float, message: str, every: float = 0.1) -> T:
    """The first true value of `what()` within `seconds` (monotonic), else AssertionError with `message`."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline, f"after {seconds} s: {message}"
        time.sleep(every)


def listening(port: int) -> bool:
    """Whether somebody listens on 127.0.0.1:port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False
