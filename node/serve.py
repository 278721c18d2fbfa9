"""`mediqa serve`: the supervisor. Starts the receiver and the worker, restarts each with a growing wait, drains both on SIGTERM.

It holds nothing but two child processes and a lock, so it may be killed at any moment; the kernel then kills the children
(prctl PR_SET_PDEATHSIG), and the next start finds port and locks free.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

log = logging.getLogger("node.serve")

PR_SET_PDEATHSIG = 1
FIRST_WAIT, LAST_WAIT = 0.5, 30.0
"""Seconds before a child that ended is started again; doubled for each end that comes soon."""
STEADY = 60.0
"""A child that lived this long starts with the first wait again."""
DRAIN_SECONDS = 40.0
"""Time that children get after SIGTERM before they are killed; the worker gives its workflows less than that."""
PORT_SECONDS = 2.0
"""Time that the port of a killed node gets to be free again."""
WRONG_USE = 2
"""Exit code of a child that started with a configuration it cannot use: starting it again would not help."""
TICK = 0.2

_LIBC = ctypes.CDLL(None, use_errno=True)


class StartError(Exception):
    """Why the node cannot start, as one line that says what to do."""


class PortInUse(StartError):
    """Somebody listens there."""


@dataclass
class Child:
    """One supervised process."""

    name: str
    argv: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    failures: int = 0
    started: float = 0.0
    due: float = field(default_factory=time.monotonic)

    def start(self, parent: int) -> None:
        self.started, self.starts = time.monotonic(), self.starts + 1
        self.process = subprocess.Popen(self.argv, preexec_fn=lambda: _die_with(parent))
        log.info("%s started, process %d", self.name, self.process.pid)

    def ended(self) -> int | None:
        """Exit code of a process that has just ended, None while it runs or none was started."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        self.process = None
        now = time.monotonic()
        self.failures = 1 if now - self.started > STEADY else self.failures + 1
        self.due = now + wait_before_restart(self.failures)
        return code


def wait_before_restart(failures: int) -> float:
    """Seconds to wait after the n-th end in a row: 0.5, 1, 2 ... 30."""
    return min(LAST_WAIT, FIRST_WAIT * 2.0 ** min(max(failures, 1) - 1, 16))


def _die_with(parent: int) -> None:
    """In the child before exec: SIGKILL when the supervisor dies, also if it died just now. Signals start with their defaults."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    os.setpgid(0, 0)  # Ctrl-C in a terminal reaches the supervisor alone, which drains


def lock(path: Path, what: str) -> IO[Any]:
    """An exclusive lock on `path`, held while the returned file is open; StartError when another process holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = path.open("a+")
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}; set node.data to a folder that the node may write") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StartError(f"{what} is already running on {path.parent}; stop it, or set another node.data") from None
    return file


def check_port(host: str, port: int) -> None:
    """StartError when nobody can listen on host:port; port 0 is any free one."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found[:1]:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except socket.gaierror:
        raise StartError(f"receive.host: {host!r} is no address of this machine") from None
    except PermissionError:
        raise StartError(f"receive.port: {port} needs more rights; use a port above 1023") from None
    except OSError as error:
        raise PortInUse(f"receive.port: cannot listen on {host}:{port} ({error.strerror}); stop what uses it or write another port") \
            from None


def wait_for_port(host: str, port: int, seconds: float = PORT_SECONDS) -> None:
    """`check_port` with patience for a receiver that dies with its killed supervisor."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check_port(host, port)
        except PortInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(TICK)


def commands(config_file: Path | None) -> list[Child]:
    """The two processes of the node, each with the same configuration."""
    more = ["--config", str(config_file)] if config_file is not None else []
    return [Child("receiver", [sys.executable, "-m", "node.receive", *more]),
            Child("worker", [sys.executable, "-m", "node.worker", *more])]


def run(config: Any, config_file: Path | None, children: list[Child] | None = None) -> int:
    """Supervise until SIGTERM or SIGINT; the exit code. StartError when the node cannot start."""
    os.umask(0o077)
    held = lock(config.data_folder / "node.lock", "a node")
    try:
        wait_for_port(config.receive.host, config.receive.port)
        return Supervisor(children if children is not None else commands(config_file)).run()
    finally:
        held.close()


class Supervisor:
    """Keeps its children running until told to stop."""

    def __init__(self, children: list[Child]) -> None:
        self.children = children
        self._stop = False
        self._parent = os.getpid()

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        code = 0
        try:
            while not self._stop and code == 0:
                code = self._look()
                time.sleep(TICK)
        finally:
            self._drain()
        return code

    def _on_signal(self, _number: int, _frame: Any) -> None:
        self._stop = True

    def _look(self) -> int:
        """Start what is due, note what ended; an exit code other than 0 when going on makes no sense."""
        for child in self.children:
            ended = child.ended()
            if ended == WRONG_USE and child.starts == 1:
                return WRONG_USE  # its own line on stderr says why; later on, one wrong edit must not stop the other process
            if ended is not None:
                log.warning("%s ended with code %d, starts again in %.1f s", child.name, ended, child.due - time.monotonic())
            if child.process is None and time.monotonic() >= child.due and not self._stop:
                child.start(self._parent)
        return 0

    def _drain(self) -> None:
        """SIGTERM to each child, then SIGKILL to what is left; nobody else is touched."""
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + DRAIN_SECONDS
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("process %d did not end in %.0f s and is killed", process.pid, DRAIN_SECONDS)
                process.kill()
                process.wait()
