"""The simulated chest: organs at their HU, noise that follows dose and kernel, one projection for all doses."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from qa_engine.simulation import chest, patient_ct
from qa_engine.simulation.ct_projection import project
from qa_engine.simulation.dicom_series import simulate_arrays

SIZE, SLICES, VIEWS, SEED = 128, 4, 180, 7


@pytest.fixture(scope="module")
def hu() -> Tensor:
    return patient_ct.anatomy(SLICES, SIZE, SEED)


@pytest.fixture(scope="module")
def projections(hu: Tensor) -> patient_ct.Projections:
    return patient_ct.project_patient(hu, VIEWS)


@pytest.fixture(scope="module")
def clean(projections: patient_ct.Projections) -> Tensor:
    """Reconstruction without any noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "poisson", lambda mean, generator: mean)
        patch.setattr(patient_ct, "ELECTRONIC", 0.0)
        return patient_ct.scan(projections, 1.0, "shepp-logan", 0, SIZE)


def tissue(clean: Tensor) -> Tensor:
    """Inside of the body in every slice, away from skin and lungs."""
    soft = ((clean > 20) & (clean < 190)).float()
    return torch.nn.functional.avg_pool2d(soft[:, None], 5, 1, 2)[:, 0] > 0.95


def noise_of(projections: patient_ct.Projections, dose: float, kernel: str = "shepp-logan", pairs: int = 3) -> Tensor:
    """Pure noise (pairs * S, N, N): half the difference of two scans of the same patient, times sqrt 2."""
    scans = [patient_ct.scan(projections, dose, kernel, seed, SIZE) for seed in range(2 * pairs)]
    return torch.cat([(a - b) / 2**0.5 for a, b in zip(scans[::2], scans[1::2], strict=True)])


def test_noise_goes_with_the_root_of_the_dose(projections: patient_ct.Projections, clean: Tensor) -> None:
    mask = tissue(clean).repeat(3, 1, 1)
    assert int(mask.sum()) > 3000
    found = {dose: float(noise_of(projections, dose)[mask].std()) for dose in (4.0, 1.0, 0.5, 0.25)}
    for dose, sd in found.items():
        assert sd == pytest.approx(found[1.0] / dose**0.5, rel=0.06), found
    # at a twentieth electronic noise and the logarithm of few photons add to the law
    starved = float(noise_of(projections, 0.02)[mask].std())
    assert 1.0 < starved / (found[1.0] / 0.02**0.5) < 1.6


def test_noise_follows_the_kernel_and_is_no_bias(projections: patient_ct.Projections, clean: Tensor) -> None:
    mask = tissue(clean)
    found = {kernel: noise_of(projections, 1.0, kernel, 1) for kernel in ("hann", "cosine", "shepp-logan", "ramp")}
    amounts = [float(noise[mask].std()) for noise in found.values()]
    assert amounts == sorted(amounts) and amounts[-1] > 2 * amounts[0]
    mean = torch.stack([patient_ct.scan(projections, 0.25, "shepp-logan", seed, SIZE) for seed in range(6)]).mean(0)
    assert abs(float((mean - clean)[mask].mean())) < 2.0


def test_noise_is_directional_where_rays_are_long(projections: patient_ct.Projections) -> None:
    """A wide body: rays from side to side are the noisiest, so rows are more alike than columns; white noise has no such thing."""
    noise = noise_of(projections, 1.0)[:, 52:76, 40:88]
    along = float((noise[:, :, 1:] * noise[:, :, :-1]).mean() / noise.square().mean())
    across = float((noise[:, 1:] * noise[:, :-1]).mean() / noise.square().mean())
    assert along > across + 0.1


def test_clean_and_quarter_dose_share_one_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(image: Tensor, views: int) -> Tensor:
        calls.append(views)
        return project(image, views)

    monkeypatch.setattr(patient_ct, "project", counted)
    noisy = simulate_arrays("ct", [1.0, 0.25, 0.1], slices=2, size=64, views=60)
    assert calls == [60]
    monkeypatch.setattr(torch, "poisson", lambda mean, generator: mean)
    monkeypatch.setattr(patient_ct, "ELECTRONIC", 0.0)
    full, quarter, tenth = simulate_arrays("ct", [1.0, 0.25, 0.1], slices=2, size=64, views=60)
    assert abs(full - quarter).max() < 0.5 and abs(full - tenth).max() < 0.5  # HU: the rounding of float32
    assert [abs(one - full).std() > 1 for one in noisy] == [True] * 3


