"""A small PACS for tests: a pynetdicom storage SCP that keeps every data set it is sent, as received."""

from __future__ import annotations

import threading
from collections import Counter
from io import BytesIO
from typing import Any

import pydicom
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.sop_class import Verification
from pynetdicom.transport import ThreadedAssociationServer

from tests.support.ports import free_port


def start_scp(ae: AE, port: int, handlers: list[Any]) -> Any:
    """`ae.start_server` on 127.0.0.1 that hears of its `shutdown` within 50 ms, not half a second."""
    server = ae.make_server(("127.0.0.1", port), evt_handlers=handlers, server_class=ThreadedAssociationServer)
    ae._servers.append(server)  # from where `shutdown` removes it
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


class SmallPacs:
    """Keeps data sets by SOP Instance UID and counts how often each came. `classes` limits what it accepts.

    While `gate` is cleared, a C-STORE waits for its answer (and sets `asked`). `other_bytes`: UIDs that came with another content.
    """

    def __init__(self, ae_title: str = "PACS", classes: list[str] | None = None, port: int | None = None) -> None:
        self.ae_title, self.port = ae_title, port or free_port()
        self.encoded: dict[str, bytes] = {}
        self.syntax: dict[str, str] = {}
        self.times: Counter[str] = Counter()
        self.other_bytes: list[str] = []
        self.status = 0x0000
        self.gate, self.asked = threading.Event(), threading.Event()
        self.gate.set()
        self._lock = threading.Lock()
        self._classes = classes
        self._server: Any = None

    def __enter__(self) -> SmallPacs:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        ae = AE(self.ae_title)
        ae.add_supported_context(Verification)
        for uid in self._classes or [c.abstract_syntax for c in StoragePresentationContexts]:
            ae.add_supported_context(uid)
        self._server = start_scp(ae, self.port, [(evt.EVT_C_STORE, self._store)])

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _store(self, event: evt.Event) -> int:
        self.asked.set()
        self.gate.wait(60)
        if self.status:
            return self.status
        uid, data = str(event.request.AffectedSOPInstanceUID), event.encoded_dataset(include_meta=True)
        with self._lock:
            if self.encoded.get(uid, data) != data:
                self.other_bytes.append(uid)
            self.times[uid] += 1
            self.encoded[uid] = data
        return 0x0000

    def datasets(self) -> list[pydicom.Dataset]:
        """All data sets held, parsed anew."""
        with self._lock:
            return [pydicom.dcmread(BytesIO(b), force=True) for b in self.encoded.values()]

    def of_modality(self, modality: str) -> list[pydicom.Dataset]:
        return [ds for ds in self.datasets() if ds.get("Modality") == modality]
