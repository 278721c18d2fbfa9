"""Localizers and computed maps that only their description names; words alone never leave out a real series."""

from __future__ import annotations

import pytest

from qa_engine.eligibility import ineligible
from qa_engine.outcome import Reason
from tests.support.small_objects import CT, image

MR = "1.2.840.10008.5.1.4.1.1.4"
ORIGINAL, DERIVED = ["ORIGINAL", "PRIMARY", "OTHER"], ["DERIVED", "PRIMARY", "OTHER"]


@pytest.mark.parametrize(("sop_class", "kinds", "description", "reason"), [
    (MR, ORIGINAL, "3-PLANE LOC", Reason.LOCALIZER), (MR, DERIVED, "Survey_MST", Reason.LOCALIZER),
    (MR, ORIGINAL, "SCOUT 3-PLANE RT.", Reason.LOCALIZER), (MR, ORIGINAL, "AAHead_Scout_MPR_sag", Reason.LOCALIZER),
    (MR, ORIGINAL, "t2_haste_loc", Reason.LOCALIZER), (MR, ORIGINAL, "localiser", Reason.LOCALIZER),
    (CT, ORIGINAL, "Topogram  0.6  T20s", Reason.LOCALIZER), (CT, ORIGINAL, "Surview", Reason.LOCALIZER),
    (CT, ORIGINAL, "WB bone survey low dose", None), (CT, ORIGINAL, "Thorax locoregional", None), (MR, ORIGINAL, "t1 block", None),
    (MR, ["DERIVED", "SECONDARY", "PROCESSED"], "Apparent Diffusion Coefficient (mm2/s)", Reason.DERIVED),
    (MR, DERIVED, "dADC Map", Reason.DERIVED), (MR, DERIVED, "ADC (10^-6 mm2/s)", Reason.DERIVED), (CT, DERIVED, "Aorta MIP cor", Reason.DERIVED),
    (MR, ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "ep2d_bold", Reason.MIXED_GEOMETRY),
    (CT, DERIVED, "Thorax MPR cor", None), (CT, ORIGINAL, "thin for MIP", None), (MR, DERIVED, "T1 ax", None),
])
def test_words(sop_class: str, kinds: list[str], description: str, reason: Reason | None) -> None:
    ds = image(sop_class, ImageType=kinds, SeriesDescription=description, Modality="CT" if sop_class == CT else "MR")
    assert ineligible(ds) is reason


@pytest.mark.parametrize(("samples", "photometric", "reason"), [
    (3, "RGB", Reason.COLOUR), (1, "PALETTE COLOR", Reason.COLOUR), (3, "YBR_FULL", Reason.COLOUR), (3, "", Reason.COLOUR),
    (4, "MONOCHROME2", None), (1, "MONOCHROME1", None), (1, "", None),
])
def test_colour_is_what_says_so(samples: int, photometric: str, reason: Reason | None) -> None:
    assert ineligible(image(CT, SamplesPerPixel=samples, PhotometricInterpretation=photometric)) is reason
