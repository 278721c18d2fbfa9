"""A receiver made of bytes: it accepts and answers as a test wants, and keeps what it was sent PDU by PDU."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import PresentationContext

from tests.support.raw_peer import command, data_pdu, padded, pdv


@dataclass
class Message:
    """A C-STORE or C-ECHO request as it came. `pdus`: length of each P-DATA-TF behind its header."""

    context: int
    elements: dict[int, bytes]
    data: bytes = b""
    pdus: list[int] = field(default_factory=list)

    @property
    def sop_uid(self) -> str:
        return self.elements[0x1000].rstrip(b"\0").decode()

    def response(self, status: int = 0, message_id: int | None = None, sop_uid: str | None = None, comment: bytes = b"") -> bytes:
        """The P-DATA-TF that answers, with what a test wants to be different."""
        number = self.elements[0x0110] if message_id is None else struct.pack("<H", message_id)
        values = {0x0002: self.elements[0x0002], 0x0100: struct.pack("<H", int.from_bytes(self.elements[0x0100], "little") | 0x8000),
                  0x0120: number, 0x0800: b"\x01\x01", 0x0900: struct.pack("<H", status)}
        if comment:
            values[0x0902] = comment
        if 0x1000 in self.elements:
            values[0x1000] = self.elements[0x1000] if sop_uid is None else padded(sop_uid)
        return data_pdu(pdv(self.context, command(values), True, True))


class Accepted:
    """One connection, on the acceptor's side."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.proposed: list[tuple[int, str, list[str]]] = []

    def pdu(self) -> bytes:
        """The next whole PDU; b"" at the end."""
        head = self._exactly(6)
        return head + self._exactly(int.from_bytes(head[2:], "big")) if len(head) == 6 else b""

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count and (piece := self.sock.recv(count - len(data))):
            data += piece
        return bytes(data)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def accept(self, max_pdu: int = 16384, refused: Sequence[str] = (), takes: Callable[[list[str]], str] = lambda syntaxes: syntaxes[0]) -> bytes:
        """Reads the request and accepts every context but those of `refused`; the answer that was sent."""
        self.send(answer := self.answer(max_pdu, refused, takes))
        return answer

    def answer(self, max_pdu: int = 16384, refused: Sequence[str] = (), takes: Callable[[list[str]], str] = lambda syntaxes: syntaxes[0]) -> bytes:
        """Reads the request; the A-ASSOCIATE-AC that the library makes for it."""
        request = A_ASSOCIATE_RQ()
        request.decode(self.pdu())
        primitive = request.to_primitive()
        answer, length, implementation = A_ASSOCIATE(), MaximumLengthNotification(), ImplementationClassUIDNotification()
        length.maximum_length_received, implementation.implementation_class_uid = max_pdu, "1.2.3"
        answer.application_context_name = "1.2.840.10008.3.1.1.1"
        answer.calling_ae_title, answer.called_ae_title = primitive.calling_ae_title, primitive.called_ae_title
        answer.result, answer.result_source = 0, 1
        results = []
        for context in primitive.presentation_context_definition_list:
            syntaxes = [str(uid) for uid in context.transfer_syntax]
            self.proposed.append((context.context_id, str(context.abstract_syntax), syntaxes))
            result = PresentationContext()
            result.context_id, result.abstract_syntax, result.transfer_syntax = context.context_id, context.abstract_syntax, [takes(syntaxes)]
            result.result = 3 if str(context.abstract_syntax) in refused else 0
            results.append(result)
        answer.presentation_context_definition_results_list, answer.user_information = results, [length, implementation]
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(answer)
        return pdu.encode()

    def message(self) -> Message | None:
        """The next request with its data set; None at the end of the association, which is answered if it is a release."""
        parts: dict[bool, bytearray] = {True: bytearray(), False: bytearray()}
        pdus: list[int] = []
        context, done, wanted = 0, {True: False, False: True}, True
        while not (done[True] and done[False]):
            pdu = self.pdu()
            if pdu[:1] == b"\x05":
                self.send(b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00")
            if pdu[:1] != b"\x04":
                return None
            pdus.append(len(pdu) - 6)
            at = 6
            while at < len(pdu):
                length, context, flags = struct.unpack_from(">LBB", pdu, at)
                is_command = bool(flags & 1)
                assert is_command == wanted, "command and data set are mixed"
                parts[is_command] += pdu[at + 6:at + 4 + length]
                at += 4 + length
                if flags & 2:
                    done[is_command] = True
                    if is_command and _elements(parts[True])[0x0800] != b"\x01\x01":
                        done[False], wanted = False, False
        return Message(context, _elements(parts[True]), bytes(parts[False]), pdus)


def _elements(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(data):
        _, element, length = struct.unpack_from("<HHL", data, at)
        found[element] = bytes(data[at + 8:at + 8 + length])
        at += 8 + length
    return found


class RawAcceptor:
    """Context manager: each connection is served by the next of `scripts`, the last of them by default. `problems` of the scripts are raised."""

    def __init__(self, *scripts: Callable[[Accepted], Any], receive_buffer: int | None = None) -> None:
        self._scripts, self.problems, self.kept = list(scripts), [], []
        self._server = socket.socket()
        if receive_buffer:
            self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._server.bind(("127.0.0.1", 0))
        self._server.listen(5)
        self.port = self._server.getsockname()[1]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> RawAcceptor:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self._server.close()
        deadline = time.monotonic() + 20
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        if kind is None and self.problems:
            raise self.problems[0]

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                sock.settimeout(20)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                self._threads.append(threading.Thread(target=self._one, args=(sock, script), daemon=True))
                self._threads[-1].start()

    def _one(self, sock: socket.socket, script: Callable[[Accepted], Any]) -> None:
        with sock:
            try:
                script(Accepted(sock))
            except (ConnectionError, TimeoutError):
                pass  # the other side has had enough
            except BaseException as problem:
                self.problems.append(problem)
