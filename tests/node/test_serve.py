"""The supervisor with small children: restart with a growing wait, drain, death of the children with it, one-line refusals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

from node.serve import PortInUse, StartError, check_port, lock, wait_before_restart, wait_for_port
from tests.support.node import ROOT
from tests.support.ports import free_port, wait_for


def supervise(folder: Path, *children: str) -> subprocess.Popen[str]:
    """A supervisor process over children that run the given Python code."""
    code = textwrap.dedent(f"""
        import sys
        from node.serve import Child, Supervisor
        sys.exit(Supervisor([Child(str(k), [sys.executable, "-c", c]) for k, c in enumerate({list(children)!r})]).run())
    """)
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, env=dict(os.environ, FOLDER=str(folder)))


SLEEPER = "import os, time; open(os.environ['FOLDER'] + '/pid', 'w').write(str(os.getpid())); time.sleep(100)"
COUNTER = "import os; open(os.environ['FOLDER'] + '/count', 'a').write('x'); raise SystemExit(3)"
DRAINER = textwrap.dedent("""
    import os, signal, sys, time
    folder = os.environ['FOLDER']
    def stop(*_):
        time.sleep(0.5); open(folder + '/drained', 'w').close(); sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    open(folder + '/ready', 'w').close()
    time.sleep(100)
""")


def pid(folder: Path) -> int:
    return wait_for(lambda: int(t) if (folder / "pid").exists() and (t := (folder / "pid").read_text()) else 0, 10, "the child started")


def test_waits_grow_to_half_a_minute() -> None:
    assert [wait_before_restart(n) for n in (1, 2, 3, 7, 8, 1000)] == [0.5, 1, 2, 30, 30, 30]


def test_child_is_started_again_and_again(tmp_path: Path) -> None:
    top = supervise(tmp_path, COUNTER)
    try:
        wait_for(lambda: (tmp_path / "count").exists() and len((tmp_path / "count").read_text()) >= 3, 15, "three starts")
    finally:
        top.terminate()
        assert top.wait(10) == 0


def test_killed_child_comes_back(tmp_path: Path) -> None:
    top = supervise(tmp_path, SLEEPER)
    try:
        first = pid(tmp_path)
        (tmp_path / "pid").unlink()
        os.kill(first, signal.SIGKILL)
        assert pid(tmp_path) != first
    finally:
        top.terminate()
        top.wait(10)


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    top = supervise(tmp_path, SLEEPER)
    child = pid(tmp_path)
    top.kill()
    top.wait(10)
    wait_for(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE, 5, "the child died")


def test_sigterm_drains(tmp_path: Path) -> None:
    top = supervise(tmp_path, DRAINER)
    wait_for(lambda: (tmp_path / "ready").exists(), 10, "ready")
    top.terminate()
    assert top.wait(10) == 0 and (tmp_path / "drained").exists()


def test_wrong_use_ends_the_node(tmp_path: Path) -> None:
    top = supervise(tmp_path, "raise SystemExit(2)", SLEEPER)
    assert top.wait(15) == 2


def test_port_in_use_and_unknown_host_are_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StartError, match=r"receive\.port: cannot listen on 127\.0\.0\.1:\d+ .*write another port"):
            check_port("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(StartError, match=r"receive\.host"):
        check_port("no-such-host.invalid", 1)
    check_port("127.0.0.1", free_port())
    check_port("127.0.0.1", 0)


def test_the_port_of_a_node_that_was_killed_is_waited_for() -> None:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    threading.Timer(0.5, taken.close).start()
    wait_for_port("127.0.0.1", port, 5)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(PortInUse):
            wait_for_port("127.0.0.1", port, 0.3)


def test_second_holder_of_a_lock_is_refused(tmp_path: Path) -> None:
    held = lock(tmp_path / "data" / "node.lock", "a node")
    with pytest.raises(StartError, match="a node is already running"):
        lock(tmp_path / "data" / "node.lock", "a node")
    held.close()
    lock(tmp_path / "data" / "node.lock", "a node").close()


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"node\.data"):
        lock(tmp_path / "file" / "data" / "node.lock", "a node")


def test_bad_configuration_ends_with_two(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("recieve: {port: 1}\n")
    done = subprocess.run([sys.executable, "-m", "node", "serve", "-c", str(tmp_path / "config.yaml")], cwd=ROOT, capture_output=True,
                          text=True, timeout=30)
    assert done.returncode == 2 and "recieve" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.timeout(120)
def test_whole_node_starts_refuses_a_second_and_drains(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "config.yaml"
    config.write_text(f"node: {{data: data}}\nreceive: {{host: 127.0.0.1, port: {port}}}\nstorage: {{reserve: 1 MiB}}\n")
    command = [sys.executable, "-m", "node", "serve", "-c", str(config)]
    quiet = [*command, "--quiet"]
    log = tmp_path / "log"
    with log.open("w") as out:
        node = subprocess.Popen(command, cwd=ROOT, stderr=out, stdout=out)
    try:
        wait_for(lambda: "worker runs" in log.read_text() and "listening" in log.read_text(), 60, log.read_text())
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert second.returncode == 1
        assert [line for line in second.stderr.splitlines() if line.startswith("mediqa:")] == second.stderr.splitlines()
        assert "already running" in second.stderr
        assert subprocess.run(quiet, cwd=ROOT, capture_output=True, text=True, timeout=30).stderr == second.stderr
    finally:
        node.terminate()
        assert node.wait(60) == 0
    assert "Traceback" not in log.read_text()
