"""The node under chaos: `mediqa serve` under a service manager that starts it again at once, on a file system of its own where possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from tests.support.node import ROOT, NodeUnderTest

RESTART_SECONDS = 0.3
"""What RestartSec is to a service manager."""
LAST_WAIT = 1.0
"""Longest wait of the supervisor before it starts a child again: 30 s in the product, where nobody kills a child each few seconds."""
SERVE = f"import node.serve; node.serve.LAST_WAIT = {LAST_WAIT}; from node.cli import main; main()"
READY = {"receiver": b'"message": "listening"', "worker": b'"message": "worker runs"'}
WORDS = {"receiver": "node.receive", "worker": "node.worker", "decoder": "qa_engine.decoder_process"}


class ChaosNode(NodeUnderTest):
    """A node that is started again whenever its supervisor is gone, as `Restart=always` does."""

    def __init__(self, folder: Path, log: Path, destinations: list[tuple[str, str, int]], environment: dict[str, str], patience: float) -> None:
        """patience: deliver.timeout, seconds."""
        super().__init__(folder, destinations, quiet=4, contiguous=2, announced=1, environment={
            "MEDIQA_COMPLETION__REVISIONS_PER_DAY": "1000",  # kills split series; an operator is not at hand
            "MEDIQA_DELIVER__TIMEOUT": str(patience), **environment})
        self.log = log
        self.starts = 0
        self._read, self._ready = 0, {"receiver": 0, "worker": 0}
        self._keep, self._thread = threading.Event(), threading.Thread(target=self._manage, name="service-manager", daemon=True)

    def start(self) -> None:
        """Start, and go on starting until `stop`."""
        self._keep.set()
        self._thread.start()

    def _manage(self) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1", **self.environment)
        while self._keep.is_set():
            if self.process is None or self.process.poll() is not None:
                if self.process is not None:
                    time.sleep(RESTART_SECONDS)
                self.starts += 1
                with self.log.open("ab") as log:
                    self.process = subprocess.Popen([sys.executable, "-c", SERVE, "serve", "-c", str(self.config)], cwd=ROOT, stdout=log,
                                                    stderr=log, env=environment, start_new_session=True)
            time.sleep(0.05)

    def stop(self) -> None:
        """SIGTERM, and no start after it."""
        self._keep.clear()
        self._thread.join(10)
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill_all()
                raise

    def kill(self, what: str, starting: bool = True) -> str:
        """kill -9 of supervisor, receiver, worker or decoder: "killed", "absent", or "starts" where that one is not ready and `starting` is not meant."""
        supervisor = self.process
        if supervisor is None or supervisor.poll() is not None:
            return "absent"
        if not starting and not self.is_ready(what):
            return "starts"
        if what == "supervisor":
            supervisor.kill()
        else:
            try:
                target = self.member(WORDS[what])
                if target is None:
                    return "absent"
                target.kill()
            except psutil.Error:
                return "absent"  # it ended by itself
        for child in ("receiver", "worker") if what == "supervisor" else (what,):
            self._ready[child] = 0
        return "killed"

    def is_ready(self, what: str) -> bool:
        """Whether it has said so since it was killed last, by the log; a decoder is ready when it is there."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                for child, word in READY.items():
                    self._ready[child] += word in line
        return what == "decoder" or all(self._ready[c] for c in (READY if what == "supervisor" else (what,)))


class Disk:
    """A small file system in memory for the node's data, so that it can be full; `folder` is an ordinary one where none can be mounted."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self._size = folder, megabytes * 2**20
        folder.mkdir(parents=True, exist_ok=True)
        self.why_not = "only root can mount a small file system" if shutil.which("mount") is None or os.geteuid() else \
            self._mount("-t", "tmpfs", "-o", f"size={self._size},mode=700", "mediqa-chaos")

    def _mount(self, *arguments: str) -> str:
        """What `mount` says against it, "" when it did it."""
        done = subprocess.run(["mount", *arguments, str(self.folder)], capture_output=True, text=True)
        return (done.stderr.strip() or "mount failed") if done.returncode else ""

    def fill(self, left: int) -> None:
        """It is as small as what lies there and `left` bytes more: full at once, without a byte written."""
        for spare in (left, left + 2**20, left + 2**24):  # the node writes meanwhile, and below what is used it cannot be
            stat = os.statvfs(self.folder)
            used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
            if not self._mount("-o", f"remount,size={max(used + spare, stat.f_frsize)}"):
                return

    def clear(self) -> None:
        self._mount("-o", f"remount,size={self._size}")

    def unmount(self) -> None:
        if not self.why_not:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)
