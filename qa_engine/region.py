"""Region of a slice from its pixels, checked against the tags (DESIGN section 6).

A small logistic regression on `body.region_features`, fitted by `qa_engine.training.fit_region` on shippable subjects; its coefficients are
shipped, no image is. Tags are evidence: the words that they hold are likelier, never certain.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from qa_engine.body import Body, region_features
from qa_engine.prompts import REGIONS

WEIGHTS = Path(__file__).with_name("weights") / "region.safetensors"
TAG_EVIDENCE = 8.0
"""Added to the log odds of regions that the tags name."""
SURE = 0.9
"""Pixels contradict the tags when they give another region at least this probability."""
_WORDS = (
    ("head", r"\b(head|brain|skull|cranium|neuro|schaedel|kopf|cerebr\w*|orbit\w*|sinus\w*|hirn|hypophys\w*|pituitary)\b"),
    ("neck", r"\b(neck|cervic\w* soft|hals|larynx|thyroid)\b"), ("chest", r"\b(chest|thorax|lung|lungs|ch|torax|pulm\w*)\b"),
    ("abdomen", r"\b(abdomen|abd|ab|liver|kidney|pancreas|leber|abdominal|abdo)\b"),
    ("pelvis", r"\b(pelvis|pel|prostat\w*|becken|bladder|rectum|uterus|pelv\w*)\b"),
    ("spine", r"\b(spine|[ctl]spine|lumbar|cervical|thoracic spine|cspine|lspine|tspine|wirbels\w*|sacrum)\b"),
    ("extremity", r"\b(extremity|knee|hip|wrist|hand|ankle|foot|elbow|shoulder|thigh|femur|leg|arm|knie|hueft\w*|finger|tibia)\b"),
    ("breast", r"\b(breast|mamma|mammo)\b"), ("heart", r"\b(heart|cardiac|coronar\w*|cardio)\b"),
    ("whole-body", r"\b(whole.?body|wholebody|ganzkoerper)\b"),
)


@dataclass(frozen=True)
class RegionFound:
    """words: region of each slice; tags: regions that the header names; contradicted: the pixels are sure of another region; seen: region of
    each slice by the pixels alone."""

    words: tuple[str | None, ...]
    tags: tuple[str, ...]
    contradicted: bool
    seen: tuple[str | None, ...] = ()

    @property
    def text(self) -> str | None:
        """The words, most frequent first, separated by spaces; None when no slice has one."""
        counts = Counter(w for w in self.words if w)
        return " ".join(w for w, _ in counts.most_common()) or None


def regions_of_tags(hints: Mapping[str, str]) -> tuple[str, ...]:
    """Regions named by Body Part Examined and the coded anatomy, else by the descriptions."""
    for names in (("BodyPartExamined", "AnatomicRegion"), ("SeriesDescription", "ProtocolName"),
                  ("StudyDescription", "RequestedProcedureDescription")):
        joined = re.sub(r"[^a-z0-9]+", " ", " ".join(hints.get(n, "") for n in names).lower())
        found = tuple(region for region, pattern in _WORDS if re.search(pattern, joined))
        if found:
            return found
    return ()


@cache
def _weights(path: Path) -> dict[str, np.ndarray]:
    return load_file(path)


def log_odds(features: np.ndarray, modality: str, path: Path = WEIGHTS) -> np.ndarray:
    """(N, features) -> (N, len(REGIONS)) log probabilities by the pixels; regions that were never seen are very unlikely."""
    w = _weights(path)
    kind = modality.lower()
    scaled = (features - w[f"{kind}.mean"]) / w[f"{kind}.std"]
    scores = scaled.clip(-5, 5) @ w[f"{kind}.weight"].T + w[f"{kind}.bias"]
    return scores - np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1, keepdims=True)) - scores.max(1, keepdims=True)


def estimate_regions(bodies: Sequence[Body | None], modality: str, hints: Mapping[str, str]) -> RegionFound:
    """Region of each of the salient slices from the bodies in them."""
    tags = regions_of_tags(hints)
    words: list[str | None] = []
    seen: list[str | None] = []
    surely_other = 0
    bonus = np.array([TAG_EVIDENCE if region in tags else 0.0 for region in REGIONS])
    for body in bodies:
        if body is None:
            words.append(None)
            seen.append(None)
            continue
        by_pixels = log_odds(region_features(body, modality)[None], modality)[0]
        words.append(REGIONS[int((by_pixels + bonus).argmax())])
        best = int(by_pixels.argmax())
        seen.append(REGIONS[best])
        surely_other += bool(tags) and REGIONS[best] not in tags and np.exp(by_pixels[best]) >= SURE
    contradicted = 2 * surely_other > len(words)
    return RegionFound(tuple(words), tags, contradicted, tuple(seen))
