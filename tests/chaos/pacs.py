"""The PACS of the chaos run: counts every copy of every result by SOP Instance UID and content, in moods that the schedule sets.

`well`; `down` (nobody listens); `late` (answers after the node's patience, so that nobody knows); `cut` (keeps the data set, then drops the
connection without an answer); `failing` (keeps nothing and answers 0x0110).
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pydicom
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

from tests.support.pacs import start_scp
from tests.support.ports import free_port

MOODS = ("down", "late", "cut", "failing")
PROCESSING_FAILURE = 0x0110


@dataclass(frozen=True)
class Held:
    """What is known of one SOP Instance that was kept."""

    sop_uid: str
    study_uid: str
    series_uid: str
    modality: str


class CountingPacs:
    """A storage SCP. late: seconds that a late answer takes, longer than deliver.timeout of the node."""

    def __init__(self, ae_title: str, late: float) -> None:
        self.ae_title, self.port, self.late = ae_title, free_port(), late
        self.mood = "well"
        self.copies: dict[str, Counter[str]] = {}
        """SOP Instance UID -> digest of the data set -> how often it came."""
        self.held: dict[str, Held] = {}
        self.unanswered = 0
        self._lock = threading.Lock()
        self._server: Any = None

    def __enter__(self) -> CountingPacs:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def be(self, mood: str) -> None:
        """From now on."""
        self.mood = mood
        self._stop() if mood == "down" else self._start()

    def _start(self) -> None:
        if self._server is None:
            ae = AE(self.ae_title)
            ae.add_supported_context(Verification)
            for context in StoragePresentationContexts:
                ae.add_supported_context(context.abstract_syntax)
            self._server = start_scp(ae, self.port, [(evt.EVT_C_STORE, self._store)])

    def _stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _store(self, event: evt.Event) -> int:
        mood = self.mood
        if mood == "failing":
            return PROCESSING_FAILURE
        self._keep(event)
        if mood == "late":
            self.unanswered += 1
            time.sleep(self.late)
        elif mood == "cut":
            self.unanswered += 1
            try:
                event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            except (OSError, AttributeError):
                pass  # the node was killed meanwhile
        return 0x0000

    def _keep(self, event: evt.Event) -> None:
        data = event.encoded_dataset(include_meta=False)
        ds = pydicom.dcmread(BytesIO(event.encoded_dataset(include_meta=True)), stop_before_pixels=True, force=True)
        uid, digest = str(event.request.AffectedSOPInstanceUID), hashlib.sha256(data).hexdigest()
        with self._lock:
            self.copies.setdefault(uid, Counter())[digest] += 1
            self.held[uid] = Held(uid, str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.Modality))
