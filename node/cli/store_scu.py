"""The sending side of `mediqa send`: as few associations as the presentation contexts allow, files as they lie on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from node.cli.send import CONTEXTS, RETRIES, File, Outcome
from node.deliver.answers import Action, Answer, Kind, judge
from node.deliver.association import ENDED, Association, NoAssociation
from node.deliver.negotiation import Rejected
from node.deliver.part10 import NotPart10, open_stored
from node.deliver.peer import Peer
from node.receive.limits import MAX_UID


def send_files(files: Sequence[File], peer: Peer, outcome: Outcome, step: Callable[[], None]) -> None:
    """Sends `files`; every file ends in `outcome`, `step` is called once for each."""
    for group in groups(files):
        left, silent = list(group), 0
        while left:
            before = len(left)
            problem = _one_association(left, peer, outcome, step)
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


def _one_association(left: list[File], peer: Peer, outcome: Outcome, step: Callable[[], None]) -> Answer | None:
    """Sends from the head of `left` until it is empty or the association ends; what ended it, None when all is done."""
    pairs = sorted({(file.sop_class_uid, file.transfer_syntax) for file in left})
    try:
        association = Association(peer, [(sop_class, (syntax,)) for sop_class, syntax in pairs])
    except NoAssociation as error:
        if error.rejected is not None:
            return Answer(error.answer.kind, comment=_why(error.rejected))
        return Answer(Kind.UNREACHABLE, comment=f"nobody answers at {peer.host}:{peer.port}" if peer.tls is None else error.answer.comment)
    with association:
        done = 0
        try:
            for file in left:
                if association.lost():
                    return Answer(Kind.NO_RESPONSE, comment=ENDED)
                answer = _store(association, file)
                if answer.kind is Kind.NO_RESPONSE:
                    return answer
                _note(file, answer, outcome)
                done += 1
                step()
        finally:
            del left[:done]
    return None


def _store(association: Association, file: File) -> Answer:
    """By its own UIDs, its bytes as they lie on disk."""
    if (file.sop_class_uid, file.transfer_syntax) not in association.accepted:
        return Answer(Kind.NO_CONTEXT, comment="SOP class or transfer syntax is not accepted there")
    if not 0 < len(file.sop_uid) <= MAX_UID:
        return Answer(Kind.FAILED_HERE, comment="no SOP Instance UID of 1 to 64 characters")
    try:
        with open_stored(file.path) as stored:
            if stored.transfer_syntax != file.transfer_syntax:
                return Answer(Kind.FAILED_HERE, comment="the file has changed")
            answer = association.store(file.sop_class_uid, file.sop_uid, stored)
    except (OSError, NotPart10) as error:
        return Answer(Kind.FAILED_HERE, comment=type(error).__name__)
    return Answer(answer.kind, answer.status, association.comment) if answer.kind is Kind.STATUS else answer


def _note(file: File, answer: Answer, outcome: Outcome) -> None:
    verdict = judge(answer) if answer.kind is Kind.STATUS else None
    if verdict is not None and verdict.action is Action.DELIVERED:
        outcome.sent += 1
        outcome.warnings += verdict.warning
    else:
        outcome.failed.append((str(file.path), _words(answer)))


def _words(answer: Answer) -> str:
    return answer.text + (f" ({answer.comment})" if answer.comment else "")


def _why(rejected: Rejected) -> str:
    """A rejection in words of PS3.8 table 9-21, with what to do."""
    known = {(1, 3): "calling AE title not recognised: add it to the receiver's list, or use --calling",
             (1, 7): "called AE title not recognised: write the receiver's own AE title", (3, 2): "the receiver is full: try later",
             (3, 1): "the receiver is busy: try later", (1, 2): "application context not supported"}
    return (f"{known.get((rejected.source, rejected.reason), 'no reason given')}; "
            f"{rejected.result}/{rejected.source}/{rejected.reason} of PS3.8 9.3.4")
