"""A damaged slab between the seven salient slices becomes the worst slice, is named, lowers the score, and weighs no more than its share."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from qa_engine.assess import judge
from qa_engine.assessment import Assessment
from qa_engine.decode import Decoder
from qa_engine.model import Model, load_model
from qa_engine.policy import Policy
from qa_engine.salience import salient_slices
from qa_engine.series import group_files, read_series
from qa_engine.simulation.degradations import degrade
from qa_engine.volume import Reading, Volume
from tests.support.contract import check_entry
from tests.support.data import data_folder

pytestmark = [pytest.mark.data, pytest.mark.model]
CT, MR = "ct_abdomen", "brain-t1-post-siemens-3t"


@cache
def model() -> Model:
    return load_model()


@cache
def reading(name: str) -> Reading:
    (files,), _ = group_files([data_folder() / "series" / name])
    with Decoder() as decoder:
        return read_series(files, decoder)


def volume_of(name: str) -> Volume:
    found = reading(name).volume
    assert found is not None
    return found


def slab_of(name: str) -> list[int]:
    """Up to three slices between the fourth and the fifth salient one."""
    third, fourth = salient_slices(volume_of(name))[3:5]
    middle = (third + fourth) / 2
    return [k for k in range(third + 1, fourth) if abs(k - middle) <= 1.5]


def assessed(name: str, slab: np.ndarray | None = None, slices: str = "salient") -> Assessment:
    """The series with `slab` in place of its slices of `slab_of`."""
    volume = volume_of(name)
    pixels = volume.pixels
    if slab is not None:
        pixels = pixels.copy()
        pixels[slab_of(name)] = slab
    return judge(replace(reading(name), volume=replace(volume, pixels=pixels)), Policy(device="cpu", slices=slices), model())


@cache
def clean(name: str) -> Assessment:
    return assessed(name)


def damaged(name: str, kind: str, amount: float) -> np.ndarray:
    volume, slab = volume_of(name), slab_of(name)
    if kind == "stripes":  # made without the simulator: a failing detector, or a spike in k-space
        return volume.pixels[slab] + np.float32(amount) * np.sign(np.sin(np.arange(volume.pixels.shape[2]) / 3)).astype(np.float32)
    return degrade(kind, torch.from_numpy(volume.pixels[slab]), torch.tensor([volume.spacing_mm] * len(slab)), torch.full((len(slab),), amount),
                   torch.Generator().manual_seed(6), volume.modality)[0].numpy()


@pytest.mark.parametrize(("name", "kind", "amount"), [
    (CT, "noise", 60.0), (CT, "streak", 40.0), (CT, "stripes", 60.0), (MR, "noise", 0.2), (MR, "motion", 0.16), (MR, "stripes", 60.0)])
def test_a_damaged_slab_is_the_worst_slice_and_lowers_the_score(name: str, kind: str, amount: float) -> None:
    before, found, slab = clean(name), assessed(name, damaged(name, kind, amount)), slab_of(name)
    assert before.score is not None and found.score is not None and found.worst_slice is not None
    worst = min((s for s in found.slices if s.outlier), key=lambda s: s.score)
    mild = (name, kind) == (MR, "stripes")  # found and told, though a slice of this brain scores lower undamaged
    assert worst.ordinal - 1 in slab and (mild or found.worst_slice is worst)
    told = [f.text for f in found.findings if f.code == "outlier-slices"]
    assert any(f"slice {worst.ordinal} scores" in text or f"Slice {worst.ordinal} differs" in text for text in told)
    assert found.score < before.score - (0.3 if mild else 1.0)
    assert worst.weight <= (len(slab) + 2) / len(volume_of(name).frames) + 1e-9
    ordinals = [s.ordinal for s in found.slices]
    assert ordinals == sorted(ordinals) and 8 <= len(ordinals) <= 10 and len(found.pictures) == len(ordinals)
    assert sum(s.weight for s in found.slices) == pytest.approx(1.0)
    check_entry(replace(found, seconds={"read": 0.0, "network": 0.0, "total": 0.0}).to_json())


def test_the_score_of_salient_slices_follows_that_of_all() -> None:
    """What an outlier costs is about what its slab costs among all slices."""
    slab = damaged(MR, "noise", 0.2)
    full, whole, some, before = assessed(MR, slab, "full"), assessed(MR, None, "full"), assessed(MR, slab), clean(MR)
    assert len(full.slices) > 20 and not any(s.outlier for s in full.slices)
    assert full.score is not None and whole.score is not None and some.score is not None and before.score is not None
    lost, lost_of_all = before.score - some.score, whole.score - full.score
    assert lost_of_all > 1 and 0.4 * lost_of_all < lost < 2.5 * lost_of_all


@pytest.mark.parametrize("name", [CT, MR, "brain-t1-enhanced-siemens-3t", "wrist-t1-ge-1p5t"])
def test_clean_series_have_few_outliers_and_no_finding(name: str) -> None:
    found = clean(name)
    assert sum(bool(s.outlier) for s in found.slices) <= 1
    assert "outlier-slices" not in {f.code for f in found.findings}
