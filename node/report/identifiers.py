"""Derived UIDs (pure): the same content always has the same UID, other content never does (DESIGN section 6).

2.25. followed by the decimal of the first 128 bits of SHA-256 over NUL-joined fields, as a UUIDv8 (RFC 9562, PS3.5 B.2).
"""

from __future__ import annotations

import hashlib

MANUFACTURER = "MedIQA Node"
"""Manufacturer of every object of ours; with the Device UID in Contributing Equipment it is the mark of the loop guard."""


def derive_uid(*fields: str) -> str:
    """A UID of at most 44 characters out of text fields."""
    raw = bytearray(hashlib.sha256("\0".join(fields).encode("utf-8", "surrogateescape")).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return f"2.25.{int.from_bytes(raw, 'big')}"


def device_uid(node_id: str) -> str:
    """Device UID (0018,1002) of a node."""
    return derive_uid(node_id, "device")


def result_series_uid(node_id: str, kind: str, study_uid: str, source_series_uid: str, identity_digest: str) -> str:
    """Series Instance UID of results. SR: one series per source series; SC: one per study (`source_series_uid` is not used)."""
    return derive_uid(node_id, "series", kind, study_uid, source_series_uid if kind == "sr" else "", identity_digest)


def result_sop_uid(node_id: str, kind: str, sop_class_uid: str, study_uid: str, series_uid: str, content_digest: str, identity_digest: str,
                   model_digest: str) -> str:
    """SOP Instance UID of a result; `content_digest` is that of the assessed instances, `model_digest` that of model and policy."""
    return derive_uid(node_id, "object", kind, sop_class_uid, study_uid, series_uid, content_digest, identity_digest, model_digest)


def tracking_uid(report: str, group: str) -> str:
    """Tracking Unique Identifier of a measurement group: one per group, all different, the same in all classes of a report."""
    return derive_uid(report, "tracking", group)
