"""Log lines: JSON, one each, control characters escaped, the text of an error only where the system wrote it."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from node.log import SILENT, configure, event, tell_unexpected


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in SILENT}
    out = io.StringIO()
    with warnings.catch_warnings():
        configure("INFO", "test", out)
        yield out
    root.handlers[:], root.level = handlers, level
    for name, value in levels.items():
        logging.getLogger(name).setLevel(value)


def test_hostile_fields_stay_on_their_line(stream: io.StringIO) -> None:
    log = logging.getLogger("node.test")
    event(log, "association rejected", calling="A\n\x1b[31m{}%s", count=3, long="x" * 5000)
    event(log, "not shown", logging.DEBUG)
    [line] = stream.getvalue().splitlines()
    assert "\x1b" not in line and line.isascii()
    told = json.loads(line)
    assert (told["message"], told["process"], told["count"], len(told["long"])) == ("association rejected", "test", 3, 300)


def test_an_error_tells_type_and_place_but_not_what_it_quotes(stream: io.StringIO) -> None:
    log = logging.getLogger("node.test")
    try:
        raise ValueError("PLANTED^NAME is no number")
    except ValueError as error:
        event(log, "cannot be read", logging.ERROR, error)
    try:
        raise OSError(28, "No space left on device")
    except OSError as error:
        event(log, "cannot be written", logging.ERROR, error)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["error"].startswith("ValueError at test_log.py:") and "PLANTED" not in stream.getvalue()
    assert second["error"].startswith("OSError: No space left on device at test_log.py:")


def test_libraries_that_quote_what_they_read_are_silent(stream: io.StringIO) -> None:
    logging.getLogger("pydicom").setLevel(logging.WARNING)  # as `import pydicom` does
    logging.getLogger("pydicom").error("PLANTED")
    logging.getLogger("pynetdicom.assoc").error("PLANTED")
    warnings.warn("PLANTED", UserWarning, stacklevel=1)
    assert stream.getvalue() == ""


def test_what_nobody_caught_is_one_line_in_any_thread(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    tell_unexpected(logging.getLogger("node.test"))

    def fails() -> None:
        raise ValueError("PLANTED^NAME")

    thread = threading.Thread(target=fails, name="upper layer")
    thread.start()
    thread.join()
    try:
        fails()
    except ValueError:
        sys.excepthook(*sys.exc_info())
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["error"].startswith("ValueError at test_log.py:") and first["thread"] == "upper layer"
    assert second["level"] == "CRITICAL" and "PLANTED" not in stream.getvalue()
