"""Places and words of hostile peers are counted: who loses a connection when there are too many, and what is told how often."""

from __future__ import annotations

import socket

from node.receive import repeats
from node.receive.limits import ADDRESSES, SPARE_CONNECTIONS
from node.receive.listener import Connections, has_gone
from node.receive.repeats import Repeats


def is_open(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True


def test_the_longest_waiting_of_the_greediest_makes_room() -> None:
    connections, pairs = Connections(4), {}

    def enter(host: str, port: int) -> bool:
        pairs[host, port] = ours, _ = socket.socketpair()
        return connections.enter((host, port), ours)

    hosts = [f"10.0.0.{k}" for k in range(ADDRESSES)]
    for host in hosts[:-1]:
        assert all(enter(host, k) for k in range(SPARE_CONNECTIONS))
        assert not enter(host, 99), "this host has its share"
    assert all(enter(hosts[-1], k) for k in range(SPARE_CONNECTIONS - 1)) and enter("10.0.1.1", 1)
    assert all(is_open(theirs) for key, (_, theirs) in pairs.items() if key[1] != 99)
    assert enter("10.0.1.2", 1), "honest, and the first of its host"
    closed = [key for key, (_, theirs) in pairs.items() if key[1] != 99 and not is_open(theirs)]
    assert closed == [(hosts[0], 0)]
    connections.associated(("10.0.1.2", 1))
    assert enter("10.0.1.3", 1) and is_open(pairs["10.0.1.2", 1][1])
    before = len(connections)
    connections.leave((hosts[0], 0))
    connections.leave((hosts[0], 0))
    assert len(connections) == before - 1 and enter(hosts[0], 0), "its place was counted once"
    for pair in pairs.values():
        for sock in pair:
            sock.close()
    assert enter("10.0.2.1", 1), "sockets that are closed already"


def test_a_connection_that_parts_waits_again() -> None:
    connections, (one, two) = Connections(4), socket.socketpair()
    with one, two:
        for k in range(3 * SPARE_CONNECTIONS):
            assert connections.enter(("h", k), one)
            connections.associated(("h", k))
        assert [connections.parting(("h", k)) for k in range(SPARE_CONNECTIONS + 1)] == [True] * SPARE_CONNECTIONS + [False]
        assert connections.parting(("h", 0)), "may be said twice"
        for k in range(3 * SPARE_CONNECTIONS):
            connections.leave(("h", k))
        assert len(connections) == 0 and connections.enter(("h", 0), one)


def test_repeats_are_counted_not_told() -> None:
    told = Repeats()
    assert told.note("a", "x", 0) == 0
    assert [told.note("a", "x", k) for k in range(1, 50)] == [None] * 49
    assert told.note("a", "y", 50) == 0 and told.note("b", "x", 50) == 0
    assert told.note("a", "x", 0 + repeats.QUIET_SECONDS) == 49


def test_nobody_is_told_of_without_end() -> None:
    told = Repeats()
    lines = sum(told.note("a", f"title {k}", k * 0.001) is not None for k in range(10_000))
    assert lines == repeats.PER_PEER + 1
    assert told.note("b", "x", 11) == 0, "another peer is heard"
    many = Repeats()
    lines = sum(many.note(f"10.{k // 250}.0.{k % 250}", "x", 1.0) is not None for k in range(20_000))
    assert lines == repeats.MOST + 1 and len(many._seen) <= repeats.MOST + 1
    assert many.note("late", "x", 2 * repeats.QUIET_SECONDS) == 0, "what is long ago is forgotten"


def test_a_peer_that_has_gone_is_seen_without_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        def pair() -> tuple[socket.socket, socket.socket]:
            theirs = socket.create_connection(server.getsockname())
            return server.accept()[0], theirs

        ours, theirs = pair()
        assert not has_gone(ours)
        theirs.sendall(b"x")
        assert not has_gone(ours) and ours.recv(2) == b"x", "nothing is taken away"
        theirs.close()
        ours.settimeout(5)
        assert has_gone(ours)
        ours.close()
        assert has_gone(ours)
