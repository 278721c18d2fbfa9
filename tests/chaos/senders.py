"""Senders at full speed: each sends a series until all of it was acknowledged, as the queue of a modality does, then the next one.

Four kinds: pynetdicom in this process, DCMTK's storescu and dcmsend, and `mediqa send`. What counts as acknowledged is what the sender was
told: per instance where it says so, else only when the whole call succeeded.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import pydicom
from pynetdicom import AE, build_context

from tests.chaos.truth import Instance, Series, Truth
from tests.support.checkpoint import steady
from tests.support.node import ROOT

CALLING, CALLED = "SENDER", "MEDIQA"
PAUSE, LONG_PAUSE = 0.05, 0.5
"""Seconds between two tries, and between two duplicates while the node has much to do."""
SECONDS = 60
"""For one call of a sender; the node may be stopped, its database locked."""
SUMMARY = re.compile(r"with status SUCCESS\s*: (\d+)")
SENT, ANSWERED = re.compile(r"I: Sending file: (.+)"), "I: Received Store Response (Success)"


class Sender(threading.Thread, ABC):
    """One sender. busy: whether the node has so much to do that old series are sent again in place of new ones."""

    def __init__(self, truth: Truth, port: int, seed: int, name: str, busy: Callable[[], bool]) -> None:
        super().__init__(name=name, daemon=True)
        self.truth, self.port, self.busy = truth, port, busy
        self.dice = random.Random(f"{name} {seed}")
        self.calls = 0
        self.failure: BaseException | None = None
        self._over = threading.Event()
        self._old: Series | None = None

    def finish(self) -> None:
        """No new series; the one in progress is sent to its end."""
        self._over.set()

    def run(self) -> None:
        try:
            while not self._over.is_set():
                if self.busy():
                    self._again()
                else:
                    self._deliver(self.truth.make())
        except BaseException as error:
            self.failure = error
            raise

    def _deliver(self, series: Series) -> None:
        """Send until everything was acknowledged. Now and then the sender breaks off in the middle."""
        while series.left:
            count = self.dice.randrange(1, len(series.left) + 1) if self.dice.random() < 0.1 else len(series.left)
            self._call(series, series.left[:count])
            if series.left:
                time.sleep(PAUSE)
        self._forget()
        self._old = series

    def _again(self) -> None:
        """What was acknowledged once is sent once more: duplicates change nothing."""
        if self._old is not None:
            self._call(self._old, list(self._old.instances))
        self._over.wait(LONG_PAUSE)

    def _call(self, series: Series, instances: list[Instance]) -> None:
        self.calls += 1
        acknowledged = {i.sop_uid for i in self.send(instances)}
        series.left = [i for i in series.left if i.sop_uid not in acknowledged]

    def _forget(self) -> None:
        if self._old is not None:
            shutil.rmtree(self._old.folder, ignore_errors=True)
            self._old = None

    @abstractmethod
    def send(self, instances: list[Instance]) -> list[Instance]:
        """Those that got SUCCESS, told to `truth` already."""


class LibrarySender(Sender):
    """pynetdicom, one association per call; each answer is noted as it comes."""

    def send(self, instances: list[Instance]) -> list[Instance]:
        sets = [pydicom.dcmread(i.path) for i in instances]
        ae = AE(CALLING)
        ae.acse_timeout = ae.connection_timeout = 10
        ae.dimse_timeout = ae.network_timeout = 45
        ae.requested_contexts = [build_context(*pair) for pair in {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in sets}]
        done: list[Instance] = []
        try:
            assoc = steady(ae.associate("127.0.0.1", self.port, ae_title=CALLED))
        except (OSError, RuntimeError, ValueError):
            return done
        for one in instances:
            if not assoc.is_established:
                break
            try:
                answer = assoc.send_c_store(one.path)  # the bytes leave as they lie on disk
            except (RuntimeError, ValueError):
                break
            if answer.get("Status") == 0x0000:
                self.truth.acknowledge([one])
                done.append(one)
        if assoc.is_established:
            if self.dice.random() < 0.05:
                assoc.abort()
            else:
                assoc.release()
        return done


class ProgramSender(Sender):
    """A program that sends the files named on its command line."""

    def run_program(self, *command: str) -> tuple[int, str]:
        """Exit code and what it said."""
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=SECONDS,
                                  env={**os.environ, "TCP_NODELAY": "1", "OMP_NUM_THREADS": "1"})
        except subprocess.TimeoutExpired:
            return -1, ""
        return done.returncode, done.stdout + done.stderr


class StoreScu(ProgramSender):
    """DCMTK storescu; its answers are read line by line."""

    def send(self, instances: list[Instance]) -> list[Instance]:
        syntax = ["-xr"] if b"1.2.840.10008.1.2.5" in instances[0].path.read_bytes()[:600] else []
        _, said = self.run_program("storescu", "-v", "-nh", *syntax, "-aet", CALLING, "-aec", CALLED, "127.0.0.1", str(self.port),
                                   *(str(i.path) for i in instances))
        by_path, now, done = {str(i.path): i for i in instances}, None, []
        for line in said.splitlines():
            if found := SENT.match(line):
                now = by_path.get(found[1].strip())
            elif line.startswith(ANSWERED) and now is not None:
                done.append(now)
                now = None
        self.truth.acknowledge(done)
        return done


class DcmSend(ProgramSender):
    """DCMTK dcmsend; its summary says how many got SUCCESS, and only all of them count."""

    def send(self, instances: list[Instance]) -> list[Instance]:
        _, said = self.run_program("dcmsend", "-v", "-dn", "-aet", CALLING, "-aec", CALLED, "127.0.0.1", str(self.port),
                                   *(str(i.path) for i in instances))
        found = SUMMARY.search(said)
        done = instances if found and int(found[1]) == len(instances) else []
        self.truth.acknowledge(done)
        return done


class OwnSend(ProgramSender):
    """`mediqa send` of the whole folder; exit code 0 says that each file got SUCCESS."""

    def send(self, instances: list[Instance]) -> list[Instance]:
        code, _ = self.run_program(sys.executable, "-m", "node", "send", str(instances[0].path.parent), f"{CALLED}@127.0.0.1:{self.port}",
                                   "--calling", CALLING, "--quiet")
        done = instances if code == 0 else []
        self.truth.acknowledge(done)
        return done


def make_senders(truth: Truth, port: int, seed: int, busy: Callable[[], bool], library: int = 2) -> list[Sender]:
    """`library` senders in this process, and each program that is installed."""
    found: list[Sender] = [LibrarySender(truth, port, seed, f"library-{n}", busy) for n in range(library)]
    for kind, program in ((StoreScu, "storescu"), (DcmSend, "dcmsend")):
        if shutil.which(program):
            found.append(kind(truth, port, seed, program, busy))
    return [*found, OwnSend(truth, port, seed, "mediqa-send", busy)]
