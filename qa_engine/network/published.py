"""The network of the profile `mediqa-base`: MedIQA as published (arXiv 2507.19004), to the name and shape of each of its 320 tensors.

    image (B,3,224,224) -> ViT-B/8, four depths (B,784,3072) -> two transposed attention blocks over 3072 channels -> 768 channels
      -> Swin layers + prompt -> two transposed attention blocks over 768 channels -> 384 channels -> Swin layers + prompt
      -> per token score f and weight w: q = sum(f w) / sum(w)

It departs from the paper where the released code does: the prompt is one of 64 combined codes and enters after four layers through two shared
projections; the weight weighs places within a slice, never slices; `scrambled` keeps the missing transpose of the transposed attention, which
published weights need and a training from scratch does not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from qa_engine.network.published_swin import DROP, SwinTransformer
from qa_engine.network.published_vit import GRID, KEPT, SIDE, TOKENS, WIDTH, VisionTransformer

__all__ = ["CODES", "SIDE", "PublishedMedIQA", "PublishedOutput"]
CODES = 64
"""Combined classes of modality, region and type; which is which was not released."""
BLOCKS = 2


class PublishedOutput(NamedTuple):
    """Of B images: score (B,) on the scale of the training labels, not bounded above; patch_weight (B,) mean weight of the tokens, 0..1."""

    score: Tensor
    patch_weight: Tensor


class TransposedAttention(nn.Module):
    """Attention between channels, with projections along the tokens: A = softmax(q k^T / 28) is (C,C)."""

    def __init__(self, scrambled: bool) -> None:
        super().__init__()
        self.scrambled = scrambled
        self.c_q = nn.Linear(TOKENS, TOKENS)
        self.c_k = nn.Linear(TOKENS, TOKENS)
        self.c_v = nn.Linear(TOKENS, TOKENS)
        self.dropout = nn.Dropout(DROP)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,784) -> the same shape, residual added."""
        mixed = F.scaled_dot_product_attention(self.c_q(x), self.c_k(x), self.c_v(x))
        if self.scrambled:
            mixed = mixed.transpose(1, 2).reshape(x.shape)
        return x + self.dropout(mixed)


def _head(last: nn.Module) -> nn.Sequential:
    width = WIDTH // 2
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(DROP), nn.Linear(width, 1), last)


class PublishedMedIQA(nn.Module):
    """scrambled: as released; False puts channels and tokens back where they belong before the residual sum."""

    def __init__(self, scrambled: bool = True) -> None:
        super().__init__()
        self.vit = VisionTransformer()
        self.tablock1 = nn.Sequential(*(TransposedAttention(scrambled) for _ in range(BLOCKS)))
        self.conv1 = nn.Conv2d(len(KEPT) * WIDTH, WIDTH, 1)
        self.swintransformer1 = SwinTransformer(WIDTH)
        self.tablock2 = nn.Sequential(*(TransposedAttention(scrambled) for _ in range(BLOCKS)))
        self.conv2 = nn.Conv2d(WIDTH, WIDTH // 2, 1)
        self.swintransformer2 = SwinTransformer(WIDTH // 2)
        self.fc_score = _head(nn.ReLU())
        self.fc_weight = _head(nn.Sigmoid())
        self.MLP1 = nn.Linear(CODES, WIDTH)
        self.MLP2 = nn.Linear(CODES, WIDTH // 2)

    def forward(self, images: Tensor, prompt: Tensor) -> PublishedOutput:
        """images (B,3,224,224); prompt (B,64), or (1,64) for all of them."""
        return self.judge(self.vit(images), prompt)

    def judge(self, features: Tensor, prompt: Tensor) -> PublishedOutput:
        """features (B,784,3072) of the encoder. The prompt gets an axis for the tokens, so that each image may have its own."""
        x = self.tablock1(features.transpose(1, 2)).unflatten(2, (GRID, GRID))
        x = self.swintransformer1(self.conv1(x), self.MLP1(prompt)[:, None])
        x = self.tablock2(x.flatten(2)).unflatten(2, (GRID, GRID))
        x = self.swintransformer2(self.conv2(x), self.MLP2(prompt)[:, None])
        tokens = x.flatten(2).transpose(1, 2)
        score, weight = self.fc_score(tokens)[..., 0], self.fc_weight(tokens)[..., 0]
        return PublishedOutput((score * weight).sum(1) / weight.sum(1), weight.mean(1))
