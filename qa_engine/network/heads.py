"""Two ways from tokens to the axes of a slice, to be compared on the same data: MANIQA's dual head and the FiLM head of a low-dose CT paper."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HEADS = ("dual", "film")
BINS, TEXTURE_BINS = 4, 2
FILM_STRENGTH = 1.0


class DualHead(nn.Module):
    """MANIQA (arXiv 2204.08958): a score and a weight per token and axis; axis = sum(score * weight) / sum(weight)."""

    def __init__(self, width: int, prompt_width: int, axes: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, axes))
        self.weight = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, axes), nn.Sigmoid())
        nn.init.normal_(self.score[-1].weight, std=0.01)
        nn.init.zeros_(self.score[-1].bias)

    def forward(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        """(N,T,C), (N,P) -> (N,axes)."""
        weight = self.weight(tokens)
        return (self.score(tokens) * weight).sum(1) / weight.sum(1).clamp(min=1e-6)


class FilmHead(nn.Module):
    """arXiv 2511.12256: tokens modulated by the prompt, H (1 + s tanh(gamma)) + s beta; pooled by the mean over all, by the mean over four
    stretches of the token sequence and by the maximum over two (texture); a head for each, fused by a perceptron."""

    def __init__(self, width: int, prompt_width: int, axes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.modulate = nn.Sequential(nn.Linear(prompt_width, 2 * width), nn.GELU(), nn.Linear(2 * width, 2 * width))
        self.whole, self.local, self.texture = nn.Linear(width, axes), nn.Linear(BINS * width, axes), nn.Linear(TEXTURE_BINS * width, axes)
        self.fuse = nn.Sequential(nn.Linear(3 * axes, 32), nn.GELU(), nn.Linear(32, axes))
        nn.init.normal_(self.fuse[-1].weight, std=0.01)
        nn.init.zeros_(self.fuse[-1].bias)

    def forward(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        """(N,T,C), (N,P) -> (N,axes)."""
        gamma, beta = self.modulate(prompt)[:, None].chunk(2, -1)
        changed = self.norm(tokens) * (1.0 + FILM_STRENGTH * torch.tanh(gamma)) + FILM_STRENGTH * beta
        n, count, width = changed.shape
        local = changed.reshape(n, BINS, count // BINS, width).mean(2).flatten(1)
        texture = changed.reshape(n, TEXTURE_BINS, count // TEXTURE_BINS, width).amax(2).flatten(1)
        return self.fuse(torch.cat([self.whole(changed.mean(1)), self.local(local), self.texture(texture)], 1))


def head_of(name: str, width: int, prompt_width: int, axes: int) -> nn.Module:
    """The head called `name` (HEADS)."""
    return {"dual": DualHead, "film": FilmHead}[name](width, prompt_width, axes)
