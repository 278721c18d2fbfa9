"""One try: associate with a destination and C-STORE one result, in the first SOP class that the destination takes (PS3.4 annex B).

Only what is sent is proposed: each SOP class with Explicit and Implicit VR Little Endian in a context of its own. The file's bytes go out
as they lie on disk where Explicit VR is accepted. Silence is measured as progress on the wire, on the monotonic clock: a slow link
that moves is no failure, and a clock step aborts nothing.
"""

from __future__ import annotations

import fcntl
import logging
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.pdu import A_ASSOCIATE_RJ

from node.deliver.answers import Action, Answer, Kind, judge
from node.deliver.checkpoint import steady

# A file that is sent by its path goes out byte for byte; the setting is the library's, for the whole process.
_config.STORE_SEND_CHUNKED_DATASET = True

log = logging.getLogger("node.deliver")


@dataclass(frozen=True)
class Peer:
    """Where to send: the destination's AE title and address, our own AE title, seconds without progress that end a try."""

    ae_title: str
    host: str
    port: int
    calling_ae: str
    timeout: float


@dataclass(frozen=True)
class Item:
    """One rendered object. `key` is the caller's (a row id)."""

    key: int
    path: Path
    sop_class_uid: str
    sop_uid: str


@dataclass(frozen=True)
class Sent:
    """`item` is the object that was offered last, None when nothing began to leave."""

    answer: Answer
    item: Item | None = None
    skipped_classes: tuple[str, ...] = ()
    """SOP classes that the destination refused on the way to `item`."""


def send(peer: Peer, items: Sequence[Item], before_first_byte: Callable[[Item], None] = lambda item: None) -> Sent:
    """Send one of `items` (the same result in several SOP classes, most wanted first) on one association.

    `before_first_byte` is called with the item that was chosen before anything of it leaves, so that a crash leaves a trace.
    Never raises for what the destination does; raises OSError only for our own files.
    """
    files = {item.key: pydicom.dcmread(item.path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]) for item in items}
    watch = ProgressWatch(peer.timeout)
    ae = AE(peer.calling_ae)
    ae.acse_timeout = ae.connection_timeout = peer.timeout
    ae.dimse_timeout = ae.network_timeout = None  # the watch judges by progress instead
    pairs = dict.fromkeys((item.sop_class_uid, syntax) for item in items for syntax in _syntaxes(files[item.key]))
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in pairs]
    try:
        assoc = steady(ae.associate(peer.host, peer.port, contexts, peer.ae_title, evt_handlers=watch.handlers()))
    except (OSError, RuntimeError, ValueError) as error:
        return Sent(Answer(Kind.UNREACHABLE, comment=type(error).__name__))
    if not assoc.is_established:
        return Sent(_why_not(assoc, watch))
    watch.start(assoc)
    try:
        return _offer(assoc, items, watch, before_first_byte)
    finally:
        watch.stop()
        if assoc.is_established:
            assoc.release()


def _offer(assoc: Any, items: Sequence[Item], watch: ProgressWatch, before_first_byte: Callable[[Item], None]) -> Sent:
    """The first item whose class was accepted; on a refusal of the class the next one, on the same association."""
    accepted = {str(cx.abstract_syntax) for cx in assoc.accepted_contexts}
    possible = [item for item in items if item.sop_class_uid in accepted]
    if not possible:
        return Sent(Answer(Kind.NO_CONTEXT, comment="no proposed SOP class was accepted"))
    refused: list[str] = []
    sent = Sent(Answer(Kind.NO_CONTEXT))
    for place, item in enumerate(possible):
        if not assoc.is_established:
            break
        before_first_byte(item)
        sent = Sent(_store(assoc, item, watch), item, tuple(refused))
        more = place + 1 < len(possible)
        if judge(sent.answer, another_class=more).action is not Action.NEXT_CLASS:
            break
        refused.append(item.sop_class_uid)
    return sent


