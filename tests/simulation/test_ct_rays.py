"""The fast projector agrees with the exact one and is its own adjoint."""

from __future__ import annotations

import pytest
import torch

from qa_engine.measures.tissue import smooth
from qa_engine.simulation.ct_projection import back_project, filter_projections, project
from qa_engine.simulation.degradations.ct_rays import from_grid, rays, to_grid

SIZE = 128


def two_discs() -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(SIZE) - 63.5, torch.arange(SIZE) - 63.5, indexing="ij")
    return smooth(((((x - 12) ** 2 + 2 * (y - 6) ** 2) < 40 ** 2).float() + 0.5 * (((x + 20) ** 2 + (y + 25) ** 2) < 144).float())[None], 5)


def test_line_integrals_and_reconstruction_agree_with_the_exact_projector() -> None:
    image, fan = two_discs(), rays(SIZE, 160, 2 * SIZE, "cpu")
    spectra = fan.project(image)
    exact = project(image, 160)
    assert float((fan.samples(spectra)[:, :, SIZE // 2:3 * SIZE // 2] - exact).abs().max()) < 0.01 * float(exact.max())
    image_again = fan.back_project(spectra * fan.ramp())
    assert float((image_again - image).abs().max()) < 0.1
    assert float((image_again - back_project(filter_projections(exact, "hann"), SIZE)).abs().mean()) < 0.006
    assert torch.allclose(fan.samples(fan.spectra(exact_wide := fan.samples(spectra))), exact_wide, atol=1e-3)


def test_back_projection_is_the_adjoint_of_projection() -> None:
    fan = rays(SIZE, 90, 2 * SIZE, "cpu")
    g = torch.Generator().manual_seed(3)
    image = torch.rand(1, SIZE, SIZE, generator=g)
    spectra = fan.spectra(torch.rand(1, 90, 2 * SIZE, generator=g))
    forward = (fan.samples(fan.project(image)) * fan.samples(spectra)).sum()
    backward = (image * fan.back_project(spectra)).sum() * 90 / torch.pi
    assert float(forward) == pytest.approx(float(backward), rel=2e-3)


@pytest.mark.parametrize("shape", [(200, 256), (256, 200), (300, 300)])
def test_a_slice_of_any_shape_lies_on_the_grid_where_it_lay(shape: tuple[int, int]) -> None:
    image = torch.full((1, *shape), -1000.0)
    image[0, 60:90, 110:150] = 0.0
    back = from_grid(to_grid(image, 128), shape)
    assert back.shape == (1, *shape) and float((back - (image / 1000 + 1)).abs().mean()) < 0.02
