"""People's ratings: the table as it comes, one scale of 0 to 100, agreement between raters, the files and the patient of each series."""

from __future__ import annotations

import csv
import hashlib
import hmac
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from qa_engine.header import raw, read_header, text
from qa_engine.series import files_below, group_files
from qa_engine.training.calibrate import srcc

COLUMNS = {
    "series": ("series", "series uid", "series instance uid", "seriesinstanceuid", "uid", "path", "file", "folder", "image id", "bids name"),
    "score": ("score", "rating", "quality", "mos", "grade", "points"),
    "rater": ("rater", "reader", "observer", "radiologist", "rater id"),
}
"""Names of the columns, without regard to case, spaces, hyphens and underscores; `rater` may be absent."""
LEAST_COMMON = 5
"""Series that two raters must have in common for a correlation between them."""


class RatingsRefused(Exception):
    """What the ratings cannot support, in one line."""


@dataclass(frozen=True)
class Label:
    """One rater's mean score of one series, as the table gives them."""

    series: str
    rater: str
    score: float


@dataclass(frozen=True)
class Scale:
    """The scale of the table; `lower_is_better` turns it round."""

    low: float
    high: float
    lower_is_better: bool = False

    def points(self, score: float) -> float:
        """0..100, higher is better."""
        share = (score - self.low) / (self.high - self.low)
        return 100.0 * (1.0 - share if self.lower_is_better else share)


@dataclass(frozen=True)
class FoundSeries:
    """The files of a rated series, and who it is of: `patient` is a keyed digest, never an identifier in clear."""

    uid: str
    patient: str
    files: tuple[Path, ...]


def _column(names: Sequence[str], wanted: str) -> int | None:
    plain = [" ".join(n.lower().replace("_", " ").replace("-", " ").split()) for n in names]
    return next((plain.index(alias) for alias in COLUMNS[wanted] if alias in plain), None)


def read_labels(path: Path) -> list[Label]:
    """The table, comma, semicolon or tab separated, one label per series and rater (repeated ones averaged)."""
    content = path.read_text(encoding="utf-8-sig")
    first = content.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    rows = list(csv.reader(content.splitlines(), delimiter=separator))
    names = rows[0] if rows else []
    series, score, rater = (_column(names, wanted) for wanted in ("series", "score", "rater"))
    if series is None or score is None:
        raise RatingsRefused(f"{path.name} needs a column `series` and a column `score` in its first line")
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        try:
            value = float(row[score].strip().replace(",", "."))
            name = row[series].strip()
        except (ValueError, IndexError):
            raise RatingsRefused(f"{path.name}, line {number}: no series with a number as its score") from None
        if not np.isfinite(value) or not name:
            raise RatingsRefused(f"{path.name}, line {number}: no series with a number as its score")
        who = row[rater].strip() if rater is not None and rater < len(row) else ""
        found[(name, who)].append(value)
    if not found:
        raise RatingsRefused(f"{path.name} holds no ratings")
    return [Label(name, who, float(np.mean(values))) for (name, who), values in found.items()]


def scale_of(labels: Sequence[Label], ends: tuple[float, float] | None, lower_is_better: bool) -> Scale:
    """The scale as given, else from the lowest to the highest score of the table."""
    scores = [label.score for label in labels]
    low, high = ends or (min(scores), max(scores))
    if min(scores) == max(scores):
        raise RatingsRefused("all ratings are the same; there is nothing to learn from them")
    if not low < high or min(scores) < low or max(scores) > high:
        raise RatingsRefused(f"the scores go from {min(scores):g} to {max(scores):g}, outside the scale {low:g} to {high:g}")
    return Scale(low, high, lower_is_better)


def agreement(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float | int | None]:
    """Of series -> rater -> score: Krippendorff's alpha (interval) and the mean rank correlation of pairs of raters, None where undefined."""
    raters = sorted({rater for of in scores.values() for rater in of})
    shared = [np.array(list(of.values())) for of in scores.values() if len(of) > 1]
    pairs = []
    for one, two in combinations(raters, 2):
        both = np.array([(of[one], of[two]) for of in scores.values() if one in of and two in of])
        if len(both) >= LEAST_COMMON and both.std(0).min() > 0:
            pairs.append(srcc(both[:, 0], both[:, 1]))
    alpha = None
    if shared:
        everything = np.concatenate(shared)
        n, apart = len(everything), lambda x: 2.0 * (len(x) * float((x ** 2).sum()) - float(x.sum()) ** 2)
        expected = apart(everything) / (n - 1)
        if expected > 0:
            alpha = round(1.0 - sum(apart(x) / (len(x) - 1) for x in shared) / expected, 3)
    return {"raters": len(raters), "rated_twice": len(shared), "alpha": alpha, "srcc_of_raters": round(float(np.mean(pairs)), 3) if pairs else None}


def _one_series(path: Path) -> list[Path]:
    groups, _ = group_files([path])
    if len(groups) != 1:
        raise ValueError("no DICOM series" if not groups else f"{len(groups)} series, name one of them")
    return groups[0]


def find_series(names: Sequence[str], labels_folder: Path, data: Path | None, key: bytes) -> tuple[dict[str, FoundSeries], dict[str, str]]:
    """name -> its series: a path (as it is, beside the table, below `data`) or a Series Instance UID below `data`; and name -> why not.

    `key` keeps the digest of a patient from being looked up in a list of all identifiers.
    """
    found: dict[str, FoundSeries] = {}
    unreadable: dict[str, str] = {}
    by_uid: dict[str, list[Path]] | None = None
    for name in names:
        path = next((p for p in (Path(name), labels_folder / name, *([data / name] if data is not None else [])) if p.exists()), None)
        try:
            if path is not None:
                files = _one_series(path)
            elif data is None:
                raise ValueError("no such file or folder (a UID is looked up below --data)")
            else:
                if by_uid is None:
                    by_uid = _by_uid(data)
                if name not in by_uid:
                    raise ValueError("neither a path nor a Series Instance UID below --data")
                files = by_uid[name]
            found[name] = _identified(files, key)
        except (ValueError, OSError) as error:
            unreadable[name] = str(error)
    return found, unreadable


def _by_uid(data: Path) -> dict[str, list[Path]]:
    groups, _ = group_files(files_below([data]))
    found: dict[str, list[Path]] = {}
    for files in groups:
        header = read_header(files[0])
        if header is not None:
            found.setdefault(text(raw(header, "SeriesInstanceUID")), []).extend(files)
    return found


def _identified(files: Sequence[Path], key: bytes) -> FoundSeries:
    header = read_header(files[0])
    if header is None:
        raise ValueError("no DICOM series")
    study, uid = text(raw(header, "StudyInstanceUID")), text(raw(header, "SeriesInstanceUID"))
    patient = text(raw(header, "PatientID"))
    # without an identifier each study counts as a patient of its own
    whose = f"id\0{text(raw(header, 'IssuerOfPatientID'))}\0{patient}" if patient else f"study\0{study}"
    return FoundSeries(uid, hmac.new(key, whose.encode(), hashlib.sha256).hexdigest()[:16], tuple(files))
