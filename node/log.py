"""The node's log: one JSON object per line on stderr, control characters escaped, no patient data.

What peers sent reaches a line only as a field (an AE title, a UID, a status), never as part of a format string. The text of an
exception may quote a data element, so only its type and place are written, its text where it is an operating system's.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
import warnings
from datetime import UTC, datetime
from typing import Any, TextIO

FIELDS = "fields"
MAX_FIELD = 300
FRAMES = 6
SILENT = ("pydicom", "pynetdicom", "highdicom", "pylibjpeg")
"""Libraries whose messages hold values of data elements."""


class JsonLines(logging.Formatter):
    """`{"at": ..., "level": ..., "process": ..., "logger": ..., "message": ..., fields...}` in ASCII."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": record.levelname, "process": self._process, "logger": record.name, "message": record.getMessage()}
        for name, value in getattr(record, FIELDS, {}).items():
            line[name] = value if isinstance(value, (int, float, bool, type(None))) else str(value)[:MAX_FIELD]
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True)


def describe(error: BaseException) -> str:
    """Type and place of `error`; its text only where the operating system wrote it."""
    text = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    place = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__}{text}" + (f" at {place}" if place else "")


def configure(level: str, process: str, stream: TextIO | None = None) -> None:
    """Sends the root logger's records as JSON lines to `stream` (stderr); silences libraries that quote what they read."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(process))
    # pydicom sets the level of its logger when it is imported, maybe after this: the handler has the last word
    handler.addFilter(lambda record: record.name.partition(".")[0] not in SILENT)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for name in ("sqlalchemy", "alembic", "apscheduler", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    warnings.simplefilter("ignore")


def tell_unexpected(logger: logging.Logger) -> None:
    """An error that nobody caught, in any thread of this process, is one line too instead of a traceback that may quote what it read."""
    def ended(_kind: type[BaseException], error: BaseException, _place: Any) -> None:
        event(logger, "ended by an error that nobody expected", logging.CRITICAL, error)

    def thread_ended(args: threading.ExceptHookArgs) -> None:
        event(logger, "a thread ended by an error that nobody expected", logging.ERROR, args.exc_value,
              thread=getattr(args.thread, "name", ""))

    sys.excepthook, threading.excepthook = ended, thread_ended


def event(logger: logging.Logger, message: str, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """One line with named fields: `event(log, "association refused", calling=title, reason="1/1/3")`."""
    logger.log(level, message, extra={FIELDS: fields}, exc_info=error)
