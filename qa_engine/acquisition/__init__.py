"""Physical parameters of the acquisition with units, straight from the headers; what is missing or absurd is `absent` with its reason.

Names are DICOM keywords where there is one. A parameter that differs over the images is the middle one of its values and has a finding.
"""

from __future__ import annotations

from collections.abc import Sequence

from qa_engine.acquisition.ct import read_ct
from qa_engine.acquisition.mr import read_mr
from qa_engine.acquisition.parameter import Image
from qa_engine.header import raw, text
from qa_engine.volume import Acquisition

MAX_IMAGES = 64
"""Images that are looked at, spread evenly over the series."""


def read_acquisition(images: Sequence[Image], places: Sequence[float] = ()) -> Acquisition:
    """Acquisition of the images of one stack (data set and 0-based frame, None for single-frame objects) and their places, mm ascending.

    Empty for a modality other than CT and MR.
    """
    if not images:
        return Acquisition()
    chosen = images[:: -(-len(images) // MAX_IMAGES)]
    modality = text(raw(chosen[0][0], "Modality")).upper()
    read = {"CT": read_ct, "MR": read_mr}.get(modality)
    return Acquisition() if read is None else read(chosen, places)
