"""An Assessment as text for the database and back, without loss; its pictures as an npz file beside.

The text is the JSON of `mediqa score --json` (rounded, for people and SQL) plus the key `exact`, from which the Assessment is rebuilt:
report and database speak of one Assessment, also when a killed worker renders the report in its next life.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from qa_engine.assessment import (
    Assessment,
    Degradation,
    Finding,
    ModelIdentity,
    Quantity,
    SeriesFacts,
    SlicePicture,
    SliceScore,
)
from qa_engine.outcome import End, Reason, Severity


def dump(assessment: Assessment) -> str:
    """`assessment` as JSON text, pictures left out; numbers that are not finite become null."""
    exact = {f.name: getattr(assessment, f.name) for f in dataclasses.fields(assessment) if f.name != "pictures"}
    return json.dumps({**_plain(assessment.to_json()), "exact": _plain(exact)}, ensure_ascii=False, allow_nan=False)


def load(text: str, pictures: tuple[SlicePicture, ...] = ()) -> Assessment:
    """The Assessment that `dump` wrote. KeyError or ValueError for anything else."""
    kept = json.loads(text)["exact"]
    kept.update(
        end=End(kept["end"]), reason=None if kept["reason"] is None else Reason(kept["reason"]),
        interval=None if kept["interval"] is None else tuple(kept["interval"]),
        interval_parts=None if kept.get("interval_parts") is None else tuple(kept["interval_parts"]),
        thresholds=None if kept["thresholds"] is None else tuple(kept["thresholds"]),
        slices=tuple(SliceScore(**s) for s in kept["slices"]),
        degradations=tuple(Degradation(**{**d, "severity": Severity(d["severity"])}) for d in kept["degradations"]),
        measures={k: Quantity(**q) for k, q in kept["measures"].items()},
        acquisition={k: Quantity(**q) for k, q in kept["acquisition"].items()},
        findings=tuple(Finding(**f) for f in kept["findings"]),
        model=None if kept["model"] is None else ModelIdentity(**kept["model"]),
        facts=SeriesFacts(**{**kept["facts"], "ends": tuple(kept["facts"]["ends"])}), pictures=pictures)
    known = {f.name for f in dataclasses.fields(Assessment)}
    return Assessment(**{name: value for name, value in kept.items() if name in known})


def _plain(value: Any) -> Any:
    """`value` as what JSON can say; numpy numbers become Python's."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, str) else value


def save_pictures(pictures: tuple[SlicePicture, ...], path: Path) -> None:
    """Write the pictures whole or not at all, and durably, so that the report finds what the assessment saw."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    arrays: dict[str, Any] = {f"pixels{k}": p.pixels for k, p in enumerate(pictures)}
    about = [{"spacing_mm": list(p.spacing_mm), "markers": list(p.markers)} for p in pictures]
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez_compressed(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load_pictures(path: Path) -> tuple[SlicePicture, ...] | None:
    """The pictures that `save_pictures` wrote, None where they are gone or damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            about = json.loads(kept["about"].tobytes())
            return tuple(SlicePicture(kept[f"pixels{k}"], (a["spacing_mm"][0], a["spacing_mm"][1]), (a["markers"][0], a["markers"][1]))
                         for k, a in enumerate(about))
    except (OSError, KeyError, ValueError, IndexError, EOFError, zipfile.BadZipFile):
        return None
