"""Sends any file once, as raw as it goes: data set bytes from the file where it has meta information, else parsed by force."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context


def send_raw(file: Path, port: int, calling: str = "SENDER") -> str:
    """The node's answer as four hexadecimal digits, or why the file could not be sent at all."""
    try:
        meta = pydicom.filereader.read_file_meta_info(file)
        sop_class, uid, syntax = meta.get("MediaStorageSOPClassUID"), meta.get("MediaStorageSOPInstanceUID"), meta.get("TransferSyntaxUID")
        what: Path | pydicom.Dataset = file
    except Exception:  # any parser error means: no usable meta information
        sop_class = uid = syntax = None
    if not (sop_class and uid and syntax):
        try:
            ds = pydicom.dcmread(file, force=True)
            sop_class, uid = ds.get("SOPClassUID"), ds.get("SOPInstanceUID")
            syntax = getattr(ds, "file_meta", {}).get("TransferSyntaxUID") or ImplicitVRLittleEndian
            ds.file_meta.TransferSyntaxUID = UID(syntax)
            what = ds
        except Exception:
            return "not-dicom"
        if not (sop_class and uid):
            return "no-sop-instance"
    if not (UID(sop_class).is_valid and UID(syntax).is_valid):
        return "invalid-uid"
    ae = AE(calling)
    ae.dimse_timeout = ae.network_timeout = 20
    ae.requested_contexts = [build_context(sop_class, syntax)]
    assoc = ae.associate("127.0.0.1", port, ae_title="MEDIQA")
    if assoc.is_rejected:
        return "rejected"
    if not assoc.is_established:
        return "no-context"
    chunked, _config.STORE_SEND_CHUNKED_DATASET = _config.STORE_SEND_CHUNKED_DATASET, isinstance(what, Path)
    try:
        answer = assoc.send_c_store(what)
        return f"{answer.Status:04X}" if "Status" in answer else "no-answer"
    except Exception:  # what pynetdicom itself cannot encode never reaches the node
        return "not-encodable"
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = chunked
        if assoc.is_established:
            assoc.release()