def _store(assoc: Any, item: Item, watch: ProgressWatch) -> Answer:
    """C-STORE of one item; an answer that did not come back is unknown, whatever the reason."""
    exact = any(str(cx.abstract_syntax) == item.sop_class_uid and cx.transfer_syntax[0] == _syntax_of(item.path)
                for cx in assoc.accepted_contexts)
    try:
        what = item.path if exact else pydicom.dcmread(item.path)
    except (OSError, pydicom.errors.InvalidDicomError) as error:
        return Answer(Kind.FAILED_HERE, comment=type(error).__name__)
    try:
        status = assoc.send_c_store(what)
    except (RuntimeError, ValueError, AttributeError) as error:
        # RuntimeError: the association went away before the first byte. The others are ours: the file cannot be encoded.
        kind = Kind.NO_RESPONSE if isinstance(error, RuntimeError) else Kind.FAILED_HERE
        return Answer(kind, comment=type(error).__name__)
    if "Status" not in status:
        return Answer(Kind.NO_RESPONSE, comment="no progress in time" if watch.fired else "association ended before the response")
    return Answer(Kind.STATUS, int(status.Status))  # Error Comment (0000,0902) is left alone: archives quote patients in it


def _why_not(assoc: Any, watch: ProgressWatch) -> Answer:
    """Why there is no association."""
    if watch.rejection is not None:
        result, source, reason = watch.rejection
        kind = Kind.REJECTED_TRANSIENT if result == 2 else Kind.REJECTED_PERMANENT
        return Answer(kind, comment=f"result {result}, source {source}, reason {reason} (PS3.8 9.3.4)")
    if assoc.acceptor.primitive is not None:
        return Answer(Kind.NO_CONTEXT, comment="no proposed SOP class was accepted")
    return Answer(Kind.UNREACHABLE, comment="no connection or no answer to the association request")


def _syntax_of(path: Path) -> str:
    return str(pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID)


def _syntaxes(file: pydicom.FileDataset) -> list[str]:
    """Transfer syntaxes to propose for a file: its own, and Implicit VR Little Endian where that needs no decoding."""
    own = str(file.file_meta.TransferSyntaxUID)
    return [own, str(ImplicitVRLittleEndian)] if own == ExplicitVRLittleEndian else [own]


def _unacknowledged(assoc: Any) -> int:
    """Bytes that the kernel holds for the peer: on a slow link these shrink long after the last write."""
    try:
        return int.from_bytes(fcntl.ioctl(assoc.dul.socket.socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
    except (OSError, AttributeError, ValueError):
        return -1


class ProgressWatch:
    """Ends an association on which nothing moved for `timeout` seconds, by closing its socket: the only way out of a blocked send."""

    def __init__(self, timeout: float) -> None:
        self.timeout, self.fired = timeout, False
        self.rejection: tuple[int, int, int] | None = None
        self._last = time.monotonic()
        self._done = threading.Event()

    def handlers(self) -> list[tuple[Any, Any]]:
        return [(evt.EVT_DATA_SENT, self._moved), (evt.EVT_DATA_RECV, self._moved), (evt.EVT_PDU_RECV, self._pdu)]

    def _moved(self, _event: Any) -> None:
        self._last = time.monotonic()

    def _pdu(self, event: Any) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            self.rejection = (event.pdu.result, event.pdu.source, event.pdu.reason_diagnostic)

    def start(self, assoc: Any) -> None:
        self._last = time.monotonic()
        threading.Thread(target=self._run, args=(assoc,), name="deliver-watch", daemon=True).start()

    def stop(self) -> None:
        self._done.set()

    def _run(self, assoc: Any) -> None:
        waiting = -1
        while not self._done.wait(min(1.0, self.timeout / 4)):
            if waiting != (waiting := _unacknowledged(assoc)):
                self._last = time.monotonic()
            if time.monotonic() - self._last > self.timeout:
                self.fired = True
                try:
                    assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
                except (OSError, AttributeError):
                    pass
                return
