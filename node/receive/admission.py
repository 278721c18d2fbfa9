"""What a received instance is and which status answers it (pure; DESIGN sections 5, 6 and 8)."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

from node.receive.header_scan import Header
from node.receive.limits import MAX_UID

OWN_MANUFACTURER = "MedIQA Node"
"""Manufacturer in our Contributing Equipment item: marks results of any node of this kind."""
STAND_IN = "none:"
"""How the index marks a Study or Series Instance UID that the data set does not have."""
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})


class Status(IntEnum):
    """C-STORE statuses that this node answers (PS3.4 B.2.3, PS3.7 annex C)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    CLASS_NOT_SUPPORTED = 0x0122
    OUT_OF_RESOURCES = 0xA700
    MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True)
class Refusal:
    """A failure status with a comment (0000,0902) of at most 64 characters, without patient data."""

    status: Status
    comment: str


@dataclass(frozen=True)
class Command:
    """What the C-STORE request and its presentation context say; "" where the request says nothing."""

    sop_class_uid: str
    sop_uid: str
    context_class_uid: str


def judge_command(command: Command) -> Refusal | None:
    """What can be refused before the data set is looked at."""
    if not command.sop_uid:
        return Refusal(Status.CANNOT_UNDERSTAND, "no Affected SOP Instance UID")
    if len(command.sop_uid) > MAX_UID:
        return Refusal(Status.CANNOT_UNDERSTAND, "SOP Instance UID longer than 64 characters")
    if not command.sop_class_uid or command.sop_class_uid != command.context_class_uid:
        return Refusal(Status.CLASS_NOT_SUPPORTED, "SOP class is not that of the presentation context")
    return None


def judge_header(command: Command, header: Header | None) -> Refusal | None:
    """What the data set itself tells: unreadable, without SOP Instance UID, or another object than the command says."""
    if header is None:
        return Refusal(Status.CANNOT_UNDERSTAND, "data set cannot be read in the agreed syntax")
    if not header.sop_uid:
        return Refusal(Status.CANNOT_UNDERSTAND, "no SOP Instance UID in the data set")
    if header.sop_uid != command.sop_uid:
        return Refusal(Status.MISMATCH, "SOP Instance UID differs from the command")
    if header.sop_class_uid != command.sop_class_uid:
        return Refusal(Status.MISMATCH, "SOP Class UID differs from the command")
    if len(header.study_uid) > MAX_UID or len(header.series_uid) > MAX_UID:
        return Refusal(Status.CANNOT_UNDERSTAND, "Study or Series UID longer than 64 characters")
    return None


def judge_space(free: int, reserve: int) -> Refusal | None:
    """Below the reserve nothing is taken, so that database and results of what is here still find room. `free` when it is written, in bytes."""
    return Refusal(Status.OUT_OF_RESOURCES, "free space is below the reserve") if free < reserve else None


def judge_size(size: int, limit: int) -> Refusal | None:
    """A data set of more than `limit` bytes is refused."""
    return Refusal(Status.OUT_OF_RESOURCES, "data set is larger than the node accepts") if size > limit else None


def judge_error(error: BaseException) -> Refusal:
    """Our own failure: a full or failing disk asks to come later, anything else invites a retry."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return Refusal(Status.OUT_OF_RESOURCES, "no space left")
    return Refusal(Status.PROCESSING_FAILURE, "internal failure, please send again")


def with_stand_ins(header: Header) -> Header:
    """`header` with a text in place of a missing Study or Series Instance UID (both type 1, but archives hold such objects).

    The text follows from the SOP Instance UID and is no valid UID: the object is kept and judged by itself, and nothing is ever sent
    into a study that it does not name.
    """
    if header.study_uid and header.series_uid:
        return header
    stand_in = STAND_IN + hashlib.sha256(header.sop_uid.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return replace(header, study_uid=header.study_uid or stand_in, series_uid=header.series_uid or stand_in)


@dataclass(frozen=True)
class Known:
    """How the loop guard asks what this node made: result objects, result series, its own Device UID."""

    result_object: Callable[[str], bool]
    result_series: Callable[[str], bool]
    device_uid: str = ""


def own_result(header: Header, known: Known) -> bool:
    """Whether a node of this kind made the instance, however an archive has rewritten its patient and study (DESIGN section 6)."""
    marked = any(item.manufacturer.strip().casefold() == OWN_MANUFACTURER.casefold()
                 or (known.device_uid and item.device_uid == known.device_uid) for item in header.contributing_equipment)
    return marked or known.result_object(header.sop_uid) or known.result_series(header.series_uid)
