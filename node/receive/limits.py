"""Bounds on what a peer may cost, the same for both receive paths (constants; PS3.8 9.3 gives no upper limits of its own)."""

from __future__ import annotations

MAX_ASSOCIATE = 2**20
"""Bytes of an A-ASSOCIATE-RQ; 128 contexts with all transfer syntaxes need less than half."""
PDU_TOLERANCE = 16384
"""Bytes by which a P-DATA-TF may exceed what we announced; some senders do not count the header."""
MAX_COMMAND = 65536
"""Bytes of a command set (PS3.7 annex E needs a few hundred)."""
HANDSHAKE_SECONDS = 10.0
"""For a TLS handshake, for a PDU besides its bytes, and for the peer to close after the last PDU."""
CLOSE_SECONDS = 1.0
"""In which the peer closes by itself after the last PDU."""
LEAST_RATE = 1024.0
"""Bytes per second that a PDU must make, besides its HANDSHAKE_SECONDS, and a data set, besides receive.dimse_timeout."""
SPARE_CONNECTIONS = 32
"""Connections of one address that may wait for their association request, where max_associations is not more."""
ADDRESSES = 4
"""So many addresses may have all their waiting connections at once."""
BACKLOG = 128
SPACE_EVERY = 2**20
"""Bytes between two looks at the free space while an object arrives; so much must be free above the reserve."""
