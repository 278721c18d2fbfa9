"""What a destination would do, without sending anything: a C-ECHO, and which of our SOP classes it accepts by negotiation."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context

from node.deliver.checkpoint import steady
from node.deliver.scu import Peer, ProgressWatch

VERIFICATION = "1.2.840.10008.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class Probe:
    """`problem` says in one line what is wrong and what to do, "" when the association and the C-ECHO went well."""

    problem: str
    accepted: frozenset[str] = frozenset()
    """SOP class UIDs that the destination takes."""


def probe(peer: Peer, classes: list[str]) -> Probe:
    """Associates once with Verification and `classes` proposed; never raises for what the destination does."""
    watch = ProgressWatch(peer.timeout)
    ae = AE(peer.calling_ae)
    ae.acse_timeout = ae.connection_timeout = ae.dimse_timeout = peer.timeout
    contexts = [build_context(uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]) for uid in (VERIFICATION, *classes)]
    try:
        assoc = steady(ae.associate(peer.host, peer.port, contexts, peer.ae_title, evt_handlers=watch.handlers()))
    except (OSError, RuntimeError, ValueError):
        return Probe(f"{peer.host} has no address: correct host, or the name service")
    if not assoc.is_established:
        return Probe(_why(watch, peer))
    try:
        accepted = frozenset(str(cx.abstract_syntax) for cx in assoc.accepted_contexts)
        if VERIFICATION not in accepted:
            return Probe("it takes no C-ECHO", accepted)
        status = assoc.send_c_echo()
        if status.get("Status") != 0x0000:
            return Probe("it does not answer the C-ECHO" if "Status" not in status else f"C-ECHO answered 0x{status.Status:04X}", accepted)
        return Probe("", accepted)
    except RuntimeError:
        return Probe("it ended the association before the C-ECHO")
    finally:
        if assoc.is_established:
            assoc.release()


def _why(watch: ProgressWatch, peer: Peer) -> str:
    """Why there is no association, and what to do (PS3.8 table 9-21)."""
    if watch.rejection is None:
        return f"nobody answers at {peer.host}:{peer.port}: is it running, are host and port right?"
    result, source, reason = watch.rejection
    what = {(1, 3): f"add the AE title {peer.calling_ae} of this node to its list of known systems",
            (1, 7): f"it does not call itself {peer.ae_title}: correct ae_title",
            (3, 1): "it is busy, try later", (3, 2): "it has no association left, try later"}.get((source, reason), "it gives no reason")
    return f"association rejected {result}/{source}/{reason}: {what}"
