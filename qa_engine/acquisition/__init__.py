"""Physical parameters of the acquisition with units, straight from the headers; what is missing or absurd is `absent` with its reason.

Names are DICOM keywords where there is one. A parameter that differs over the series is the median of its values and has a finding.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from qa_engine.acquisition.ct import read_ct
from qa_engine.acquisition.mr import read_mr
from qa_engine.header import raw, text
from qa_engine.volume import Acquisition

MAX_HEADERS = 64
"""Headers that are looked at, spread over the series."""


def read_acquisition(headers: Sequence[Dataset]) -> Acquisition:
    """Acquisition of the objects of one series, classic or enhanced; empty for a modality other than CT and MR."""
    if not headers:
        return Acquisition()
    step = max(1, len(headers) // MAX_HEADERS)
    chosen = list(headers[::step])
    modality = text(raw(chosen[0], "Modality")).upper()
    return {"CT": read_ct, "MR": read_mr}.get(modality, lambda _: Acquisition())(chosen)
