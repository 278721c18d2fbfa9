"""Real training series: slices in physical units with subject, source and region (index files beside the data describe every field).

The data stay where they are; nothing cut from them is written anywhere.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from qa_engine.training.parameters import parameters_of

REGIONS = {
    "abdomen": "abdomen", "abdomen_pelvis": "abdomen", "chest": "chest", "chest_abdomen": "chest", "chest_base": "chest",
    "trunk": "abdomen", "pelvis": "pelvis", "extremity": "extremity", "head": "head", "head_neck": "head", "head_chest": "neck",
    "neck_shoulder": "neck", "lumbar_spine": "spine", "phantom": "", "brain": "head", "breast": "breast", "cardiac": "heart",
    "hip": "extremity", "knee": "extremity", "thigh": "extremity", "wrist": "extremity", "prostate": "pelvis",
    "spine-cervical": "spine", "spine-lumbar": "spine", "whole_body": "whole-body",
}
"""Region words of the index files -> region words of the product."""
SIMULATED = "simulated"
CROPPED_SOURCES = frozenset({"ibsi_sts", "ibsi-sts"})
"""Sources whose images were cropped around a tumour: usable for physics, no evidence for a region."""


@dataclass(frozen=True, eq=False)
class TrainingSeries:
    """Up to five slices of one series. pixels: list of (H,W) float32, HU for CT, stored signal for MR; spacing (row, column) mm."""

    name: str
    subject: str
    source: str
    modality: str
    region: str
    role: str
    ship: bool
    cropped: bool
    spacing_mm: tuple[float, float]
    pixels: list[np.ndarray]
    z_mm: tuple[float, ...]
    kernel: str = ""
    contrast: str = ""
    field_strength_t: float | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    """Of the acquisition (`training.parameters`), as far as the header has them: targets, never inputs."""


def _number(text: str, default: float) -> float:
    try:
        return float(text)
    except ValueError:
        return default


def load_training_series(data: Path, modality: str, *, ship_only: bool = True, role: str = "patient") -> list[TrainingSeries]:
    """All series of `modality` (CT or MR) with that `role`, in the order of the index; rows with `ship` other than yes only on request.
    `data` holds train/, or is such a folder itself (phantoms lie beside train/)."""
    rows = _ct(data, role) if modality == "CT" else _mr(data) if role == "patient" else _mr_phantoms(data)
    return [row for row in rows if row.ship or not ship_only]


def _train(data: Path) -> Path:
    return data / "train" if (data / "train").is_dir() else data


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _ct(data: Path, role: str) -> list[TrainingSeries]:
    found = []
    for row in _rows(_train(data) / "index.csv"):
        if row["modality"] != "CT" or row["role"] != role:
            continue
        with np.load(_train(data) / row["file"]) as z:
            offset, keys = int(z["offset"]), sorted(k for k in z.files if k.startswith("j2k_"))
            slope, intercept = np.atleast_1d(z["slope"]), np.atleast_1d(z["intercept"])
            slices = [(np.asarray(Image.open(io.BytesIO(z[k].tobytes()))).astype(np.float32) - offset) * float(slope[i % len(slope)])
                      + float(intercept[i % len(intercept)]) for i, k in enumerate(keys)]
            z_mm = tuple(float(v) for v in np.atleast_1d(z["z_mm"]))
        spacing = _number(row["pixel_spacing_mm"], 0.75)
        found.append(TrainingSeries(Path(row["file"]).stem, row["subject"], row["source_key"], "CT", REGIONS.get(row["body_region"], ""),
                                    row["role"], row["ship"] == "yes", row["source_key"] in CROPPED_SOURCES, (spacing, spacing), slices,
                                    z_mm, kernel=row["kernel"], parameters=parameters_of(row)))
    return found


def _mr(data: Path) -> list[TrainingSeries]:
    return _png(_train(data), _rows(_train(data) / "index-mr.csv"), "patient")


def _mr_phantoms(data: Path) -> list[TrainingSeries]:
    return _png(data / "phantoms", _rows(data / "phantoms" / "index-phantoms-mr.csv"), "phantom_qa")


def _png(folder: Path, rows: list[dict[str, str]], role: str) -> list[TrainingSeries]:
    found = []
    for row in rows:
        scale, offset = _number(row["scale"], 1.0), _number(row["offset"], 0.0)
        files = sorted((folder / row["file"]).glob("*.png"))
        slices = [np.asarray(Image.open(f)).astype(np.float32) * scale + offset for f in files]
        first, _, second = row["pixel_spacing_mm"].partition("x")
        spacing = (_number(first, 1.0), _number(second or first, 1.0))
        gap = _number(row["slice_spacing_mm"], 1.0)
        found.append(TrainingSeries(Path(row["file"]).name, row["subject"], row["source_key"], "MR", REGIONS.get(row["region"], ""), role,
                                    row.get("ship", "yes") == "yes", row["source_key"] in CROPPED_SOURCES, spacing, slices,
                                    tuple(gap * i for i in range(len(slices))), contrast=row["contrast"],
                                    field_strength_t=_number(row["field_strength_t"], 0.0) or None, parameters=parameters_of(row)))
    return found


def simulated_series(modality: str, patients: int = 5, doses: tuple[float, ...] = (1.0, 0.3), seed: int = 1000) -> list[TrainingSeries]:
    """Simulated patients (DESIGN section 9) as training series of the source SIMULATED; they are fitted, never held out or counted."""
    from qa_engine.simulation import patient_ct, patient_mr
    from qa_engine.simulation.dicom_series import simulate_arrays

    kind, region, field = (("ct", "chest", patient_ct.FIELD_MM) if modality == "CT" else ("mr", "head", patient_mr.FIELD_MM))
    found = []
    for number in range(patients):
        arrays = simulate_arrays(kind, doses, slices=5, size=256, seed=seed + number)
        for dose, array in zip(doses, arrays, strict=True):
            pixels = [np.round(image).astype(np.float32) for image in array]
            found.append(TrainingSeries(f"simulated-{kind}-{seed + number}-{dose:g}", f"simulated-{kind}-{seed + number}", SIMULATED, modality, region,
                                        "patient", True, False, (field / 256, field / 256), pixels, tuple(40.0 * k for k in range(5)),
                                        contrast="" if modality == "CT" else "T1"))
    return found
