"""A real node for tests: `mediqa serve` in a scratch folder, on a free port, with waits scaled down."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tests.support.checkpoint import steady
from tests.support.ports import free_port, listening, wait_for

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
node: {{data: data}}
receive:
  ae_title: MEDIQA
  host: 127.0.0.1
  port: {port}
  allow:
{allow}
storage: {{reserve: 64 MiB}}
completion: {{quiet: {quiet}, contiguous: {contiguous}, announced: {announced}}}
deliver: {{first_retry: 1, last_retry: 2, timeout: 20, mode: {mode}}}
destinations:
{destinations}
{extra}
"""


class NodeUnderTest:
    """Starts, kills and asks a node. Destinations are (name, ae_title, port); several of them serve all callers.

    environment: further variables for the node's processes.
    """

    def __init__(self, folder: Path, destinations: list[tuple[str, str, int]], *, quiet: float = 2, contiguous: float = 1.5,
                 announced: float = 1, mode: str = "live", callers: tuple[str, ...] = ("PACS", "ORTHANC", "SENDER"),
                 extra: str = "", environment: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self.config = folder / "config.yaml"
        allow = "\n".join(f"    - {{ae_title: {name}, networks: [127.0.0.0/8]}}" for name in callers)
        serves = ", ".join(callers) if len(destinations) > 1 else ""
        targets = "\n".join(f"  - {{name: {n}, ae_title: {ae}, host: 127.0.0.1, port: {p}, serves: [{serves}]}}"
                            for n, ae, p in destinations) or "  []"
        self.config.write_text(CONFIG.format(port=self.port, quiet=quiet, contiguous=contiguous, announced=announced, mode=mode,
                                             allow=allow, destinations=targets, extra=extra), encoding="utf-8")
        self.database = folder / "data" / "node.db"
        self.log = folder / "node.log"
        self.environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NodeUnderTest:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1", **self.environment)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "node", "serve", "-c", str(self.config)], cwd=ROOT,
                                            stdout=log, stderr=log, env=env, start_new_session=True)
        wait_for(lambda: listening(self.port) or self.process.poll() is not None, 60, "the node does not listen")
        assert self.process.poll() is None, self.log.read_text()

    def stop(self) -> None:
        """SIGTERM; the node ends in time and its log holds no traceback."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise
        assert "Traceback" not in self.log.read_text(errors="replace"), self.tail()

    def members(self) -> list[psutil.Process]:
        """The supervisor and all its children."""
        assert self.process is not None
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def member(self, word: str) -> psutil.Process | None:
        """The process whose command line holds `word` (node.receive, node.worker, decoder_process)."""
        for process in self.members():
            try:
                if any(word in part for part in process.cmdline()):
                    return process
            except psutil.Error:
                continue
        return None

    def kill_all(self) -> None:
        """kill -9 of every process of the node at once."""
        members = self.members()
        for process in members:
            try:
                process.kill()
            except psutil.Error:
                pass
        psutil.wait_procs(members, timeout=20)
        assert self.process is not None
        self.process.wait(20)

    def rows(self, sql: str, *args: Any) -> list[dict[str, Any]]:
        """Rows of node.db through a read-only connection."""
        if not self.database.exists():
            return []
        con = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=20)
        try:
            con.row_factory = sqlite3.Row
            return [dict(row) for row in con.execute(sql, args)]
        finally:
            con.close()

    def ends(self) -> dict[str, dict[str, Any]]:
        """Newest ended revision by Series Instance UID."""
        rows = self.rows("select s.series_uid, r.* from revision r join series s on s.id = r.series_id "
                         "where r.outcome is not null order by r.number")
        return {row["series_uid"]: row for row in rows}

    def wait_for_ends(self, count: int, seconds: float = 120) -> dict[str, dict[str, Any]]:
        return wait_for(lambda: e if len(e := self.ends()) >= count else None, seconds,
                        f"{count} series ends wanted\n{self.tail()}")

    def wait_delivered(self, seconds: float = 90) -> list[dict[str, Any]]:
        """All deliveries, once there are some and each is delivered."""
        def done() -> list[dict[str, Any]] | None:
            rows = self.rows("select * from delivery")
            open_ends = self.rows("select id from revision where outcome is null")
            assessed = {r["id"] for r in self.rows("select id from revision where outcome = 'assessed'")}
            planned = {r["revision_id"] for r in rows}
            finished = not open_ends and assessed <= planned and all(r["state"] == "delivered" for r in rows)
            return rows if rows and finished else None
        return wait_for(done, seconds, f"deliveries are not done: {self.rows('select * from delivery')}\n{self.tail()}")

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def mediqa(self, *args: str, code: int = 0) -> str:
        """stdout of a `mediqa` command with this node's configuration; asserts the exit code."""
        done = subprocess.run([sys.executable, "-m", "node", *args, "-c", str(self.config)], cwd=ROOT, capture_output=True, text=True,
                              timeout=120)
        assert done.returncode == code, f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def mediqa_json(self, *args: str, code: int = 0) -> Any:
        return json.loads(self.mediqa(*args, "--json", code=code))


def send(folder_or_files: Any, port: int, calling: str = "SENDER", called: str = "MEDIQA") -> int:
    """C-STORE files in one association, each in its own transfer syntax; the number that got SUCCESS."""
    import pydicom
    from pynetdicom import AE, build_context

    source = [folder_or_files] if isinstance(folder_or_files, (str, Path)) else list(folder_or_files)
    files = [f for path in map(Path, source) for f in (sorted(path.rglob("*")) if path.is_dir() else [path]) if f.is_file()]
    sets = [pydicom.dcmread(f) for f in files]
    ae = AE(calling)
    for abstract, syntax in sorted({(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in sets}):
        ae.requested_contexts = [*ae.requested_contexts, build_context(abstract, syntax)]
    assoc = steady(ae.associate("127.0.0.1", port, ae_title=called))
    assert assoc.is_established, f"association refused: {assoc.acceptor.primitive}"
    try:
        return sum(assoc.send_c_store(d).get("Status") == 0x0000 for d in sets)
    finally:
        assoc.release()
