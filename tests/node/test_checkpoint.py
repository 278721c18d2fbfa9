"""No response is lost to the library's reactor thread, however the two threads are scheduled."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from pynetdicom import AE, build_context

from tests.support.checkpoint import steady
from tests.support.scripted_pacs import ScriptedPacs
from tests.support.small_objects import SC, image


def answered(port: int, keep: Any) -> int:
    """How many of four requests get their response when a busy machine runs the reactor late, and the requesting thread still later."""
    ds = image(SC, rows=8)
    ae = AE("SENDER")
    ae.dimse_timeout = 0.5
    assoc = keep(ae.associate("127.0.0.1", port, [build_context(SC, ds.file_meta.TransferSyntaxUID)], "PACS"))
    passes, take = assoc._reactor_checkpoint.wait, assoc.dimse.get_msg

    def passes_late() -> bool:
        let_go = passes()
        time.sleep(0.08)
        return let_go

    def takes_late(block: bool = False) -> Any:
        time.sleep(0.25 if block else 0)
        return take(block)

    assoc._reactor_checkpoint.wait, assoc.dimse.get_msg = passes_late, takes_late
    count = 0
    for _ in range(4):
        if not assoc.is_established:
            break
        count += assoc.send_c_store(ds).get("Status") == 0x0000
    if assoc.is_established:
        assoc.release()
    return count


def test_every_response_arrives() -> None:
    with ScriptedPacs() as pacs:
        assert answered(pacs.port, steady) == 4
        # if this one fails, the library has mended its pause and ours can go
        assert answered(pacs.port, lambda assoc: assoc) < 4


@pytest.mark.parametrize("when", ["before", "during"])
def test_an_association_that_has_died_holds_nobody(when: str) -> None:
    ds = image(SC, rows=8)
    ae = AE("SENDER")
    ae.dimse_timeout = 5
    with ScriptedPacs(["cut"] if when == "during" else []) as pacs:
        assoc = steady(ae.associate("127.0.0.1", pacs.port, [build_context(SC, ds.file_meta.TransferSyntaxUID)], "PACS"))
        if when == "before":
            pacs.stop()
            assoc.abort()
        began = time.monotonic()
        try:
            assert "Status" not in assoc.send_c_store(ds)
        except RuntimeError:
            pass
        assoc.release()
        assert time.monotonic() - began < 4


def test_a_pause_that_is_asked_for_twice_is_one_pause() -> None:
    with ScriptedPacs() as pacs:
        assoc = steady(AE("SENDER").associate("127.0.0.1", pacs.port, [build_context(SC)], "PACS"))
        for _ in range(2):
            assoc._reactor_checkpoint.clear()
        assoc._reactor_checkpoint.set()
        assoc.release()


def test_an_association_that_is_known_to_be_over_by_its_reactor_alone() -> None:
    """The requesting side has looked at `is_established` already: neither request nor release waits for a response."""
    ds = image(SC, rows=8)
    ae = AE("SENDER")
    ae.dimse_timeout = ae.network_timeout = None
    with ScriptedPacs() as pacs:
        assoc = steady(ae.associate("127.0.0.1", pacs.port, [build_context(SC, ds.file_meta.TransferSyntaxUID)], "PACS"))
        assert assoc.send_c_store(ds).Status == 0x0000
        assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        assoc.join(5)
        assert not assoc.is_alive()
        assoc.is_established = True  # as it was a moment ago
        began = time.monotonic()
        with pytest.raises(RuntimeError):
            assoc.send_c_store(ds)
        assoc.release()
        assert time.monotonic() - began < 2
