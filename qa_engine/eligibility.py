"""Which files of a series can be scored at all, by their headers alone (pure; DESIGN section 5)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pydicom.dataset import Dataset

from qa_engine.header import find, integer, items, raw, text, texts
from qa_engine.outcome import Reason

SCORED_MODALITIES = frozenset({"CT", "MR"})
SMALLEST = 48
"""Fewest rows and columns of an image that can be judged."""
OWN_MANUFACTURER = "MedIQA Node"
CT_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
MR_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.3", "1.2.840.10008.5.1.4.1.1.4.4"})
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
NOT_IMAGES = ("1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.11.", "1.2.840.10008.5.1.4.1.1.104.", "1.2.840.10008.5.1.4.1.1.9.",
              "1.2.840.10008.5.1.4.1.1.66", "1.2.840.10008.5.1.4.1.1.67", "1.2.840.10008.5.1.4.1.1.481.", "1.2.840.10008.5.1.4.1.1.30",
              "1.2.840.10008.5.1.4.1.1.4.2", "1.2.840.10008.5.1.4.34.", "1.2.840.10008.5.1.4.39.", "1.2.840.10008.5.1.4.1.1.200.",
              "1.2.840.10008.1.3.10", "1.2.840.10008.5.1.4.1.1.88")
"""Beginnings of SOP Class UIDs of reports, presentation states, documents, waveforms, segmentations, radiotherapy, raw data ..."""
MAPS = frozenset({"MIP", "MINIP", "MAX IP", "MIN IP", "CSA MIP", "PROJECTION IMAGE", "PROJECTION", "VOLUME RENDER", "SURFACE RENDER", "CURVED MPR",
                  "ADC", "EADC", "FA", "TRACE", "TRACEW", "FRACTIONAL ANISO", "DIFFUSION ANISO", "TENSOR", "COLFA", "SUBTRACTION", "SUB",
                  "CBF", "CBV", "RCBF", "RCBV", "RELCBF", "RELCBV", "MTT", "TTP", "TMAX", "T1 MAP", "T2 MAP", "T2 STAR MAP", "PHASE MAP",
                  "VELOCITY", "SCREEN SAVE", "VXTL STATE"})
"""Values of Image Type, spaces for underscores, that name a computed map or projection."""
MAP_UNITS = frozenset({"Z_EFF", "ED", "EDW", "PCT", "MGML"})
"""Rescale Types of CT maps (PS3.3 C.11.1.1.2): what is not in HU is no CT image."""
LOCALIZER_WORDS = re.compile(r"\b(locali[sz]ers?|scout|aahscout|surview|topogram|scanogram)\b|^survey\b|(^|plane )loc\b|\bloc$")
"""In a Series Description, lower case with single spaces: scanners whose Image Type does not say it (Philips, GE) say it there."""
MAP_WORDS = re.compile(r"\b([de]?adc|apparent diffusion|fractional anisotropy|mips?|minips?|subtraction|subtracted)\b")
"""In the Series Description of a DERIVED image: computed maps and projections of programs that do not name them in Image Type."""
PRIORITY = (Reason.OWN_RESULT, Reason.NOT_AN_IMAGE, Reason.LOCALIZER, Reason.MODALITY_NOT_SCORED, Reason.DERIVED, Reason.COLOUR,
            Reason.MIXED_GEOMETRY, Reason.TOO_SMALL)


def is_own_result(ds: Dataset) -> bool:
    """Whether a node of this kind made the object (Contributing Equipment, DESIGN section 6)."""
    return any(text(raw(item, "Manufacturer")).casefold() == OWN_MANUFACTURER.casefold()
               for item in items(ds, "ContributingEquipmentSequence"))


def image_type(ds: Dataset) -> tuple[str, ...]:
    """Image Type, upper case, of the root or the first frame (PS3.3 C.7.6.1.1.2)."""
    return texts(raw(ds, "ImageType")) or texts(find(ds, "FrameType", "MRImageFrameTypeSequence", "CTImageFrameTypeSequence", frame=0))


def ineligible(ds: Dataset) -> Reason | None:
    """Why one object cannot be scored; None when, by its header, it can."""
    sop_class, modality = text(raw(ds, "SOPClassUID")), text(raw(ds, "Modality")).upper()
    if is_own_result(ds):
        return Reason.OWN_RESULT
    if any(sop_class.startswith(prefix) for prefix in NOT_IMAGES) or (raw(ds, "Rows") is None and raw(ds, "Columns") is None):
        return Reason.NOT_AN_IMAGE
    kinds = image_type(ds)
    description = re.sub(r"[^a-z0-9]+", " ", text(raw(ds, "SeriesDescription")).lower()).strip()
    if "LOCALIZER" in kinds or "SCOUT" in kinds or "TOPOGRAM" in kinds or (modality in SCORED_MODALITIES and LOCALIZER_WORDS.search(description)):
        return Reason.LOCALIZER
    if sop_class.startswith(SECONDARY_CAPTURE) and modality in SCORED_MODALITIES:
        return Reason.DERIVED
    if modality not in SCORED_MODALITIES or sop_class not in CT_CLASSES | MR_CLASSES \
            or (sop_class in CT_CLASSES) != (modality == "CT"):
        return Reason.MODALITY_NOT_SCORED
    if "MOSAIC" in kinds:  # the slices of a volume as tiles of one image
        return Reason.MIXED_GEOMETRY
    unit = text(find(ds, "RescaleType", "PixelValueTransformationSequence", frame=0)).upper()
    if any(word.replace("_", " ") in MAPS for word in kinds) or (modality == "CT" and unit in MAP_UNITS) \
            or ("DERIVED" in kinds[:1] and MAP_WORDS.search(description)):
        return Reason.DERIVED
    samples = integer(raw(ds, "SamplesPerPixel"))
    photometric = text(raw(ds, "PhotometricInterpretation")).upper()
    # several samples that are called monochrome, and impossible sizes, are the decoder's to name
    if photometric.startswith(("RGB", "YBR", "PALETTE", "HSV", "ARGB", "CMYK")) \
            or ((samples or 1) != 1 and not photometric.startswith("MONOCHROME")):
        return Reason.COLOUR
    rows, columns = integer(raw(ds, "Rows")), integer(raw(ds, "Columns"))
    if rows is not None and columns is not None and 0 < min(rows, columns) < SMALLEST:
        return Reason.TOO_SMALL
    return None


def series_reason(reasons: Sequence[Reason | None]) -> Reason | None:
    """One reason for a series without any eligible object; None when some object is eligible. The most frequent, then by PRIORITY."""
    if any(reason is None for reason in reasons):
        return None
    counts = Counter(reasons)
    return min(counts, key=lambda r: (-counts[r], PRIORITY.index(r)))
