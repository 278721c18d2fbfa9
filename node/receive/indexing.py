"""From a header to the row of the index: for an instance that arrives, and for a file that is found at start without a row."""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa

from node.log import event
from node.receive.admission import Known, own_result, with_stand_ins
from node.receive.header_scan import Header, scan_file
from storage import index
from storage.reconcile import ReadHeader, digest_of

log = logging.getLogger("node.receive")

NUMBERS = ("instance_number", "number_of_frames", "images_in_acquisition", "acquisition_number", "series_instances", "position_mm")


def received_instance(header: Header, *, transfer_syntax: str, digest: str, size: int, path: str, calling_ae: str,
                      association_id: int | None = None, own: bool = False) -> index.ReceivedInstance:
    """What the index takes of a header; `size` in bytes of the data set."""
    return index.ReceivedInstance(
        study_uid=header.study_uid, series_uid=header.series_uid, sop_uid=header.sop_uid, sop_class_uid=header.sop_class_uid,
        transfer_syntax=transfer_syntax, digest=digest, bytes=size, path=path, calling_ae=calling_ae, association_id=association_id,
        own=own, facts={name: getattr(header, name) for name in index.FACTS}, **{name: getattr(header, name) for name in NUMBERS})


def known_results(conn: sa.Connection, device_uid: str) -> Known:
    """What this node made, for the loop guard."""
    return Known(lambda uid: index.is_result_object(conn, uid), lambda uid: index.is_result_series(conn, uid), device_uid)


def header_reader(engine: sa.Engine, device_uid: str = "") -> ReadHeader:
    """Reader of stored files for `storage.reconcile`, which knows no DICOM."""

    def read(path: Path, relative: str) -> index.ReceivedInstance | None:
        try:
            found = scan_file(path)
            digest = "" if found is None else digest_of(path, found.offset)
            size = path.stat().st_size
        except OSError as error:  # a bad sector must not keep the node from starting
            event(log, "stored file cannot be read", logging.ERROR, error, path=relative)
            return None
        if found is None or not found.header.sop_uid:
            return None
        if found.proof not in ("", digest):
            event(log, "stored file is not whole: its reception was cut before it was acknowledged", logging.WARNING, path=relative)
            return None
        header = with_stand_ins(found.header)
        with engine.connect().execution_options(readonly=True) as conn:
            own = own_result(header, known_results(conn, device_uid))
        return received_instance(header, transfer_syntax=found.transfer_syntax, digest=digest,
                                 size=size - found.offset, path=relative, calling_ae=found.source_ae, own=own)

    return read
