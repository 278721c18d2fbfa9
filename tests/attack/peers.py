"""Hostile peers, one function each: one attempt, which returns when the receiver has ended it. Nothing here is polite."""

from __future__ import annotations

import itertools
import os
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.raw_peer import ECHO_CONTEXT, RELEASE, STORE_CONTEXT, data_pdu, echo_command, message, pdv, request, store_command

_TCP_REPAIR = 19
"""Linux: a socket that is closed in this state says nothing to its peer, as if its host had lost power."""
RECORD, CLIENT_HELLO = 0x16, 1


class Caller:
    """What an attack is given: connections to the receiver from `sources` in turn, over TLS with `tls`; `going` until no new ones are wanted."""

    def __init__(self, port: int, sources: list[str], tls: ssl.SSLContext | None, seed: int) -> None:
        self.port, self._sources, self._tls = port, sources, tls
        self.dice = random.Random(seed)
        self.going = threading.Event()
        self.going.set()
        self.last = 0.0
        """When it last had a new connection or association, seconds, monotonic."""

    def connect(self, secure: bool = True) -> socket.socket:
        """A connection, after its TLS handshake where there is TLS and `secure`; OSError when there is none to be had."""
        sock = socket.socket()
        try:
            sock.settimeout(20)
            sock.bind((self.dice.choice(self._sources), 0))
            sock.connect(("127.0.0.1", self.port))
            if self._tls is not None and secure:
                sock = self._tls.wrap_socket(sock)
            self.last = time.monotonic()
            return sock
        except BaseException:
            sock.close()
            raise

    def associated(self) -> socket.socket:
        """A connection with an accepted association; OSError where it was refused."""
        sock = self.connect()
        try:
            sock.sendall(request())
            answer = whole_pdu(sock)
            if answer[:1] != b"\x02":
                raise ConnectionRefusedError("not accepted")
            self.last = time.monotonic()
            return sock
        except BaseException:
            sock.close()
            raise


def whole_pdu(sock: socket.socket) -> bytes:
    data = b""
    while len(data) < 6 or len(data) < 6 + int.from_bytes(data[2:6], "big"):
        piece = sock.recv(4096)
        if not piece:
            break
        data += piece
    return data


def until_closed(sock: socket.socket) -> None:
    """Listens, says nothing, hangs up only when the receiver has."""
    sock.settimeout(None)
    while sock.recv(65536):
        pass


def drip(sock: socket.socket, data: bytes, every: float = 1.0) -> None:
    """A byte each second until the receiver has enough of it."""
    sock.settimeout(every)
    for k in range(len(data)):
        sock.sendall(data[k:k + 1])
        try:
            if not sock.recv(65536):
                return
        except TimeoutError:
            pass
    until_closed(sock)


def pour(sock: socket.socket, block: bytes) -> None:
    """The same block again and again, as fast as it is taken."""
    while True:
        sock.sendall(block)


def nothing(caller: Caller) -> None:
    """No attack, to compare with: what the machine does by itself."""
    time.sleep(0.1)


def silent(caller: Caller) -> None:
    """Connects and says nothing, not even a TLS record."""
    with caller.connect(secure=False) as sock:
        until_closed(sock)


def three_bytes(caller: Caller) -> None:
    """Half a PDU header."""
    with caller.connect() as sock:
        sock.sendall(request()[:3])
        until_closed(sock)


def half_request(caller: Caller) -> None:
    """Half an A-ASSOCIATE-RQ."""
    with caller.connect() as sock:
        data = request()
        sock.sendall(data[:len(data) // 2])
        until_closed(sock)


def half_closed(caller: Caller) -> None:
    """An association whose peer has closed its direction and keeps the other."""
    with caller.associated() as sock:
        socket.socket.shutdown(sock, socket.SHUT_WR)
        until_closed(sock)


def half_open(caller: Caller) -> None:
    """A peer that vanishes without a word after a part of its object, as a host that loses power does."""
    sock = caller.associated()
    sock.sendall(message(STORE_CONTEXT, store_command("1.2.3"), bytes(16384))[:9000])
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    except PermissionError:  # only root may; then it is a silent one
        until_closed(sock)
    sock.close()
    time.sleep(0.2)


def drip_request(caller: Caller) -> None:
    """An A-ASSOCIATE-RQ, a byte each second."""
    with caller.connect() as sock:
        drip(sock, request())


def drip_header(caller: Caller) -> None:
    """An association, then the header of a large P-DATA-TF and of its PDV, a byte each second."""
    with caller.associated() as sock:
        drip(sock, struct.pack(">BBLLBB", 4, 0, 131072, 131068, STORE_CONTEXT, 3))


def drip_data(caller: Caller) -> None:
    """A C-STORE request, then its data set, a byte each second."""
    with caller.associated() as sock:
        sock.sendall(message(STORE_CONTEXT, store_command("1.2.3")))
        drip(sock, data_pdu(pdv(STORE_CONTEXT, bytes(100_000), False, True)))


def four_gigabytes(caller: Caller) -> None:
    """An A-ASSOCIATE-RQ that claims 4 GiB, with as much of it as is taken."""
    with caller.connect() as sock:
        sock.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFFF))
        pour(sock, bytes(65536))


