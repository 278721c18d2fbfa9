"""A data set on its way to the disk: however it is cut into fragments, the same file, the same digest, the same header."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from blake3 import blake3
from pydicom.uid import ExplicitVRLittleEndian

from node.receive.file_meta import file_meta, proof_at
from node.receive.quick_scan import HEAD, quick_scan
from node.receive.spool import Room, Spool
from storage.objects import ObjectStore
from tests.support.receiver import encoded
from tests.support.small_objects import CT, image

SYNTAX = str(ExplicitVRLittleEndian)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(ObjectStore(tmp_path / "objects"), 0, 2**30, lambda: 2**40)


def written(room: Room, body: bytes, seed: int) -> Spool:
    """`body` in fragments of the sizes that `seed` gives, all from one buffer that is used again."""
    rng, at = random.Random(seed), 0
    spool = Spool(room, file_meta(CT, "1.2.3.1", SYNTAX, "SENDER"), SYNTAX)
    buffer = bytearray(70_000)
    while at < len(body):
        piece = body[at:at + rng.choice([1, 2, 100, 5000, 60_000])]
        buffer[:len(piece)] = piece
        view = memoryview(buffer)[:len(piece)]
        cut = rng.randrange(len(piece) + 1)
        spool.write(view[:cut], view[cut:])
        at += len(piece)
    return spool


@pytest.mark.parametrize("seed", range(8))
def test_fragments_of_any_size(room: Room, seed: int) -> None:
    body = encoded(image(CT, study="1.2", series="1.2.3", sop="1.2.3.1", number=7, rows=256), SYNTAX)
    spool = written(room, body, seed)
    assert spool.size == len(body) and spool.refusal is None and spool.digest == blake3(body).hexdigest()
    assert spool.quick_header() == quick_scan(body[:HEAD], SYNTAX) and spool.quick_header().sop_uid == "1.2.3.1"
    spool.prove()
    meta = file_meta(CT, "1.2.3.1", SYNTAX, "SENDER")
    assert spool.part.path.read_bytes() == meta[:proof_at(meta)] + blake3(body).digest() + body


def test_the_header_is_read_while_the_rest_is_sent(room: Room) -> None:
    body = encoded(image(CT, study="1.2", series="1.2.3", sop="1.2.3.1", number=7, rows=256), SYNTAX)
    spool = Spool(room, file_meta(CT, "1.2.3.1", SYNTAX, "SENDER"), SYNTAX)
    spool.write(body[:HEAD - 1])
    assert not spool._scanned
    spool.write(body[HEAD - 1:HEAD + 10])
    assert spool._scanned and len(spool._head) == HEAD
    spool.write(body[HEAD + 10:])
    assert spool.quick_header().instance_number == 7


def test_a_short_data_set_is_read_when_it_is_asked_for(room: Room) -> None:
    body = encoded(image(CT, study="1.2", series="1.2.3", sop="1.2.3.1", number=7, rows=16), SYNTAX)
    assert len(body) < HEAD
    spool = Spool(room, file_meta(CT, "1.2.3.1", SYNTAX, "SENDER"), SYNTAX)
    spool.write(body)
    assert spool.quick_header() == quick_scan(body, SYNTAX)
