"""Prompts from DICOM tags: dimension, modality, region, type; each with `unknown` (None), so that a missing tag is no guess."""

from __future__ import annotations

from dataclasses import dataclass

DIMENSIONS = ("2d", "3d")
MODALITIES = ("ct", "mr")
REGIONS = ("head", "neck", "chest", "abdomen", "pelvis", "spine", "extremity", "breast", "heart", "whole-body")
TYPES = ("soft tissue", "lung", "bone", "t1", "t2", "pd", "flair", "dwi")
TABLES = (DIMENSIONS, MODALITIES, REGIONS, TYPES)
SIZES = tuple(len(words) + 1 for words in TABLES)
"""Rows of the four prompt tables of the network; row 0 is unknown."""


@dataclass(frozen=True)
class Prompts:
    """Lower-case words of the tables above, None = unknown."""

    dimension: str | None = None
    modality: str | None = None
    region: str | None = None
    type: str | None = None

    def indices(self) -> tuple[int, int, int, int]:
        """Rows of the prompt tables; words outside a table are unknown."""
        words = (self.dimension, self.modality, self.region, self.type)
        found = [table.index(word) + 1 if word in table else 0 for table, word in zip(TABLES, words, strict=True)]
        return found[0], found[1], found[2], found[3]


def mr_type(sequence_text: str, echo_time_ms: float | None = None, repetition_time_ms: float | None = None,
            inversion_time_ms: float | None = None) -> str | None:
    """t1, t2, pd, flair or dwi from series words first, then from TE, TR, TI (ms); None when neither tells."""
    text = sequence_text.lower()
    for word, kind in (("flair", "flair"), ("dwi", "dwi"), ("diff", "dwi"), ("t2", "t2"), ("t1", "t1"), ("mprage", "t1"), ("bravo", "t1"),
                       ("spgr", "t1"), ("pd", "pd"), ("proton", "pd")):
        if word in text:
            return kind
    te, tr, ti = echo_time_ms, repetition_time_ms, inversion_time_ms
    if te is None or tr is None:
        return None
    if ti is not None and ti > 1500 and te > 60:
        return "flair"
    if te > 60:
        return "t2"
    if te < 40 and tr < 1000:
        return "t1"
    return "pd" if te < 40 and tr > 1800 else None
