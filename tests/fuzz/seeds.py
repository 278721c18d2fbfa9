"""Seeds for each target, made by code: small, valid, of nobody."""

from __future__ import annotations

import base64
import ssl
import zlib
from functools import cache
from pathlib import Path

from tests.support.raw_peer import ABORT, RELEASE, data_pdu, echo_command, message, pdv, request, store_command
from tests.support.receiver import encoded
from tests.support.small_objects import CT, image

CORPUS = Path(__file__).with_name("corpus")
"""One file for each target, an input in base64 on each line: what a coverage-guided run has found worth keeping."""


@cache
def seeds(target: str) -> tuple[bytes, ...]:
    """Inputs to begin with, and those that are stored."""
    return (*{"pdu": _pdu, "command_set": _command_set, "associate": _associate, "header_scan": _header_scan, "quick_scan": _quick_scan,
              "certificate": _certificate}[target](), *stored(target))


def stored(target: str) -> list[bytes]:
    file = CORPUS / f"{target}.txt"
    return [base64.b64decode(line) for line in file.read_text(encoding="ascii").split()] if file.exists() else []


def store(target: str, inputs: list[bytes]) -> None:
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{target}.txt").write_text("".join(base64.b64encode(i).decode("ascii") + "\n" for i in sorted(inputs, key=lambda i: (len(i), i))),
                                          encoding="ascii")


def _pdu() -> list[bytes]:
    store_message = message(1, store_command("1.2.3"), bytes(300), 100)
    streams = [request() + store_message + message(3, echo_command()) + RELEASE, request() + ABORT, request()[:60]]
    later = [store_message, data_pdu(pdv(1, b"", True, False), pdv(1, b"ab", False, True)), RELEASE, ABORT, data_pdu(pdv(3, bytes(2000), False, False))]
    return [bytes((step, 0)) + s for s in streams for step in (0, 3, 255)] + [bytes((step, 1)) + s for s in later for step in (0, 255)]


def _command_set() -> list[bytes]:
    return [echo_command(), store_command("1.2.3"), store_command("1.2.3.4", 65535, "1.2", 0x0101), store_command("9" * 64)]


def _associate() -> list[bytes]:
    return [request()[6:], request(max_pdu=0)[6:], request("A", "B", 2**32 - 1)[6:]]


def _data_sets() -> list[tuple[int, bytes]]:
    ds = image(CT, study="1.2.3", series="1.2.3.4", sop="1.2.3.4.5", rows=2)
    ds.Manufacturer, ds.ProtocolName, ds.SeriesNumber, ds.NumberOfFrames = "MAKER", "CHEST", 3, 1
    plain = [encoded(ds, uid) for uid in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2")]
    engine = zlib.compressobj(wbits=-15)
    ds.ContributingEquipmentSequence = [image(CT, study="1", series="1", sop="1", rows=1)]
    return [*enumerate(plain), (3, engine.compress(plain[0]) + engine.flush()), (0, encoded(ds, "1.2.840.10008.1.2.1"))]


def _header_scan() -> list[bytes]:
    return [bytes((syntax,)) + data for syntax, data in _data_sets()]


def _quick_scan() -> list[bytes]:
    return [_data_sets()[0][1], _data_sets()[-1][1]]


def _certificate() -> list[bytes]:
    name = b"\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01x"
    validity = b"\x30\x1e\x17\x0d260101000000Z\x17\x0d270101000000Z"
    fields = b"\xa0\x03\x02\x01\x02" + b"\x02\x01\x01" + b"\x30\x00" + name + validity + name
    inner = b"\x30" + bytes((len(fields),)) + fields
    return [ssl.DER_cert_to_PEM_cert(b"\x30" + bytes((len(inner),)) + inner).encode("ascii")]
