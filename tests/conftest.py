"""For every test: a program called by name is the peer's own. pynetdicom installs a `storescu` and a `storescp` beside our interpreter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

OURS = Path(sys.executable).parent
os.environ["PATH"] = os.pathsep.join(folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(folder) != OURS)
