"""A real receiver in this process, on a free port with scratch storage, and senders that say exactly what a test wants."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID
from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import C_STORE

from node.config import Config
from node.receive.__main__ import open_storage
from node.receive.scp import Receiver
from node.receive.tls import ListenerTls
from tests.support.bench import empty_database
from tests.support.checkpoint import steady

CALLER = "SENDER"
PATH = "fast"
"""receive.path of the configurations made here; tests/node/receive runs with both."""


def configuration(folder: Path, **sections: dict[str, Any]) -> Config:
    """Defaults with a scratch data folder, a free port on 127.0.0.1, one allowed caller and no reserve; `sections` replace keys."""
    values: dict[str, dict[str, Any]] = {
        "node": {"data": str(folder / "data")}, "storage": {"reserve": "1 MiB"},
        "receive": {"host": "127.0.0.1", "port": 0, "acse_timeout": 5, "path": PATH,
                    "allow": ({"ae_title": CALLER, "networks": ("127.0.0.0/8",)},)}}
    for name, section in sections.items():
        values.setdefault(name, {}).update(section)
    return Config.model_validate(values)


class ReceiverUnderTest:
    """Context manager: `port`, `rows(sql)`, `stored()`, `parts()`."""

    def __init__(self, config: Config, device_uid: str = "") -> None:
        self.config = config
        config.data_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not config.database_target.exists():
            config.database_target.write_bytes(empty_database())
        self.engine, self.store, self.audit = open_storage(config)
        self.tls = ListenerTls(config)
        self.receiver = Receiver(config, self.engine, self.store, self.audit, "start-1", device_uid, self.tls)

    def __enter__(self) -> ReceiverUnderTest:
        self.receiver.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.receiver.stop(drain=1)
        self.engine.dispose()

    @property
    def port(self) -> int:
        return self.receiver.port

    def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        with self.engine.connect().execution_options(readonly=True) as conn:
            return [dict(row._mapping) for row in conn.execute(sa.text(sql), values)]

    def stored(self) -> dict[str, bytes]:
        """Whole files in the object store by relative path."""
        return {path: self.store.path(path).read_bytes() for path in self.store.walk()}

    def parts(self) -> list[Path]:
        return list(self.store.parts.iterdir())

    def events(self, name: str) -> list[dict[str, Any]]:
        return self.audit.records(event=name)


@contextlib.contextmanager
def association(port: int, pairs: list[tuple[str, str]], calling: str = CALLER, called: str = "MEDIQA") -> Iterator[Any]:
    """An association (established or not) that proposes each (SOP class, transfer syntax)."""
    ae = AE(calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    for _ in range(5):
        assoc = steady(ae.associate("127.0.0.1", port, [build_context(*pair) for pair in pairs], called))
        if not assoc.is_aborted:
            break  # else the answer was faster than the library: it takes a connection that a rejection has ended for one that failed
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def rejection(assoc: Any) -> tuple[int, int, int]:
    """Result, source and reason of an A-ASSOCIATE-RJ."""
    answer = assoc.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def encoded(ds: Dataset, transfer_syntax: str) -> bytes:
    """The data set alone, in a native transfer syntax."""
    out, syntax = DicomBytesIO(), UID(transfer_syntax)
    out.is_little_endian, out.is_implicit_VR = syntax.is_little_endian, syntax.is_implicit_VR
    write_dataset(out, ds)
    return out.getvalue()


def raw_store(assoc: Any, data: bytes | None, sop_class: str | None, sop_uid: str | None, context: int = 0) -> Dataset:
    """C-STORE of any bytes under any UIDs, in the n-th accepted context; the response's Status, ErrorComment and SOP Instance UID."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_uid
    request.DataSet = None if data is None else BytesIO(data)
    context_id = assoc.accepted_contexts[context].context_id
    assoc._reactor_checkpoint.clear()  # the library's reactor thread must be at rest, or it takes the response
    assoc.dimse.send_msg(request, context_id)
    _, response = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    answer = Dataset()
    if response is not None:
        answer.Status, answer.ErrorComment = response.Status, response.ErrorComment or ""
        answer.AffectedSOPInstanceUID = response.AffectedSOPInstanceUID or ""
    return answer
