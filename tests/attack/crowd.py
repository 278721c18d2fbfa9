"""`python -m tests.attack.crowd NAME PORT TLS`: a process full of hostile peers, so that they take no time from the honest one.

It attacks until a line comes on its standard input, then makes no new attempts, says how many there were, and keeps what it has open.
At the next line it says when its last connection was made (an attempt in progress ends first), and ends.
"""

from __future__ import annotations

import os
import random
import resource
import ssl
import sys
import threading
import time
from itertools import count

from tests.attack.peers import ATTACKS, Attack, Caller


def attack_of(name: str) -> Attack:
    return next(a for a in ATTACKS if a.name == name)


def addresses(attack: Attack) -> list[str]:
    """Loopback addresses, none of which is the honest one's."""
    return [f"127.0.{3 + k // 250}.{1 + k % 250}" for k in range(attack.sources)]


def keep_going(attack: Attack, caller: Caller, numbers: count[int], most: int) -> None:
    """Attempt after attempt; one that is refused is an attempt too."""
    while caller.going.is_set():
        if next(numbers) >= most:
            time.sleep(0.1)
            continue
        try:
            attack.do(caller)
        except OSError:
            time.sleep(0.002)  # closed over the limit: a little rest, or this process only fights with itself


def main() -> None:
    name, port, tls = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "tls"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20_000)), hard))
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    attack = attack_of(name)
    numbers, most = count(), attack.attempts or sys.maxsize
    callers = [Caller(port, random.Random(k).sample(addresses(attack), attack.sources), context, k) for k in range(attack.peers)]
    threading.stack_size(256 * 1024)
    for caller in callers:
        threading.Thread(target=keep_going, args=(attack, caller, numbers, most), daemon=True).start()
    print("begun", flush=True)
    sys.stdin.readline()
    for caller in callers:
        caller.going.clear()
    print(min(next(numbers), most), flush=True)
    sys.stdin.readline()
    print(max(caller.last for caller in callers), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
