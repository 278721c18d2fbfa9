"""One try against a PACS that misbehaves: what the sender makes of it, and that a repetition is the same object."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from node.deliver.answers import Kind
from node.deliver.association import NoAssociation
from node.deliver.peer import Peer
from node.deliver.scu import Item, Sent, connect, offer
from tests.support.ports import free_port
from tests.support.scripted_pacs import ABORT, CUT, LOSE_RESPONSE, SILENT, ScriptedPacs
from tests.support.small_objects import SC, image, write

SR = {"comprehensive-3d": "1.2.840.10008.5.1.4.1.1.88.34", "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
      "enhanced": "1.2.840.10008.5.1.4.1.1.88.22", "basic-text": "1.2.840.10008.5.1.4.1.1.88.11"}


def peer(port: int, timeout: float = 5) -> Peer:
    return Peer(ae_title="PACS", host="127.0.0.1", port=port, calling_ae="MEDIQA", timeout=timeout)


@pytest.fixture
def picture(tmp_path: Path) -> Item:
    ds = image(rows=512)
    return Item(1, write(ds, tmp_path / "sc.dcm"), SC, ds.SOPInstanceUID)


@pytest.fixture
def reports(tmp_path: Path) -> list[Item]:
    items = []
    for key, uid in enumerate(SR.values(), start=1):
        ds = image(uid)
        items.append(Item(key, write(ds, tmp_path / f"{key}.dcm"), uid, ds.SOPInstanceUID))
    return items


def send(where: Peer, items: list[Item], before_first_byte: Callable[[Item], None] = lambda item: None) -> Sent:
    """One association for one result."""
    try:
        with connect(where, [(item.sop_class_uid, item.path) for item in items]) as association:
            return offer(association, items, before_first_byte)
    except NoAssociation as error:
        return Sent(error.answer)


def data_set_bytes(item: Item) -> bytes:
    ds = pydicom.dcmread(item.path)
    return item.path.read_bytes()[-len(ds.PixelData):]


def outcome(sent: Sent) -> tuple[Kind, int | None]:
    return sent.answer.kind, sent.answer.status


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB007, 0xA700, 0xA900, 0xC000, 0x0110, 0x0122, 0x0124, 0xFE00])
def test_status_comes_through(picture: Item, status: int) -> None:
    with ScriptedPacs([status]) as pacs:
        assert outcome(send(peer(pacs.port), [picture])) == (Kind.STATUS, status)
        assert (picture.sop_uid in pacs.held) == (status == 0 or (status >= 0xB000 and status < 0xC000))


def test_the_bytes_on_disk_are_the_bytes_that_leave(picture: Item) -> None:
    with ScriptedPacs() as pacs:
        send(peer(pacs.port), [picture])
        assert picture.path.read_bytes().endswith(pacs.held[picture.sop_uid])
        assert len(pacs.held[picture.sop_uid]) > 512 * 512 * 2


def test_implicit_only_destination_gets_the_same_content(picture: Item) -> None:
    with ScriptedPacs(syntaxes=[ImplicitVRLittleEndian]) as pacs:
        assert outcome(send(peer(pacs.port), [picture])) == (Kind.STATUS, 0)
        assert pacs.held[picture.sop_uid].endswith(data_set_bytes(picture))


def test_only_what_is_sent_is_proposed(reports: list[Item]) -> None:
    with ScriptedPacs() as pacs:
        assert send(peer(pacs.port), reports).item == reports[0]
        assert set(pacs.proposed[0]) == set(SR.values())
        send(peer(pacs.port), reports[1:2])
        assert set(pacs.proposed[1]) == {SR["comprehensive"]}


def test_first_accepted_class_is_sent(reports: list[Item]) -> None:
    with ScriptedPacs(classes=(SC, SR["enhanced"])) as pacs:
        sent = send(peer(pacs.port), reports)
        assert sent.item == reports[2] and list(pacs.held) == [reports[2].sop_uid]


@pytest.mark.parametrize("status", [0x0122, 0xA900])
def test_refused_class_falls_back_on_the_same_association(reports: list[Item], status: int) -> None:
    with ScriptedPacs([status, status]) as pacs:
        sent = send(peer(pacs.port), reports)
        assert sent.item == reports[2] and outcome(sent) == (Kind.STATUS, 0)
        assert sent.skipped_classes == (SR["comprehensive-3d"], SR["comprehensive"])
        assert list(pacs.held) == [reports[2].sop_uid] and len(pacs.proposed) == 1


def test_no_class_accepted(reports: list[Item]) -> None:
    with ScriptedPacs(classes=(SC,)) as pacs:
        assert send(peer(pacs.port), reports).answer.kind is Kind.NO_CONTEXT


@pytest.mark.parametrize("misbehaviour", [LOSE_RESPONSE, ABORT, CUT])
def test_lost_answer_is_unknown_and_the_repetition_the_same(picture: Item, misbehaviour: str) -> None:
    chosen: list[Item] = []
    with ScriptedPacs([misbehaviour]) as pacs:
        sent = send(peer(pacs.port), [picture], chosen.append)
        assert sent.answer.kind is Kind.NO_RESPONSE and sent.item == picture and chosen == [picture]
        assert outcome(send(peer(pacs.port), [picture])) == (Kind.STATUS, 0)
        assert list(pacs.held) == [picture.sop_uid] and pacs.other_bytes == []


def test_silence_ends_after_the_timeout(picture: Item) -> None:
    with ScriptedPacs([SILENT]) as pacs:
        began = time.monotonic()
        sent = send(peer(pacs.port, timeout=1), [picture])
        assert sent.answer.kind is Kind.NO_RESPONSE and "progress" in sent.answer.comment
        assert time.monotonic() - began < 4


def test_slow_link_that_moves_is_no_failure(tmp_path: Path) -> None:
    """A relay that passes 400 kB/s: the whole takes longer than the timeout, yet something moves all the time."""
    ds = image(rows=1024)
    item = Item(1, write(ds, tmp_path / "big.dcm"), SC, ds.SOPInstanceUID)
    with ScriptedPacs() as pacs:
        port = free_port()
        threading.Thread(target=_slow_relay, args=(port, pacs.port, 800_000), daemon=True).start()
        time.sleep(0.2)
        began = time.monotonic()
        assert outcome(send(peer(port, timeout=1.5), [item])) == (Kind.STATUS, 0)
        assert time.monotonic() - began > 1.5


def _slow_relay(port: int, target: int, per_second: int) -> None:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    server.bind(("127.0.0.1", port))
    server.listen(1)
    near, _ = server.accept()
    far = socket.create_connection(("127.0.0.1", target))

    def back() -> None:
        while data := far.recv(65536):
            near.sendall(data)

    threading.Thread(target=back, daemon=True).start()
    try:
        while data := near.recv(8192):
            far.sendall(data)
            time.sleep(len(data) / per_second)
    except OSError:
        pass
    far.close()


def test_nobody_there(picture: Item) -> None:
    assert send(peer(free_port(), timeout=1), [picture]).answer.kind is Kind.UNREACHABLE


def test_listening_but_mute(picture: Item) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(1)
        began = time.monotonic()
        assert send(peer(mute.getsockname()[1], timeout=1), [picture]).answer.kind is Kind.UNREACHABLE
        assert time.monotonic() - began < 5


def test_rejections_are_told_apart(picture: Item) -> None:
    with ScriptedPacs(ae_title="OTHER") as pacs:
        answer = send(peer(pacs.port), [picture]).answer
        assert answer.kind is Kind.REJECTED_PERMANENT and "reason 7" in answer.comment


def test_own_file_gone(picture: Item) -> None:
    picture.path.unlink()
    with ScriptedPacs() as pacs:
        assert send(peer(pacs.port), [picture]).answer.kind is Kind.FAILED_HERE
