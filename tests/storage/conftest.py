"""A migrated node.db and its audit log in a scratch folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage.audit_log import AuditLog
from storage.database import migrate, open_engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_engine(tmp_path / "data" / "node.db")
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def log(engine: sa.Engine, tmp_path: Path) -> AuditLog:
    return AuditLog(engine, tmp_path / "data" / "audit.key", tmp_path / "data" / "audit.anchor")
