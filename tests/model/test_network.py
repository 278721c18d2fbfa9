"""The network's parts: attention that scrambles nothing, prompts in every layer, a weight per slice that is trained and used."""

from __future__ import annotations

import pytest
import torch

from qa_engine.network.attention import GRID, WINDOW, PromptedLayer, TransposedAttention, WindowAttention
from qa_engine.network.mediqa import MedIQA
from qa_engine.network.views import SIDE, VIEWS, crop_corners, slice_views
from qa_engine.prompts import SIZES, Prompts, mr_type


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_transposed_attention_keeps_tokens_and_channels_apart() -> None:
    """Tokens in another order come out in that order; the published code reshapes without transposing back and fails here."""
    block = TransposedAttention(32)
    tokens, order = torch.randn(2, 50, 32), torch.randperm(50)
    assert torch.allclose(block(tokens)[:, order], block(tokens[:, order]), atol=1e-5)


def test_transposed_attention_mixes_channels() -> None:
    block = TransposedAttention(32)
    tokens = torch.randn(1, 50, 32)
    changed = tokens.clone()
    changed[..., 0] += 1.0
    assert (block(changed) - block(tokens))[..., 1:].abs().max() > 1e-4


@pytest.mark.parametrize("shift", [0, WINDOW // 2])
def test_window_attention_sees_its_window_alone(shift: int) -> None:
    block = WindowAttention(16, shift)
    tokens = torch.randn(1, GRID * GRID, 16)
    changed = tokens.clone()
    changed[0, 5 * GRID + 5] += 1.0
    touched = ((block(changed) - block(tokens)).abs().sum(-1) > 1e-7)[0].reshape(GRID, GRID)
    first = (5 - shift) // WINDOW * WINDOW + shift
    inside = torch.zeros_like(touched)
    inside[first:first + WINDOW, first:first + WINDOW] = True
    assert bool(touched.any()) and not bool((touched & ~inside).any())


def test_window_attention_is_scaled_and_biased_by_place() -> None:
    block = WindowAttention(16, 0)
    tokens = torch.randn(1, GRID * GRID, 16)
    plain = block(tokens)
    with torch.no_grad():
        block.bias[0] += 5.0
    assert not torch.allclose(plain, block(tokens))


def test_every_layer_has_a_prompt_injection_of_its_own() -> None:
    network = MedIQA(SIZES).eval()
    layers = [m for m in network.modules() if isinstance(m, PromptedLayer)]
    assert len(layers) == 3 and len({id(m.inject.weight) for m in layers}) == 3
    views, measures = torch.randn(1, VIEWS, 3, SIDE, SIDE), torch.zeros(1, len(network.measure_mean))
    prompts = torch.tensor([Prompts("3d", "mr", "head", "t1").indices()])
    with torch.inference_mode():
        closed = network(views, measures, prompts).axes
        for layer in layers:
            assert layer.gate == 0.0, "prompts are let in only where training finds a use for them"
            layer.inject.bias += 1.0
        assert torch.equal(network(views, measures, prompts).axes, closed)
        for layer in layers:
            layer.gate.fill_(0.5)
        before = network(views, measures, prompts).axes
        for layer in layers:
            kept = layer.inject.bias.clone()
            layer.inject.bias += 1.0
            assert not torch.allclose(network(views, measures, prompts).axes, before)
            layer.inject.bias.copy_(kept)


def test_slices_of_a_batch_do_not_touch_each_other() -> None:
    network = MedIQA(SIZES).eval()
    views, measures = torch.randn(3, VIEWS, 3, SIDE, SIDE), torch.randn(3, len(network.measure_mean))
    prompts = torch.tensor([Prompts("3d", "ct", "chest", "lung").indices(), Prompts().indices(), Prompts("2d", "mr", "spine", "t2").indices()])
    with torch.inference_mode():
        together = network(views, measures, prompts)
        alone = [network(views[k:k + 1], measures[k:k + 1], prompts[k:k + 1]) for k in range(3)]
    assert torch.allclose(together.axes, torch.cat([o.axes for o in alone]), atol=1e-5)
    assert torch.allclose(together.weight_logit, torch.cat([o.weight_logit for o in alone]), atol=1e-5)


def test_measures_reach_the_axes_beside_the_views() -> None:
    network = MedIQA(SIZES).eval()
    views, prompts = torch.randn(1, VIEWS, 3, SIDE, SIDE), torch.tensor([Prompts().indices()])
    measures = torch.zeros(1, len(network.measure_mean), requires_grad=True)
    network(views, measures, prompts).axes.sum().backward()
    assert measures.grad is not None and int((measures.grad != 0).sum()) == measures.shape[1]


def test_crops_are_native_and_lie_on_tissue() -> None:
    image = torch.full((300, 400), -1000.0)
    image[150:290, 200:390] = torch.randn(140, 190) * 12 + 40
    views = slice_views(image, "CT")
    assert views.shape == (VIEWS, SIDE, SIDE)
    mask = torch.zeros(300, 400, dtype=torch.bool)
    mask[150:290, 200:390] = True
    first = crop_corners(mask)[0].tolist()
    assert mask[first[0]:first[0] + SIDE, first[1]:first[1] + SIDE].float().mean() > 0.9
    assert torch.equal(views[0], image[first[0]:first[0] + SIDE, first[1]:first[1] + SIDE].clamp(-1024, 3071))


@pytest.mark.parametrize("shape", [(64, 64), (40, 300), (96, 96), (1024, 128)])
def test_views_of_any_size(shape: tuple[int, int]) -> None:
    views = slice_views(torch.randn(shape).abs() * 100 + 200, "MR")
    assert views.shape == (VIEWS, SIDE, SIDE) and bool(views.isfinite().all())


def test_prompts_have_an_unknown_word_each() -> None:
    assert Prompts().indices() == (0, 0, 0, 0)
    assert Prompts("3d", "ct", "no such region", "lung").indices() == (2, 1, 0, 2)


@pytest.mark.parametrize(("text", "te", "tr", "ti", "word"), [
    ("t1_mprage_sag", None, None, None, "t1"), ("AX T2 FLAIR", None, None, None, "flair"), ("ep2d_diff", None, None, None, "dwi"),
    ("", 100.0, 4000.0, None, "t2"), ("", 10.0, 500.0, None, "t1"), ("", 15.0, 3000.0, None, "pd"), ("", 90.0, 9000.0, 2500.0, "flair"),
    ("", None, 500.0, None, None), ("", 50.0, 1500.0, None, None)])
def test_mr_type_from_words_then_times(text: str, te: float | None, tr: float | None, ti: float | None, word: str | None) -> None:
    assert mr_type(text, te, tr, ti) == word
