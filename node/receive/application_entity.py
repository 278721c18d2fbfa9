"""What this application entity accepts: who may associate, which SOP classes and transfer syntaxes (pure; PS3.8 9.3.4, PS3.7 annex D)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    UID_dictionary,
)
from pynetdicom.presentation import PresentationContext

from node.config import Receive

VERIFICATION = "1.2.840.10008.1.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
LOW_SPACE = 64 * 2**20
"""Free bytes below which not even an association is accepted: its own rows might not fit."""

# PS3.6 annex A. The two retired syntaxes of PS3.10 media interchange hold no encoded data set.
TRANSFER_SYNTAXES = tuple(uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"
                          and uid not in ("1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2"))
_NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)

# Objects of no patient and no series (PS3.4 annex GG and others): nothing here could be done with them.
_NON_PATIENT = ("Hanging Protocol", "Color Palette", "Protocol Approval", "CT Defined Procedure Protocol",
                "XA Defined Procedure Protocol", "Inventory", "Template", "DICOMDIR", "Directory", "Storage Commitment")


@dataclass(frozen=True)
class Rejection:
    """An A-ASSOCIATE-RJ: result, source, reason of PS3.8 table 9-21, and our words for log and audit."""

    result: int
    source: int
    reason: int
    text: str

    @property
    def code(self) -> str:
        return f"{self.result}/{self.source}/{self.reason}"


CONTEXT_NAME = Rejection(1, 1, 2, "application context name not supported")
CALLING_AE = Rejection(1, 1, 3, "calling AE title or its network is not on the allow-list")
CALLED_AE = Rejection(1, 1, 7, "called AE title is not ours")
CONGESTION = Rejection(2, 3, 1, "the node cannot write its database")
LIMIT = Rejection(2, 3, 2, "as many associations as receive.max_associations or max_per_address are open")
SPACE = Rejection(2, 3, 2, "no space left")


class CallingRules:
    """The allow-list with its networks parsed once."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._networks = {caller.ae_title: tuple(ipaddress.ip_network(n, strict=False) for n in caller.networks)
                          for caller in receive.allow}

    def judge(self, calling: str, called: str, peer: str, context_name: str, open_associations: int, free: int) -> Rejection | None:
        """Why an association is rejected, None when it is accepted. `open_associations` without this one; `free` in bytes."""
        if context_name != APPLICATION_CONTEXT:
            return CONTEXT_NAME
        if self._receive.check_called_ae and called.strip(" ") != self._receive.ae_title:
            return CALLED_AE
        if not self._receive.allow_any and not self._allowed(calling.strip(" "), peer):
            return CALLING_AE
        if open_associations >= self._receive.max_associations:
            return LIMIT
        return SPACE if free < LOW_SPACE else None

    def _allowed(self, calling: str, peer: str) -> bool:
        networks = self._networks.get(calling, ())
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)  # an IPv4 peer on a listener for both families
        return any((mapped or address) in network for network in networks)


def is_storage(uid: str) -> bool:
    """Whether an abstract syntax is stored: a storage SOP class of PS3.6, or one that the dictionary does not know (private, newer)."""
    entry = UID_dictionary.get(uid)
    if entry is None:
        return 0 < len(uid) <= 64
    return entry[1] == "SOP Class" and "Storage" in entry[0] and not any(word in entry[0] for word in _NON_PATIENT)


def choose_syntax(proposed: Sequence[str]) -> str | None:
    """The transfer syntax of a context (None: none of them is known).

    What a sender names first is what it holds, so a compressed syntax in that place is taken; else Explicit before Implicit VR, which
    any sender of uncompressed data can write; what is left is compressed, in the sender's order.
    """
    known = [uid for uid in proposed if uid in TRANSFER_SYNTAXES]
    if not known:
        return None
    if proposed[0] == known[0] and known[0] not in _NATIVE:
        return known[0]
    return next((uid for uid in _NATIVE if uid in known), known[0])


def negotiate(proposed: Iterable[PresentationContext]) -> list[PresentationContext]:
    """The answer to each proposed context, by context ID: accepted with one syntax, or rejected with 3 (class) or 4 (syntaxes)."""
    answers = []
    for context in sorted(proposed, key=lambda c: c.context_id or 0):
        offered = [str(uid) for uid in context.transfer_syntax or []]
        abstract = str(context.abstract_syntax or "")
        chosen = choose_syntax(offered) if abstract == VERIFICATION or is_storage(abstract) else None
        answer = PresentationContext()
        answer.context_id = context.context_id
        if abstract:  # PS3.8 9.3.2.2 wants one; a context without it is one of no class
            answer.abstract_syntax = context.abstract_syntax
        answer.transfer_syntax = [chosen or (offered[0] if offered else ImplicitVRLittleEndian)]
        answer.result = 0 if chosen else 4 if abstract == VERIFICATION or is_storage(abstract) else 3
        answer._as_scu, answer._as_scp = False, chosen is not None
        answers.append(answer)
    return answers
