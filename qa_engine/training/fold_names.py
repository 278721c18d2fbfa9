"""What the folds are called: said once for training, benchmarks and the command line, which asks without loading torch."""

from __future__ import annotations

SPLITS = {"subject": 4, "source": 3}
"""Split -> number of folds: by subject, and with whole sources left out."""
FOLDS = tuple(f"{split}-{k}" for split, count in SPLITS.items() for k in range(count))
"""subject-0 to subject-3, source-0 to source-2."""
