"""A sender made of bytes: what a library would never send, cut and paced as a test wants."""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
import time
from collections.abc import Iterable

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

from tests.support.small_objects import CT

VERIFICATION = "1.2.840.10008.1.1"
RELEASE = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"
RELEASED = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"
ABORT = b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"
STORE_CONTEXT, ECHO_CONTEXT = 1, 3


def request(calling: str = "SENDER", called: str = "MEDIQA", max_pdu: int = 16384) -> bytes:
    """An A-ASSOCIATE-RQ: CT image storage in context 1, verification in 3, both in Explicit VR Little Endian."""
    primitive, length, implementation = A_ASSOCIATE(), MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = max_pdu
    implementation.implementation_class_uid = "1.2.3"
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    contexts = [build_context(CT, ExplicitVRLittleEndian), build_context(VERIFICATION, ExplicitVRLittleEndian)]
    for number, context in zip((STORE_CONTEXT, ECHO_CONTEXT), contexts):
        context.context_id = number
    primitive.presentation_context_definition_list = contexts
    primitive.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return pdu.encode()


def command(elements: dict[int, bytes]) -> bytes:
    """A command set with its group length."""
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in sorted(elements.items()))
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def store_command(sop_uid: str, message_id: int = 1, sop_class: str = CT, data_set: int = 0) -> bytes:
    """C-STORE-RQ."""
    return command({0x0002: padded(sop_class), 0x0100: b"\x01\x00", 0x0110: struct.pack("<H", message_id), 0x0700: b"\x00\x00",
                    0x0800: struct.pack("<H", data_set), 0x1000: padded(sop_uid)})


def echo_command(message_id: int = 1) -> bytes:
    """C-ECHO-RQ."""
    return command({0x0002: padded(VERIFICATION), 0x0100: b"\x30\x00", 0x0110: struct.pack("<H", message_id), 0x0800: b"\x01\x01"})


def padded(uid: str) -> bytes:
    value = uid.encode("ascii")
    return value + b"\0" * (len(value) % 2)


def pdv(context: int, data: bytes, is_command: bool, last: bool) -> bytes:
    return struct.pack(">LBB", len(data) + 2, context, int(is_command) | 2 * int(last)) + data


def data_pdu(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BBL", 4, 0, len(body)) + body


def message(context: int, command_set: bytes, data: bytes | None = None, size: int = 16000) -> bytes:
    """Command and data set as P-DATA-TFs of one PDV each, `size` bytes of data in each."""
    out = data_pdu(pdv(context, command_set, True, True))
    if data is not None:
        for at in range(0, max(len(data), 1), size):
            out += data_pdu(pdv(context, data[at:at + size], False, at + size >= len(data)))
    return out


class RawPeer:
    """One connection; closed with its context. `source` is the address that it comes from."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = tls.wrap_socket(sock) if tls else sock

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes, pieces: Iterable[int] | None = None, pause: float = 0) -> None:
        """All of `data`, cut at the offsets `pieces` into writes of their own."""
        cuts = [0, *(pieces or ()), len(data)]
        for a, b in itertools.pairwise(cuts):
            self.sock.sendall(data[a:b])
            if pause:
                time.sleep(pause)

    def pdu(self) -> bytes:
        """The next whole PDU; b"" at the end of the stream."""
        head = self._exactly(6)
        return head + self._exactly(int.from_bytes(head[2:], "big")) if len(head) == 6 else b""

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.sock.recv(count - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                break
            data += piece
        return data

    def associate(self, **more: object) -> bytes:
        """Requests an association; the answer."""
        self.send(request(**more))
        return self.pdu()

    def status(self) -> int:
        """Status of the next response."""
        answer = self.pdu()
        if answer[:1] != b"\x04":
            raise AssertionError(f"no response but {answer!r}")
        at = answer.index(b"\x00\x00\x00\x09\x02\x00\x00\x00")
        return int.from_bytes(answer[at + 8:at + 10], "little")

    def store(self, data: bytes, sop_uid: str, message_id: int = 1) -> int:
        """Sends an instance; the status of the answer."""
        self.send(message(STORE_CONTEXT, store_command(sop_uid, message_id), data))
        return self.status()

    def echo(self) -> int:
        self.send(message(ECHO_CONTEXT, echo_command()))
        return self.status()

    def release(self) -> bytes:
        self.send(RELEASE)
        return self.pdu()
