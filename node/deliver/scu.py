"""Results over an association: each in the first SOP class that the destination takes (PS3.4 annex B).

Only what is sent is proposed: each SOP class with Explicit and Implicit VR Little Endian in a context of its own. The file's bytes go out
as they lie on disk where its transfer syntax is accepted; a destination that takes Implicit VR alone gets the same content in that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.deliver.answers import Action, Answer, Kind, judge
from node.deliver.association import Association
from node.deliver.negotiation import MOST_CONTEXTS, Proposal
from node.deliver.part10 import EXPLICIT, IMPLICIT, NotPart10, Stored, open_stored, read_stored
from node.deliver.peer import Peer

UNUSABLE = "result file cannot be read"


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


def connect(peer: Peer, files: Iterable[tuple[str, Path]]) -> Association:
    """An association that proposes what `files` need, (SOP class, path) each; NoAssociation where there is none.

    A file that cannot be read is taken for one in Explicit VR, as results are written: the delivery that needs it will say so.
    """
    proposals: dict[Proposal, None] = {}
    for sop_class_uid, path in files:
        try:
            with open_stored(path) as stored:
                own = stored.transfer_syntax
        except (OSError, NotPart10):
            own = EXPLICIT
        proposals |= {(sop_class_uid, (syntax,)): None for syntax in ([own, IMPLICIT] if own == EXPLICIT else [own])}
    return Association(peer, list(proposals)[:MOST_CONTEXTS])


def offer(association: Association, items: Sequence[Item], before_first_byte: Callable[[Item], None] = lambda item: None) -> Sent:
    """Send one of `items`: the same result in several SOP classes, most wanted first; on a refusal of the class the next one.

    `before_first_byte` is called with the item that was chosen before anything of it leaves, so that a crash leaves a trace. Never raises
    for what the destination does or for our own files.
    """
    accepted = {sop_class for sop_class, _ in association.accepted}
    possible = [item for item in items if item.sop_class_uid in accepted]
    if not possible:
        return Sent(Answer(Kind.NO_CONTEXT, comment="no proposed SOP class was accepted"))
    refused: list[str] = []
    sent = Sent(Answer(Kind.NO_CONTEXT))
    for place, item in enumerate(possible):
        if association.lost():
            return Sent(Answer(Kind.UNREACHABLE, comment="association ended before anything was sent"))
        before_first_byte(item)
        sent = Sent(_store(association, item), item, tuple(refused))
        if judge(sent.answer, another_class=place + 1 < len(possible)).action is not Action.NEXT_CLASS:
            break
        refused.append(item.sop_class_uid)
    return sent


def _store(association: Association, item: Item) -> Answer:
    """C-STORE of one item in a transfer syntax that was accepted for its class."""
    try:
        with open_stored(item.path) as stored:
            if stored.sop_uid != item.sop_uid:
                return Answer(Kind.FAILED_HERE, comment="result file holds another object")
            if (item.sop_class_uid, stored.transfer_syntax) in association.accepted:
                return association.store(item.sop_class_uid, item.sop_uid, stored)
            if stored.transfer_syntax != EXPLICIT:
                return Answer(Kind.NO_CONTEXT, comment="its transfer syntax was not accepted")
        with _in_implicit_vr(item.path) as stored:
            return association.store(item.sop_class_uid, item.sop_uid, stored)
    except (OSError, NotPart10):
        return Answer(Kind.FAILED_HERE, comment=UNUSABLE)


def _in_implicit_vr(path: Path) -> Stored:
    """The content of a file in Implicit VR Little Endian, the same bytes each time, in memory: results are small."""
    import pydicom

    handle = os.memfd_create("implicit", os.MFD_CLOEXEC)
    try:
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        with open(handle, "wb", closefd=False) as out:
            pydicom.dcmwrite(out, ds, enforce_file_format=True)
    except Exception as error:  # whatever the library raises, the file cannot be sent like this
        os.close(handle)
        raise NotPart10(type(error).__name__) from None
    return read_stored(handle)
