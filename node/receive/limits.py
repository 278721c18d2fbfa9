"""Bounds on what a peer may cost, the same for both receive paths and for sending (constants; PS3.8 9.3 gives no upper limits of its own)."""

from __future__ import annotations

MAX_ASSOCIATE = 2**20
"""Bytes of an A-ASSOCIATE-RQ; 128 contexts with all transfer syntaxes need less than half."""
MAX_ITEMS, MAX_SYNTAXES, MAX_USER_ITEMS = 160, 128, 1024
"""Variable items of an A-ASSOCIATE-RQ (128 presentation contexts and a few more), items of a context, and items of the user information."""
PDU_TOLERANCE = 16384
"""Bytes by which a P-DATA-TF may exceed what we announced; some senders do not count the header."""
MAX_COMMAND = 65536
"""Bytes of a command set (PS3.7 annex E needs a few hundred)."""
MAX_UID = 64
"""PS3.5 9.1; longer ones are refused, other malformed ones are kept as they came."""
FREE_FRAGMENTS, LEAST_FRAGMENT = 4096, 256
"""A message may come in so many fragments of any size; further ones hold so many bytes on average, or they are a way to keep us busy."""
HANDSHAKE_SECONDS = 10.0
"""For a TLS handshake, and for a PDU besides its bytes."""
LAST_WORDS_SECONDS, CLOSE_SECONDS, LINGER_SECONDS = 0.3, 0.7, 1.0
"""In which the peer takes our last PDU, closes by itself after it, and closes after we have; together below two seconds."""
LINGER_BYTES = 2**20
"""Bytes that are read and dropped meanwhile."""
ENDLESS = 2
"""So many times receive.max_object_mb a message may have on the line, of which all behind the first is dropped; one without end is aborted."""
LEAST_RATE = 1024.0
"""Bytes per second that a PDU must make, besides its HANDSHAKE_SECONDS, and a data set, besides receive.dimse_timeout."""
SPARE_CONNECTIONS = 32
"""Connections of one address that may wait for their association request or their end, where max_associations is not more."""
ADDRESSES = 4
"""So many addresses may have all their waiting connections at once; then the newest takes the place of the one that has waited longest."""
BACKLOG = 1024
SEND_BUFFER = 65536
"""Bytes of answers that the system holds for a peer; each is a few hundred."""
SPACE_EVERY = 2**20
"""Bytes between two looks at the free space while an object arrives; so much must be free above the reserve."""
