"""The decoder is killed from outside in the middle of a file: the file is decoded all the same; what kills every decoder is corrupt."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from qa_engine.decode import DecodeError, Decoder
from qa_engine.outcome import Reason
from tests.support.ports import wait_for
from tests.support.small_objects import CT, image, write


def children() -> list[psutil.Process]:
    """Living decoders of this process."""
    found = []
    for process in psutil.Process().children():
        try:
            if "qa_engine.decoder_process" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # it died meanwhile
            continue
    return found


def test_killed_once_reads_again(tmp_path: Path) -> None:
    ds = image(CT)
    file = write(ds, tmp_path / "1.dcm")
    before = children()  # those of other tests
    with Decoder() as decoder:
        decoder.read(file)
        [process] = [p for p in children() if p not in before]
        process.suspend()  # the request lies in its pipe when it dies
        found: list[np.ndarray] = []
        reader = threading.Thread(target=lambda: found.append(decoder.read(file).pixels))
        reader.start()
        time.sleep(0.3)
        assert reader.is_alive()
        process.kill()
        reader.join(20)
        assert np.array_equal(found[0][0], ds.pixel_array)
        assert process not in children()


def test_killed_each_time_is_the_fault_of_the_file(tmp_path: Path) -> None:
    file = write(image(CT), tmp_path / "1.dcm")
    stop, before = threading.Event(), children()

    def killer() -> None:
        while not stop.is_set():
            for process in children():
                if process not in before:
                    os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.01)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        with Decoder() as decoder, pytest.raises(DecodeError) as raised:
            decoder.read(file)
        assert raised.value.reason is Reason.CORRUPT_PIXEL_DATA
    finally:
        stop.set()
        thread.join(5)
    wait_for(lambda: set(children()) <= set(before), 5, "no decoder is left")
