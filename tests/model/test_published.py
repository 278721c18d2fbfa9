"""The published architecture: names and shapes of the released checkpoint, and its outputs under deterministic weights.

Expected values: the released code and an independent functional implementation, which agree to 1e-6 (float64).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from qa_engine.network.published import PublishedMedIQA, PublishedOutput, TransposedAttention
from tests.support.published import fill, one_hot, waves

pytestmark = pytest.mark.model

TABLE = Path(__file__).parent / "resources" / "published_state_dict.tsv"
SCORES = (1.138961, 1.138206, 1.103758, 1.088820, 1.119725, 1.080150, 1.091891)
WEIGHTS = (0.765149, 0.761896, 0.761873, 0.768010, 0.774246, 0.766858, 0.764041)
UNSCRAMBLED = {0: (1.104239, 0.692896), 3: (1.075024, 0.704263), 4: (1.180625, 0.714267)}
INTERMEDIATE = {  # of slice 0: mean, standard deviation, first and last value of the module's output
    "vit.patch_embed": (-0.003431, 0.414313, 0.015930, -0.340843), "vit.blocks.0": (-0.032282, 0.692984, -0.046755, -1.087603),
    "vit.blocks.6": (-0.053830, 1.580462, -1.275726, -0.372131), "vit.blocks.9": (-0.055402, 1.917186, 0.219961, 0.151444),
    "tablock1.0": (-0.034136, 2.183947, -1.537487, 0.062353), "tablock1.1": (-0.032537, 2.668200, -0.559183, 0.135200),
    "conv1": (-0.078850, 1.887972, -0.844964, 0.200064), "swintransformer1.layers.0": (0.576718, 0.822031, 0.135515, 1.962037),
    "swintransformer1": (0.840279, 2.083426, 0.033266, 2.000102), "tablock2.0": (0.845912, 2.376460, 0.032699, 6.260220),
    "tablock2.1": (0.877524, 3.178568, -3.590445, 5.549194), "conv2": (-0.025726, 2.281264, 0.268191, 0.574773),
    "swintransformer2.layers.0": (0.681182, 0.967866, 0.0, 0.0), "swintransformer2": (1.067725, 2.558491, 0.376189, 0.912789),
    "fc_score": (1.129239, 0.546793, 1.257089, 1.186026), "fc_weight": (0.765149, 0.112322, 0.804315, 0.754915),
}


@pytest.fixture(scope="module")
def network() -> PublishedMedIQA:
    made = PublishedMedIQA().eval()
    fill(made)
    return made


@pytest.fixture(scope="module")
def seen(network: PublishedMedIQA) -> tuple[PublishedOutput, Tensor, dict[str, Tensor]]:
    """Outputs for seven slices, the features of the encoder, and what each module of INTERMEDIATE gave for slice 0."""
    outputs: dict[str, Tensor] = {}
    hooks = [network.get_submodule(name).register_forward_hook(lambda m, i, out, name=name: outputs.update({name: out[0].clone()}))
             for name in INTERMEDIATE]
    with torch.inference_mode():
        features = network.vit(waves())
        result = network.judge(features, one_hot(9))
    for hook in hooks:
        hook.remove()
    return result, features, outputs


def test_names_shapes_and_types_are_those_of_the_checkpoint(network: PublishedMedIQA) -> None:
    """320 tensors in the checkpoint's order, 308 of them parameters, those that nothing uses included."""
    rows = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines()[1:]]
    parameters = dict(network.named_parameters())
    ours = [[name, "x".join(map(str, t.shape)), str(t.dtype).removeprefix("torch."), "parameter" if name in parameters else "buffer"]
            for name, t in network.state_dict().items()]
    assert ours == rows
    assert len(rows) == 320 and len(parameters) == 308 and sum(p.numel() for p in parameters.values()) == 135_822_410


def test_published_outputs(seen: tuple[PublishedOutput, Tensor, dict[str, Tensor]]) -> None:
    result = seen[0]
    assert result.score.tolist() == pytest.approx(SCORES, abs=2e-5)
    assert result.patch_weight.tolist() == pytest.approx(WEIGHTS, abs=2e-5)
    assert float(result.score.mean()) == pytest.approx(1.108787, abs=2e-5)
    assert float((result.score * result.patch_weight).sum() / result.patch_weight.sum()) == pytest.approx(1.108775, abs=2e-5)


@pytest.mark.parametrize("name", INTERMEDIATE)
def test_intermediate_values(name: str, seen: tuple[PublishedOutput, Tensor, dict[str, Tensor]]) -> None:
    out = seen[2][name].double()
    found = float(out.mean()), float(out.std(correction=0)), float(out.flatten()[0]), float(out.flatten()[-1])
    assert found == pytest.approx(INTERMEDIATE[name], abs=2e-5)


def test_another_prompt(network: PublishedMedIQA, seen: tuple[PublishedOutput, Tensor, dict[str, Tensor]]) -> None:
    """Also two images with a prompt each, at once: the released code cannot."""
    with torch.inference_mode():
        both = network.judge(seen[1][[0, 0]], one_hot(0, 9))
    assert both.score.tolist() == pytest.approx((1.185501, SCORES[0]), abs=2e-5)
    assert both.patch_weight.tolist() == pytest.approx((0.775083, WEIGHTS[0]), abs=2e-5)


def test_without_the_scrambling(network: PublishedMedIQA, seen: tuple[PublishedOutput, Tensor, dict[str, Tensor]]) -> None:
    plain = PublishedMedIQA(scrambled=False).eval()
    plain.load_state_dict(network.state_dict(), assign=True)
    with torch.inference_mode():
        result = plain.judge(seen[1][list(UNSCRAMBLED)], one_hot(9))
    assert torch.stack(tuple(result), 1).numpy() == pytest.approx(np.array(list(UNSCRAMBLED.values())), abs=2e-5)


def test_scrambling_is_what_is_told(network: PublishedMedIQA) -> None:
    """Channels in another order come out in that order, unless they are scrambled."""
    x, order = torch.randn(1, 16, 784, generator=torch.Generator().manual_seed(0)), torch.arange(16).flip(0)
    for scrambled in (True, False):
        block = TransposedAttention(scrambled).eval()
        with torch.inference_mode():
            assert torch.allclose(block(x)[:, order], block(x[:, order]), atol=1e-5) is not scrambled