def test_the_same_arguments_make_the_same_patient_and_another_seed_another(hu: Tensor) -> None:
    one, again = (simulate_arrays("ct", [0.5], slices=1, size=64, views=60, seed=3)[0] for _ in range(2))
    assert (one == again).all()
    other = simulate_arrays("ct", [0.5], slices=1, size=64, views=60, seed=4)[0]
    assert abs(one - other).mean() > 30
    bodies = [patient_ct.anatomy(1, 64, seed)[0] > -500 for seed in range(4)]
    assert len({int(body.sum()) for body in bodies}) == 4


def values(image: Tensor, x: float, y: float, radius: float = 3.0) -> Tensor:
    """HU within `radius` mm of a place in mm."""
    n = image.shape[-1]
    axis = ((torch.arange(n) + 0.5) / n - 0.5) * patient_ct.FIELD_MM
    return image[torch.hypot(axis[None, :] - x, axis[:, None] - y) <= radius]


@pytest.mark.parametrize("z, x, y, low, high", [
    (10, -70, -5, 85, 112), (10, 0, 84, 0, 60), (10, 0, 64, 80, 1200), (38, 44, -30, 135, 165), (38, -90, 0, -930, -780),
    (38, 90, 30, -930, -780), (70, 18, 46, 130, 165), (95, -3, -25, 130, 165), (120, 0, 16, -1000, -900), (120, 8, -8, 120, 165),
    (38, 0, -100, 100, 700), (120, 0, 170, -1000, -900)], ids=[
    "liver", "canal", "vertebra", "left ventricle", "right lung", "left lung", "descending aorta", "ascending aorta", "trachea", "arch",
    "breastbone", "air"])
def test_organs_are_where_they_belong(z: float, x: float, y: float, low: float, high: float) -> None:
    person = chest.Person.make(256, 0)
    scale = person.scale
    found = values(chest.chest_slice(person, 256, z * scale), x * scale, y * scale)
    assert low <= float(found.median()) <= high


def test_every_organ_class_is_there(hu: Tensor) -> None:
    """Shares of the body: lung, fat, soft tissue, enhanced blood, bone, each in a plausible amount."""
    body = hu[hu > -970]
    share = {name: float(((body >= low) & (body < high)).float().mean())
             for name, (low, high) in {"lung": (-930, -600), "fat": (-140, -60), "soft": (20, 120), "blood": (130, 170), "bone": (200, 1500)}.items()}
    assert 0.15 < share["lung"] < 0.5 and 0.05 < share["fat"] < 0.4 and 0.2 < share["soft"] < 0.6, share
    assert 0.02 < share["blood"] < 0.2 and 0.02 < share["bone"] < 0.12, share


def test_slices_change_and_neighbours_are_alike() -> None:
    person = chest.Person.make(128, 1)
    at = [chest.chest_slice(person, 128, z) for z in (40.0, 41.0, 48.0, 88.0)]
    changes = [float((other - at[0]).abs().mean()) for other in at[1:]]
    assert 1 < changes[0] < changes[1] < changes[2]


def test_any_number_of_slices_covers_the_same_body() -> None:
    assert patient_ct.spacing_mm(20) == 8.0 and patient_ct.spacing_mm(160) == 1.0
    coarse, fine = patient_ct.anatomy(2, 64, 0), patient_ct.anatomy(6, 64, 0)
    assert torch.equal(coarse[0], fine[1]) and torch.equal(coarse[1], fine[4])


def test_reconstruction_is_true_to_the_anatomy(hu: Tensor, clean: Tensor) -> None:
    """Water correction and kernel leave soft tissue and lung at their HU; beam hardening of bone is what remains."""
    coarse = torch.nn.functional.avg_pool2d(hu[:, None], 2)[:, 0]
    flat = torch.nn.functional.max_pool2d(coarse[:, None], 7, 1, 3)[:, 0] + torch.nn.functional.max_pool2d(-coarse[:, None], 7, 1, 3)[:, 0] < 70
    for low, high, limit in ((20, 160, 8.0), (-930, -780, 12.0)):
        where = flat & (coarse > low) & (coarse < high)
        assert int(where.sum()) > 300
        assert abs(float((clean - coarse)[where].median())) < limit
    assert float(clean[:, :6, :6].mean()) == pytest.approx(-1000, abs=25)  # corners of the image are air


def test_twenty_slices_of_256_from_360_views_take_less_than_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    start = time.process_time()
    images = simulate_arrays("ct", [1.0, 0.25], slices=20, size=256, views=360)
    seconds = time.process_time() - start
    with capsys.disabled():
        print(f"\n20 slices, 256 x 256, 360 views, two doses: {seconds:.1f} s of one core")
    assert images[1].shape == (20, 256, 256) and seconds < 60


def test_512_is_an_option() -> None:
    image = simulate_arrays("ct", [1.0], slices=1, size=512, views=90)[0]
    assert image.shape == (1, 512, 512) and image.dtype.name == "float32"