def four_gigabytes_of_data(caller: Caller) -> None:
    """A P-DATA-TF that claims 4 GiB."""
    with caller.associated() as sock:
        sock.sendall(struct.pack(">BBLLBB", 4, 0, 0xFFFFFFFF, 0xFFFFFFF0, STORE_CONTEXT, 0))
        pour(sock, bytes(65536))


def fragment_beyond(caller: Caller) -> None:
    """A PDV longer than its PDU, or shorter than its own header."""
    with caller.associated() as sock:
        length = caller.dice.choice((0, 1, 0xFFFFFFFF, 0x80000000, 2000))
        sock.sendall(struct.pack(">BBLLBB", 4, 0, 1000, length, STORE_CONTEXT, 3) + bytes(994))
        until_closed(sock)


def lying_items(caller: Caller) -> None:
    """An A-ASSOCIATE-RQ some of whose item lengths lie."""
    data = bytearray(request())
    for _ in range(caller.dice.randint(1, 3)):
        at = caller.dice.randrange(74, len(data) - 2)
        data[at:at + 2] = struct.pack(">H", caller.dice.choice((0, 1, 0xFFFF, 0x7FFF, caller.dice.randrange(65536))))
    with caller.connect() as sock:
        sock.sendall(data)
        sock.settimeout(2)
        try:
            while sock.recv(65536):
                pass
        except TimeoutError:
            pass  # it was taken for a request after all


