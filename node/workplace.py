"""What the parts of the worker share: configuration, database, object store, audit log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from node.config import Config
from storage import clock, database
from storage.objects import ObjectStore

SR_CLASSES = {
    "comprehensive-3d": "1.2.840.10008.5.1.4.1.1.88.34",
    "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
    "basic-text": "1.2.840.10008.5.1.4.1.1.88.11",
}
"""SOP classes of `report.sr_classes` (PS3.6 annex A)."""

ACTOR = "worker"


@dataclass(frozen=True)
class Workplace:
    """`engine` commits as configured; `durable` with synchronous FULL, for what must not be lost once it has left the node.

    objects: what was received. results: rendered objects, kept as the bytes that are sent.
    """

    config: Config
    engine: sa.Engine
    durable: sa.Engine
    objects: ObjectStore
    results: ObjectStore
    audit: Any
    node_id: str
    now: Callable[[], str] = clock.utc_now

    @property
    def reader(self) -> sa.Engine:
        """The database for looking only: never waits for a writer."""
        return database.readonly(self.engine)

    @property
    def pictures(self) -> Path:
        """Folder of the pictures that reports are drawn from, one file per revision."""
        return self.config.data_folder / "pictures"

    def sweep_parts(self) -> int:
        """Remove what a killed worker left half-written, results and pictures; how many. Only under the worker's lock."""
        left = list(self.pictures.glob("*.part"))
        for part in left:
            part.unlink(missing_ok=True)
        return self.results.sweep_parts() + len(left)
