"""Everything that talks: receive, complete, report, deliver, command line (DESIGN section 3)."""

import os

# Before torch is loaded: its threads sleep while they wait. Spinning ones make a series take three times as long on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"
