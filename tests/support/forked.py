"""Worker processes that are forked from one process which has imported everything: a start costs milliseconds, not seconds of imports.

What runs is a process of its own with the real `main`, to be killed with -9 like any other. `python -m tests.support.forked` is the
process that forks; it speaks lines of JSON on its standard streams and ends, with all that it forked, when its input ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = ("node.worker", "node.arrivals", "node.build", "node.repair", "node.steps", "node.timers", "node.workflow", "node.reporting",
            "node.deliver.attempt", "storage.audit_log", "apscheduler.schedulers.background",
            "tests.support.worker", "tests.support.assessments", "tests.support.small_objects")


class ForkedProcess:
    """The part of `subprocess.Popen` that tests use, for a process that is the fork server's child."""

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._server = _server()
        log.touch()
        self.pid = int(self._server.ask(start=[module, *arguments], environment=dict(environment), log=str(log)))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:  # else the number may be another process by now
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class _ForkServer:
    """Asks the forking process, one question at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen([sys.executable, "-m", "tests.support.forked"], cwd=ROOT, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, env=dict(os.environ, OMP_NUM_THREADS="1"))

    def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        assert line, "the forking process has ended, its last words are on stderr"
        return json.loads(line)


@cache
def _server() -> _ForkServer:
    return _ForkServer()


def _run(start: list[str], environment: dict[str, str], log: str) -> None:
    """In the child: what `python -m MODULE ARGUMENTS` would do, its streams in the file `log`."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(out, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(environment)
    sys.argv = start
    code = 1
    try:
        code = import_module(start[0]).main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    for name in IMPORTED:
        import_module(name)
    children: set[int] = set()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin.buffer:
        question = json.loads(line)
        if "start" in question:
            pid = os.fork()
            if pid == 0:
                answers.close()
                _run(**question)
            children.add(pid)
            answer: int | None = pid
        else:
            done, status = os.waitpid(question["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if done else None
            children.discard(done)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    for pid in children:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
