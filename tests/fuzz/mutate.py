"""A plain mutator with a seed, for where atheris is not installed and for the few seconds of the normal test run (pure)."""

from __future__ import annotations

import random
from collections.abc import Sequence

NUMBERS = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x00\x00", b"\xff\xff", b"\x00\x01", b"\x01\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff",
           b"\x00\x00\x00\x00", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"SQ", b"UN", b"UI", b"\\", b"\0")
MAX_BYTES = 1 << 16


def mutated(seeds: Sequence[bytes], dice: random.Random) -> bytes:
    """One of `seeds` after one to five changes."""
    data = bytearray(dice.choice(seeds))
    for _ in range(dice.randint(1, 5)):
        at, kind = dice.randrange(len(data) + 1), dice.randrange(7)
        size = dice.choice((1, 2, 4, 8, 64))
        if kind == 0 and at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            word = dice.choice(NUMBERS)
            data[at:at + len(word)] = word
        elif kind == 2:
            data[at:at] = dice.choice(NUMBERS)
        elif kind == 3:
            del data[at:at + size]
        elif kind == 4:
            data[at:at] = data[at:at + size] * dice.choice((1, 2, 50))
        elif kind == 5:
            other = dice.choice(seeds)
            data[at:] = other[dice.randrange(len(other) + 1):]
        else:
            data[at:at + size] = dice.randbytes(size)
    return bytes(data[:MAX_BYTES])