def many_items(caller: Caller) -> None:
    """An A-ASSOCIATE-RQ of almost 1 MiB made of the smallest items."""
    head = request()[6:74]
    kind = caller.dice.choice((0x10, 0x20, 0x50))
    one = {0x10: struct.pack(">BBH", 0x10, 0, 0), 0x20: struct.pack(">BBHBBBBBBHBBH", 0x20, 0, 12, 1, 0, 0, 0, 0x30, 0, 0, 0x40, 0, 0),
           0x50: struct.pack(">BBH", 0x50, 0, 65532) + struct.pack(">BBH", 0x56, 0, 0) * 16383}[kind]
    body = head + one * ((2**20 - 200) // len(one))
    with caller.connect() as sock:
        sock.sendall(struct.pack(">BBL", 1, 0, len(body)) + body)
        until_closed(sock)


def no_release(caller: Caller) -> None:
    """An association that is used once and then kept."""
    with caller.associated() as sock:
        sock.sendall(message(ECHO_CONTEXT, echo_command()))
        until_closed(sock)


def no_close(caller: Caller) -> None:
    """Associations that are released at once, on connections that stay."""
    with caller.associated() as sock:
        sock.sendall(RELEASE)
        until_closed(sock)


def no_reader(caller: Caller) -> None:
    """Requests without end, of a peer that never reads what is answered."""
    with caller.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.sendall(request())
        pour(sock, message(ECHO_CONTEXT, echo_command()) * 100)


def empty_fragments(caller: Caller) -> None:
    """A command set of fragments without bytes, for ever."""
    with caller.associated() as sock:
        pour(sock, data_pdu(*[pdv(STORE_CONTEXT, b"", True, False)] * 2000))


def endless_object(caller: Caller) -> None:
    """A data set that never ends."""
    with caller.associated() as sock:
        sock.sendall(message(STORE_CONTEXT, store_command("1.2.3")))
        pour(sock, data_pdu(pdv(STORE_CONTEXT, bytes(16000), False, False)))


def strangers(caller: Caller) -> None:
    """Requests under another calling AE title each time; the answer is not waited for politely."""
    with caller.connect() as sock:
        sock.sendall(request(calling=f"X{caller.dice.randrange(10**9)}"))
        until_closed(sock)


def port_check(caller: Caller) -> None:
    """Connects and closes, as fast as possible; with a reset once many wait to be forgotten, or its own machine has no port left for it."""
    with caller.connect(secure=False) as sock:
        if next(CHECKS) >= POLITE_CHECKS:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hold(caller: Caller) -> None:
    """A connection that is opened and kept, whether or not it is closed over there; many make a crowd."""
    sock = caller.connect(secure=False)
    HELD.append(sock)


HELD: list[socket.socket] = []
CHECKS, POLITE_CHECKS = itertools.count(), 8000


def garbage(caller: Caller) -> None:
    """Random bytes."""
    with caller.connect(secure=False) as sock:
        sock.sendall(os.urandom(caller.dice.randint(1, 4000)))
        until_closed(sock)


def plain_dicom(caller: Caller) -> None:
    """An association request without TLS where TLS is spoken."""
    with caller.connect(secure=False) as sock:
        sock.sendall(request())
        until_closed(sock)


def hello() -> bytes:
    """The ClientHello record of a usual client."""
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    try:
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def half_hello(caller: Caller) -> None:
    """Half a ClientHello."""
    with caller.connect(secure=False) as sock:
        data = hello()
        sock.sendall(data[:len(data) // 2])
        until_closed(sock)


def half_handshake(caller: Caller) -> None:
    """A ClientHello, and nothing in reply to the answer."""
    with caller.connect(secure=False) as sock:
        sock.sendall(hello())
        until_closed(sock)


def drip_hello(caller: Caller) -> None:
    """A ClientHello, a byte each second."""
    with caller.connect(secure=False) as sock:
        drip(sock, hello())


def huge_hello(caller: Caller) -> None:
    """A ClientHello that claims 16 MiB, in records as large as they may be."""
    with caller.connect(secure=False) as sock:
        first = struct.pack(">B", CLIENT_HELLO) + b"\xff\xff\xff" + b"\x03\x03" + bytes(16378)
        for body in (first, *[bytes(16384)] * 1024):
            sock.sendall(struct.pack(">BHH", RECORD, 0x0301, len(body)) + body)
        until_closed(sock)


def handshakes(caller: Caller) -> None:
    """Whole TLS handshakes, one after the other, for the work that they are."""
    caller.connect().close()


@dataclass(frozen=True)
class Attack:
    """peers: how many at once; timeout: the key of `receive` that bounds one; sources: addresses that they come from."""

    do: Callable[[Caller], None]
    timeout: str = "acse_timeout"
    peers: int = 40
    sources: int = 1
    tls: str = "no"
    """no, yes (only over TLS), both."""
    attempts: int | None = None

    @property
    def name(self) -> str:
        return self.do.__name__.replace("_", "-") + ("" if self.sources == 1 else f"-{self.sources}-addresses")

    @property
    def what(self) -> str:
        return (self.do.__doc__ or "").split("\n")[0]


ATTACKS = (
    Attack(nothing, tls="both", peers=1),
    Attack(silent, tls="both"), Attack(silent, sources=40, peers=200), Attack(three_bytes, tls="both"), Attack(half_request),
    Attack(half_closed), Attack(half_open, "dimse_timeout"), Attack(drip_request, tls="both"), Attack(drip_header, "dimse_timeout"),
    Attack(drip_data, "dimse_timeout", tls="both"), Attack(four_gigabytes, tls="both"), Attack(four_gigabytes_of_data), Attack(fragment_beyond),
    Attack(lying_items), Attack(many_items), Attack(no_release, "network_timeout", tls="both"), Attack(no_close),
    Attack(no_reader, "network_timeout", tls="both"), Attack(empty_fragments, "dimse_timeout"), Attack(endless_object, "dimse_timeout"),
    Attack(strangers), Attack(port_check, peers=4, tls="both"), Attack(hold, peers=4, attempts=10_000),
    Attack(hold, peers=4, attempts=10_000, sources=250), Attack(garbage, tls="both"), Attack(plain_dicom, tls="yes"),
    Attack(half_hello, tls="yes"), Attack(half_handshake, tls="yes"), Attack(half_handshake, sources=40, peers=200, tls="yes"),
    Attack(drip_hello, tls="yes"), Attack(huge_hello, tls="yes"), Attack(handshakes, peers=8, tls="yes"))
