"""The sending side of `mediqa send`: as few associations as the presentation contexts allow, files as they lie on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pydicom
from pynetdicom import AE, build_context, evt

from node.cli.send import CONTEXTS, RETRIES, File, Outcome
from node.deliver.answers import Action, Answer, Kind, judge
from node.deliver.checkpoint import steady
from node.deliver.scu import ProgressWatch

NO_DELAY = (6, 1, 1)
"""IPPROTO_TCP, TCP_NODELAY, on: PDU header and body must not wait for an acknowledgement of 40 ms."""


def send_files(files: Sequence[File], target: tuple[str, str, int], calling: str, timeout: float, outcome: Outcome,
               step: Callable[[], None]) -> None:
    """Sends `files` to (AE title, host, port); every file ends in `outcome`, `step` is called once for each."""
    for group in groups(files):
        left, silent = list(group), 0
        while left:
            before = len(left)
            problem = _one_association(left, target, calling, timeout, outcome, step)
            silent = 0 if len(left) < before else silent + 1
            if problem and (silent >= RETRIES or problem.kind is not Kind.NO_RESPONSE):
                for file in left:
                    outcome.failed.append((str(file.path), _words(problem)))
                    step()
                break


def groups(files: Sequence[File]) -> Iterator[list[File]]:
    """Files in order, cut where the pairs of SOP class and transfer syntax would not fit into one association."""
    group: list[File] = []
    pairs: set[tuple[str, str]] = set()
    for file in files:
        pair = (file.sop_class_uid, file.transfer_syntax)
        if pair not in pairs and len(pairs) == CONTEXTS:
            yield group
            group, pairs = [], set()
        group.append(file)
        pairs.add(pair)
    if group:
        yield group


def _one_association(left: list[File], target: tuple[str, str, int], calling: str, timeout: float, outcome: Outcome,
                     step: Callable[[], None]) -> Answer | None:
    """Sends from the head of `left` until it is empty or the association ends; what ended it, None when all is done."""
    ae_title, host, port = target
    watch = ProgressWatch(timeout)
    ae = AE(calling)
    ae.acse_timeout = ae.connection_timeout = timeout
    ae.dimse_timeout = ae.network_timeout = None  # the watch judges by progress instead
    pairs = sorted({(file.sop_class_uid, file.transfer_syntax) for file in left})
    contexts = [build_context(*pair) for pair in pairs]
    try:
        assoc = steady(ae.associate(host, port, contexts, ae_title, evt_handlers=[*watch.handlers(), (evt.EVT_CONN_OPEN, _no_delay)]))
    except (OSError, RuntimeError, ValueError) as error:
        return Answer(Kind.UNREACHABLE, comment=type(error).__name__)
    if not assoc.is_established:
        if watch.rejection is not None:
            result, source, reason = watch.rejection
            return Answer(Kind.REJECTED_TRANSIENT if result == 2 else Kind.REJECTED_PERMANENT, comment=_why(result, source, reason))
        return Answer(Kind.UNREACHABLE, comment=f"nobody answers at {host}:{port}")
    accepted = {(str(cx.abstract_syntax), str(cx.transfer_syntax[0])) for cx in assoc.accepted_contexts}
    watch.start(assoc)
    try:
        while left:
            if (left[0].sop_class_uid, left[0].transfer_syntax) not in accepted:
                answer = Answer(Kind.NO_CONTEXT, comment="SOP class or transfer syntax is not accepted there")
            else:
                answer = _store(assoc, left[0], watch)
                if answer.kind is Kind.NO_RESPONSE:
                    return answer
            file = left.pop(0)
            _note(file, answer, outcome)
            step()
        return None
    finally:
        watch.stop()
        if assoc.is_established:
            assoc.release()


def _store(assoc: Any, file: File, watch: ProgressWatch) -> Answer:
    try:
        # by its path the bytes leave as they lie on disk, under the UIDs of the meta information
        status = assoc.send_c_store(file.path if file.exact else pydicom.dcmread(file.path))
    except RuntimeError:
        return Answer(Kind.NO_RESPONSE, comment="association ended")
    except Exception as error:  # the file itself cannot be read or encoded
        return Answer(Kind.FAILED_HERE, comment=type(error).__name__)
    if "Status" not in status:
        return Answer(Kind.NO_RESPONSE, comment="no progress in time" if watch.fired else "association ended before the response")
    return Answer(Kind.STATUS, int(status.Status), str(status.get("ErrorComment", "")))


def _note(file: File, answer: Answer, outcome: Outcome) -> None:
    verdict = judge(answer) if answer.kind is Kind.STATUS else None
    if verdict is not None and verdict.action is Action.DELIVERED:
        outcome.sent += 1
        outcome.warnings += verdict.warning
    else:
        outcome.failed.append((str(file.path), _words(answer)))


def _words(answer: Answer) -> str:
    return answer.text + (f" ({answer.comment})" if answer.comment else "")


def _why(result: int, source: int, reason: int) -> str:
    """A rejection in words of PS3.8 table 9-21, with what to do."""
    known = {(1, 3): "calling AE title not recognised: add it to the receiver's list, or use --calling",
             (1, 7): "called AE title not recognised: write the receiver's own AE title", (3, 2): "the receiver is full: try later",
             (3, 1): "the receiver is busy: try later", (1, 2): "application context not supported"}
    return f"{known.get((source, reason), 'no reason given')}; {result}/{source}/{reason} of PS3.8 9.3.4"


def _no_delay(event: evt.Event) -> None:
    event.assoc.dul.socket.socket.setsockopt(*NO_DELAY)
