"""What both suites of the receive paths need: small instances, what is stored, how an association ended."""

from __future__ import annotations

import ssl

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from tests.support.ports import wait_for
from tests.support.raw_peer import RELEASED, RawPeer
from tests.support.receiver import ReceiverUnderTest, encoded
from tests.support.small_objects import CT, image


def instance(**more: object) -> tuple[bytes, str]:
    """A small data set and its SOP Instance UID."""
    ds = image(CT, **more)
    return encoded(ds, ExplicitVRLittleEndian), str(ds.SOPInstanceUID)


def data_sets(site: ReceiverUnderTest) -> set[bytes]:
    """Stored data sets, without what stands before them."""
    return {file[144 + int.from_bytes(file[140:144], "little"):] for file in site.stored().values()}


def serves(site: ReceiverUnderTest, source: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> bool:
    data, uid = instance()
    with RawPeer(site.port, tls, source) as peer:
        return peer.associate()[:1] == b"\x02" and peer.store(data, uid) == 0 and peer.release() == RELEASED


def closed(site: ReceiverUnderTest, how: str, instances: int = 0) -> None:
    """The one association so far has ended so."""
    rows = wait_for(lambda: site.rows("select how, instances from association where closed_at is not null"), 10, "closed")
    assert rows == [{"how": how, "instances": instances}]


def fast_only(path: str, why: str) -> None:
    """Skips where the stock path, being the library's, is laxer than the standard."""
    if path == "stock":
        pytest.skip(why)
