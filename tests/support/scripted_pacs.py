"""A PACS that misbehaves on command: a status per C-STORE, a lost response, an abort in the middle, silence, refusals."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.pdu import P_DATA_TF

from tests.support.pacs import start_scp
from tests.support.ports import free_port

LOSE_RESPONSE, ABORT, CUT, SILENT = "lose-response", "abort", "cut", "silent"
STORE = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.88.22",
         "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.34")


class ScriptedPacs:
    """`script` is consumed one entry per C-STORE (an int is answered; a word misbehaves); when empty, 0x0000.

    `held` has the encoded data sets that were kept by SOP Instance UID, `times` how often each came with that very content.
    """

    def __init__(self, script: list[int | str] | None = None, classes: tuple[str, ...] = STORE, syntaxes: list[str] | None = None,
                 port: int | None = None, ae_title: str = "PACS", maximum: int = 10) -> None:
        self.script = list(script or [])
        self.port = port or free_port()
        self.held: dict[str, bytes] = {}
        self.times: Counter[str] = Counter()
        self.other_bytes: list[str] = []
        self.proposed: list[list[str]] = []
        self.order: list[str] = []
        self.ae_title = ae_title
        self._classes, self._syntaxes, self._maximum = classes, syntaxes, maximum
        self._lock = threading.Lock()
        self._server: Any = None

    def __enter__(self) -> ScriptedPacs:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        ae = AE(self.ae_title)
        ae.require_called_aet = True
        ae.maximum_associations = self._maximum
        for uid in self._classes:
            ae.add_supported_context(uid, self._syntaxes) if self._syntaxes else ae.add_supported_context(uid)
        ae.add_supported_context("1.2.840.10008.1.1")
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_PDU_RECV, self._pdu), (evt.EVT_REQUESTED, self._requested)]
        self._server = start_scp(ae, self.port, handlers)

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _requested(self, event: Any) -> None:
        self.proposed.append([str(cx.abstract_syntax) for cx in event.assoc.requestor.requested_contexts])

    def _pdu(self, event: Any) -> None:
        if self.script and self.script[0] == CUT and isinstance(event.pdu, P_DATA_TF):
            self.script.pop(0)
            _cut(event.assoc)

    def _store(self, event: Any) -> int:
        with self._lock:
            step = self.script.pop(0) if self.script else 0x0000
        if step == ABORT:
            event.assoc.abort()
            return 0x0000
        if step == SILENT:
            time.sleep(60)
        if step == LOSE_RESPONSE or isinstance(step, str) or step == 0 or 0xB000 <= step <= 0xBFFF:
            self._keep(event)
        if step == LOSE_RESPONSE:
            _cut(event.assoc)
            return 0x0000
        return step if isinstance(step, int) else 0x0000

    def _keep(self, event: Any) -> None:
        uid, data = str(event.request.AffectedSOPInstanceUID), event.request.DataSet.getvalue()
        with self._lock:
            if uid in self.held and self.held[uid] != data:
                self.other_bytes.append(uid)
            self.held[uid] = data
            self.times[uid] += 1
            self.order.append(uid)


def _cut(assoc: Any) -> None:
    """Close the connection without a word."""
    try:
        assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
