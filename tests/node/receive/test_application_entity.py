"""Negotiation and the allow-list as tables."""

from __future__ import annotations

import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    UID_dictionary,
)
from pynetdicom import StoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext

from node.config import Caller, Receive
from node.receive.application_entity import (
    APPLICATION_CONTEXT,
    CALLED_AE,
    CALLING_AE,
    CONTEXT_NAME,
    LIMIT,
    LOW_SPACE,
    SPACE,
    TRANSFER_SYNTAXES,
    CallingRules,
    choose_syntax,
    is_storage,
    negotiate,
)

EXP, IMP, BIG, DEF = ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian


@pytest.mark.parametrize(("proposed", "chosen"), [
    ([IMP], IMP), ([IMP, EXP], EXP), ([BIG, IMP], IMP), ([DEF, IMP], IMP), ([DEF], DEF), ([BIG], BIG),
    ([JPEG2000Lossless, EXP, IMP], JPEG2000Lossless),  # what the sender holds stands first
    ([IMP, EXP, JPEG2000Lossless], EXP), ([JPEGLSLossless, JPEG2000Lossless], JPEGLSLossless),
    (["1.2.3.4.5"], None), ([], None), (["1.2.3.4.5", JPEG2000Lossless, IMP], IMP)])
def test_the_syntax_of_a_context(proposed: list[str], chosen: str | None) -> None:
    assert choose_syntax(proposed) == chosen


def test_every_syntax_that_pydicom_names_is_taken() -> None:
    named = {uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}
    assert named - set(TRANSFER_SYNTAXES) == {"1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2"}  # MIME and XML, retired
    assert all(choose_syntax([uid]) == uid for uid in TRANSFER_SYNTAXES)


def test_classes() -> None:
    assert all(is_storage(context.abstract_syntax) for context in StoragePresentationContexts)
    assert is_storage("1.2.826.0.1.3680043.99.1") and is_storage("1.3.12.2.1107.5.9.1")
    for uid in ("1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.38.1", "1.2.840.10008.1.3.10", "", "1." * 40,
                "1.2.840.10008.1.2.1"):
        assert not is_storage(uid), uid


def test_answers_carry_result_and_syntax() -> None:
    proposed = [build_context("1.2.840.10008.1.1", [IMP]), build_context("1.2.840.10008.5.1.4.1.1.2", [IMP, EXP]),
                build_context("1.2.840.10008.5.1.4.1.1.2", ["1.2.3"]), build_context("1.2.840.10008.5.1.4.1.2.2.1", [EXP])]
    for k, context in enumerate(proposed):
        context.context_id = 7 - 2 * k
    answers = {c.context_id: (c.result, c.transfer_syntax[0]) for c in negotiate(proposed)}
    assert answers == {7: (0, IMP), 5: (0, EXP), 3: (4, "1.2.3"), 1: (3, EXP)}
    assert negotiate([]) == []


RECEIVE = Receive(allow=(Caller(ae_title="CT1", networks=("10.0.0.0/8", "fd00::/8")), Caller(ae_title="PACS", networks=("0.0.0.0/0",))),
                  max_associations=3)


@pytest.mark.parametrize(("calling", "called", "peer", "answer"), [
    ("CT1", "MEDIQA", "10.1.2.3", None), ("CT1 ", " MEDIQA ", "::ffff:10.1.2.3", None), ("CT1", "MEDIQA", "fd00::7%eth0", None),
    ("CT1", "MEDIQA", "192.168.0.1", CALLING_AE), ("ct1", "MEDIQA", "10.1.2.3", CALLING_AE), ("", "MEDIQA", "10.1.2.3", CALLING_AE),
    ("PACS", "MEDIQA", "8.8.8.8", None), ("PACS", "MEDIQA", "::1", CALLING_AE), ("PACS", "MEDIQA", "nonsense", CALLING_AE),
    ("CT1", "OTHER", "10.1.2.3", CALLED_AE)])
def test_who_may_associate(calling: str, called: str, peer: str, answer: object) -> None:
    assert CallingRules(RECEIVE).judge(calling, called, peer, APPLICATION_CONTEXT, 0, 2**40) == answer


def test_limits_and_switches() -> None:
    rules = CallingRules(RECEIVE)
    assert rules.judge("CT1", "MEDIQA", "10.0.0.1", "1.2.3", 0, 2**40) == CONTEXT_NAME
    assert rules.judge("CT1", "MEDIQA", "10.0.0.1", APPLICATION_CONTEXT, 2, 2**40) is None
    assert rules.judge("CT1", "MEDIQA", "10.0.0.1", APPLICATION_CONTEXT, 3, 2**40) == LIMIT
    assert rules.judge("CT1", "MEDIQA", "10.0.0.1", APPLICATION_CONTEXT, 0, LOW_SPACE - 1) == SPACE
    assert [r.code for r in (CONTEXT_NAME, CALLING_AE, CALLED_AE, LIMIT, SPACE)] == ["1/1/2", "1/1/3", "1/1/7", "2/3/2", "2/3/2"]
    open_to_all = CallingRules(RECEIVE.model_copy(update={"allow_any": True, "check_called_ae": False}))
    assert open_to_all.judge("WHO", "WHAT", "8.8.8.8", APPLICATION_CONTEXT, 0, 2**40) is None


def test_a_context_without_a_syntax_is_rejected_alone() -> None:
    bare, offered = PresentationContext(), build_context("1.2.840.10008.5.1.4.1.1.2")
    bare.context_id, offered.context_id = 1, 3
    first, second = negotiate([bare, offered])
    assert (first.context_id, first.result) == (1, 3) and (second.context_id, second.result) == (3, 0)
