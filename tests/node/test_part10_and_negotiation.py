"""What is read before anything is sent: the beginning of a file, the answer to an association request; the library says the same of both."""

from __future__ import annotations

import struct
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pynetdicom.pdu import A_ASSOCIATE_RQ

from node.cli.send import look_at
from node.deliver import negotiation
from node.deliver.negotiation import Accepted, Rejected, read_answer, request
from node.deliver.part10 import META, NotPart10, open_stored
from node.receive.file_meta import IMPLEMENTATION_CLASS_UID, file_meta
from node.receive.upper_layer import ProtocolError
from tests.support.data import data_folder
from tests.support.small_objects import CT, SC, image, write

EXPLICIT, IMPLICIT = str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("private", [0, 3 * META])
def test_meta_information_and_beginning(tmp_path: Path, syntax: str, private: int) -> None:
    ds = image(CT, rows=16)
    if syntax == RLELossless:
        ds.compress(RLELossless, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = syntax
    if private:
        ds.file_meta.PrivateInformationCreatorUID, ds.file_meta.PrivateInformation = "1.2.3", bytes(private)
    path = write(ds, tmp_path / "a.dcm")
    with open_stored(path) as stored, path.open("rb") as file:
        pydicom.filereader.read_preamble(file, False)
        pydicom.filereader._read_file_meta_info(file)
        assert (stored.offset, stored.end) == (file.tell(), path.stat().st_size)
        assert (stored.sop_class_uid, stored.sop_uid, stored.transfer_syntax) == (CT, ds.SOPInstanceUID, syntax)
        assert stored.named == (None if syntax == DeflatedExplicitVRLittleEndian else (CT, ds.SOPInstanceUID))
    found = look_at(path)
    assert found is not None and (found.sop_class_uid, found.sop_uid, found.transfer_syntax) == (CT, ds.SOPInstanceUID, syntax)


def test_meta_information_without_or_with_a_wrong_length(tmp_path: Path) -> None:
    whole = file_meta(CT, "1.2.3", EXPLICIT, "X")
    for head in (whole[:132] + whole[144:], whole[:140] + b"\x07\0\0\0" + whole[144:], whole[:140] + b"\xff\xff\0\0" + whole[144:]):
        (tmp_path / "a.dcm").write_bytes(head + bytes.fromhex("0800050043530400") + b"ABCD")
        with open_stored(tmp_path / "a.dcm") as stored:
            assert (stored.offset, stored.length, stored.transfer_syntax) == (len(head), 12, EXPLICIT)


@pytest.mark.parametrize("data", [b"", b"DICM", bytes(128) + b"DICM", bytes(128) + b"DICN" + bytes(100), bytes(128) + b"DICM" + bytes(100),
                                  file_meta(CT, "1.2", "", "X") + bytes(20), file_meta(CT, "1.2", EXPLICIT, "X")[:-20],
                                  bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0x102, b"OB", 0, 0xFFFFFFFF) + bytes(50)])
def test_what_is_no_file_of_part_ten(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.dcm").write_bytes(data)
    with pytest.raises(NotPart10):
        open_stored(tmp_path / "a.dcm")
    assert look_at(tmp_path / "a.dcm") is None and look_at(tmp_path) is None and look_at(tmp_path / "none") is None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(128, 500), st.binary(min_size=1, max_size=6), st.booleans())
def test_a_changed_beginning_is_read_or_refused(tmp_path: Path, at: int, more: bytes, cut: bool) -> None:
    data = (file_meta(CT, "1.2.3", EXPLICIT, "X") + bytes.fromhex("0800160055491a00") + CT.encode() + b"\0" + bytes.fromhex("0800180055490600")
            + b"1.2.3\0" + bytes(300))
    (tmp_path / "a.dcm").write_bytes(data[:at] + more + (b"" if cut else data[at + len(more):]))
    try:
        with open_stored(tmp_path / "a.dcm") as stored:
            assert 0 <= stored.offset <= stored.end
    except NotPart10:
        pass


