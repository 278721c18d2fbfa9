"""A node's folder without its network side: instances are put in as the receiver does it, a worker process works on them."""

from __future__ import annotations

import tempfile
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydicom.dataset import Dataset

from node.config import load
from storage.audit_log import AuditLog
from storage.database import migrate, open_engine, readonly
from storage.index import ReceivedInstance, admit
from storage.objects import ObjectStore
from tests.support.forked import ForkedProcess
from tests.support.ports import wait_for
from tests.support.small_objects import CT, image

CONFIG = """
node: {{data: data, log_level: INFO}}
receive: {{ae_title: MEDIQA, host: 127.0.0.1, port: 0, allow: [{{ae_title: SENDER, networks: [127.0.0.0/8]}},
           {{ae_title: OTHER, networks: [127.0.0.0/8]}}, {{ae_title: THIRD, networks: [127.0.0.0/8]}}]}}
storage: {{reserve: 1 MiB, durability: os}}
completion: {{{completion}}}
deliver: {{first_retry: 0.5, last_retry: {last_retry}, timeout: 3, mode: {mode}}}
destinations:
{destinations}
"""
QUICK = "quiet: 0.5, contiguous: 0.5, announced: 0.5"


@cache
def empty_database() -> bytes:
    """A database at this program's version, made once."""
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(Path(folder) / "node.db")
        migrate(engine)
        engine.dispose()  # the last connection puts the write-ahead log into the file
        return (Path(folder) / "node.db").read_bytes()


class Bench:
    """`put` series in, `start` the worker, look at rows; `kill` and `stop` end it.

    pacs: the port of the one destination, or several of them as (name, port, calling AE titles that it serves).
    """

    def __init__(self, folder: Path, pacs: int | list[tuple[str, int, str]], mode: str = "live", completion: str = QUICK,
                 last_retry: float = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.config_file, self.log = folder, folder / "config.yaml", folder / "worker.log"
        self._pacs, self._completion, self._last_retry = [("pacs", pacs, "")] if isinstance(pacs, int) else pacs, completion, last_retry
        self.configure(mode)
        if not self.config.database_target.exists():
            self.config.data_folder.mkdir(mode=0o700)
            self.config.database_target.write_bytes(empty_database())
        self.engine = open_engine(self.config.database_target)
        self.store = ObjectStore(self.config.data_folder / "objects", "os")
        self.process: ForkedProcess | None = None
        self.counted = folder / "assessed.txt"

    def configure(self, mode: str) -> None:
        """Write the configuration; a worker that runs does not look at it."""
        destinations = "\n".join(f"  - {{name: {name}, ae_title: PACS, host: 127.0.0.1, port: {port}, serves: [{serves}]}}"
                                 for name, port, serves in self._pacs)
        self.config_file.write_text(CONFIG.format(completion=self._completion, last_retry=self._last_retry, mode=mode,
                                                   destinations=destinations), encoding="utf-8")
        self.config = load(self.config_file)

    def put(self, ds: Dataset, own: bool = False, calling_ae: str = "SENDER", **more: Any) -> None:
        """Store and index one data set as reception does."""
        import hashlib

        out = BytesIO()
        ds.save_as(out, enforce_file_format=True)
        data = out.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        with self.engine.begin() as conn:
            known = conn.execute(sa.text("select 1 from instance where sop_uid = :u"), {"u": ds.SOPInstanceUID}).first()
        part = self.store.begin()
        part.write(data)
        path = part.commit(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, digest, known is not None)
        with self.engine.begin() as conn:
            admit(conn, ReceivedInstance(
                ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SOPClassUID, str(ds.file_meta.TransferSyntaxUID), digest,
                len(data), path, calling_ae, instance_number=ds.InstanceNumber, position_mm=float(ds.InstanceNumber), own=own, **more))

    def put_series(self, count: int = 3, **more: Any) -> list[Dataset]:
        first = image(CT)
        sets = [image(CT, study=first.StudyInstanceUID, series=first.SeriesInstanceUID, number=k + 1) for k in range(count)]
        for ds in sets:
            self.put(ds, **more)
        return sets

    def start(self, **environment: str) -> ForkedProcess:
        self.process = ForkedProcess("tests.support.worker", ["--config", str(self.config_file)],
                                     {"ASSESS_COUNT": str(self.counted), **environment}, self.log)
        return self.process

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(60)

    def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        with readonly(self.engine).connect() as conn:
            return [dict(r._mapping) for r in conn.execute(sa.text(sql), values)]

    def write(self, sql: str, **values: Any) -> None:
        with self.engine.begin() as conn:
            conn.execute(sa.text(sql), values)

    def wait_rows(self, sql: str, count: int = 1, seconds: float = 30, **values: Any) -> list[dict[str, Any]]:
        """Rows of `sql` once there are at least `count`."""
        return wait_for(lambda: r if len(r := self.rows(sql, **values)) >= count else None, seconds, f"{sql}\n{self.tail()}")

    def assessments(self) -> list[str]:
        return self.counted.read_text().split() if self.counted.exists() else []

    def audit(self) -> AuditLog:
        return AuditLog(self.engine, self.config.audit_key_path, self.config.audit_anchor_path)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""
