"""What a destination would do, without sending anything: a C-ECHO, and which of our SOP classes it accepts by negotiation."""

from __future__ import annotations

from dataclasses import dataclass

from node.deliver.answers import Kind
from node.deliver.association import VERIFICATION, Association, NoAssociation
from node.deliver.negotiation import Rejected
from node.deliver.part10 import EXPLICIT, IMPLICIT
from node.deliver.peer import Peer

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class Probe:
    """`problem` says in one line what is wrong and what to do, "" when the association and the C-ECHO went well."""

    problem: str
    accepted: frozenset[str] = frozenset()
    """SOP class UIDs that the destination takes."""


def probe(peer: Peer, classes: list[str]) -> Probe:
    """Associates once with Verification and `classes` proposed; never raises for what the destination does."""
    try:
        with Association(peer, [(uid, (EXPLICIT, IMPLICIT)) for uid in (VERIFICATION, *classes)]) as association:
            accepted = frozenset(sop_class for sop_class, _ in association.accepted)
            if VERIFICATION not in accepted:
                return Probe("it takes no C-ECHO" if accepted else "it takes none of our SOP classes, not even a C-ECHO", accepted)
            answer = association.echo()
    except NoAssociation as error:
        return Probe(_why(error, peer))
    if answer.kind is not Kind.STATUS:
        return Probe("it does not answer the C-ECHO", accepted)
    return Probe("" if answer.status == 0x0000 else f"C-ECHO answered {answer.text}", accepted)


def _why(error: NoAssociation, peer: Peer) -> str:
    """Why there is no association, and what to do (PS3.8 table 9-21)."""
    if error.rejected is None:
        if "gaierror" in error.answer.comment:
            return f"{peer.host} has no address: correct host, or the name service"
        return f"nobody answers at {peer.host}:{peer.port}: is it running, are host and port right?"
    return f"association rejected {code(error.rejected)}: " + {
        (1, 3): f"add the AE title {peer.calling_ae} of this node to its list of known systems",
        (1, 7): f"it does not call itself {peer.ae_title}: correct ae_title",
        (3, 1): "it is busy, try later", (3, 2): "it has no association left, try later"}.get(
        (error.rejected.source, error.rejected.reason), "it gives no reason")


def code(rejected: Rejected) -> str:
    """`1/1/7`: result, source and reason as PS3.8 numbers them."""
    return f"{rejected.result}/{rejected.source}/{rejected.reason}"