@pytest.mark.data
def test_real_files_are_read_as_the_library_reads_them() -> None:
    from node.receive.header_scan import scan_file

    files = [p for p in sorted((data_folder() / "devtest").rglob("*")) if p.is_file() and p.stat().st_size < 2**21][:400]
    known = 0
    for path in files:
        said = scan_file(path)
        if said is None or not (said.header.sop_uid and said.header.sop_class_uid and said.transfer_syntax):
            continue
        found = look_at(path)
        assert found is not None, path
        assert (found.sop_class_uid, found.sop_uid, found.transfer_syntax) == (said.header.sop_class_uid, said.header.sop_uid, said.transfer_syntax), path
        known += 1
    assert known > 50


PROPOSALS = [(CT, (EXPLICIT,)), (CT, (IMPLICIT,)), (SC, (EXPLICIT, IMPLICIT))]


def test_the_library_reads_what_we_request() -> None:
    pdu = request("PACS", "MEDIQA NODE", PROPOSALS, 16384)
    read = A_ASSOCIATE_RQ()
    read.decode(pdu)
    primitive = read.to_primitive()
    assert (read.protocol_version, primitive.called_ae_title, primitive.calling_ae_title) == (1, "PACS", "MEDIQA NODE")
    assert primitive.application_context_name == "1.2.840.10008.3.1.1.1" and primitive.maximum_length_received == 16384
    assert [(c.context_id, c.abstract_syntax, tuple(c.transfer_syntax)) for c in primitive.presentation_context_definition_list] == [
        (2 * k + 1, abstract, syntaxes) for k, (abstract, syntaxes) in enumerate(PROPOSALS)]
    assert primitive.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert read.encode() == pdu  # the library's own bytes, then
    assert len(request("P", "M", [(f"1.2.{k}", (EXPLICIT,)) for k in range(128)], 0)) < 2**14
    for wrong in ([], [(CT, (EXPLICIT,))] * 129):
        with pytest.raises(ValueError, match="contexts"):
            request("P", "M", wrong, 0)


def answer(*results: int) -> bytes:
    """An A-ASSOCIATE-AC with a result for each context, as the fast receive path makes it."""
    from node.receive.associate import accept, read_request

    pdu = accept(read_request(request("P", "M", PROPOSALS, 16384)), 4096)[0]
    for k, result in enumerate(results):
        at = pdu.index(b"\x21\x00", 74)
        for _ in range(k):
            at = pdu.index(b"\x21\x00", at + 4)
        pdu = pdu[:at + 6] + bytes((result,)) + pdu[at + 7:]
    return pdu


def test_answers() -> None:
    assert read_answer(answer(0, 0, 0), PROPOSALS) == Accepted({(CT, EXPLICIT): 1, (CT, IMPLICIT): 3, (SC, EXPLICIT): 5}, 4096)
    assert read_answer(answer(3, 0, 4), PROPOSALS) == Accepted({(CT, IMPLICIT): 3}, 4096)
    assert read_answer(b"\x03\x00\x00\x00\x00\x04\x00\x02\x03\x01", PROPOSALS) == Rejected(2, 3, 1)


@settings(max_examples=400, deadline=None)
@given(st.integers(6, 200), st.binary(min_size=1, max_size=4), st.booleans())
def test_a_changed_answer_is_read_or_refused(at: int, more: bytes, cut: bool) -> None:
    pdu = answer(0, 0, 0)
    changed = pdu[:at] + more + (b"" if cut else pdu[at + len(more):])
    try:
        found = read_answer(changed, PROPOSALS)
    except ProtocolError:
        return
    assert isinstance(found, Accepted) and set(found.contexts) <= {(a, s) for a, syntaxes in PROPOSALS for s in syntaxes}
    assert negotiation.MOST_CONTEXTS == 128
