"""Attention over channels and over windows, as in MANIQA (arXiv 2204.08958), the latter with a prompt in every layer (arXiv 2507.19004)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

GRID = 12
WINDOW = 4


class TransposedAttention(nn.Module):
    """Attention between channels: A = softmax(norm(q)^T norm(k) / t) is (heads, C/heads, C/heads); no values are scrambled on the way."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) tokens -> the same shape, residual added."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 4, 1)
        q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
        mixed = (q @ k.transpose(-2, -1) * self.temperature).softmax(-1) @ v
        return x + self.out(mixed.permute(0, 3, 1, 2).reshape(batch, tokens, width))


class WindowAttention(nn.Module):
    """Attention inside WINDOW x WINDOW tokens of the GRID x GRID of one view, shifted by `shift`, and an MLP; residuals added.

    A shift rolls the grid; windows then join opposite edges of a crop, which is harmless for texture.
    """

    def __init__(self, width: int, shift: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.shift = heads, shift
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        place = torch.stack(torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij"), -1).reshape(-1, 2)
        apart = place[:, None] - place[None] + WINDOW - 1
        self.register_buffer("apart", apart[..., 0] * (2 * WINDOW - 1) + apart[..., 1], persistent=False)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, GRID * GRID, C) -> the same shape."""
        batch, _, width = x.shape
        grid = self.norm(x).reshape(batch, GRID, GRID, width)
        if self.shift:
            grid = grid.roll((-self.shift, -self.shift), (1, 2))
        n = GRID // WINDOW
        windows = grid.reshape(batch, n, WINDOW, n, WINDOW, width).permute(0, 1, 3, 2, 4, 5).reshape(batch * n * n, WINDOW ** 2, width)
        q, k, v = self.qkv(windows).reshape(windows.shape[0], WINDOW ** 2, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        score = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5 + self.bias[self.apart].permute(2, 0, 1)
        mixed = (score.softmax(-1) @ v).transpose(1, 2).reshape(windows.shape[0], WINDOW ** 2, width)
        back = self.out(mixed).reshape(batch, n, n, WINDOW, WINDOW, width).permute(0, 1, 3, 2, 4, 5).reshape(batch, GRID, GRID, width)
        if self.shift:
            back = back.roll((self.shift, self.shift), (1, 2))
        x = x + back.reshape(batch, GRID * GRID, width)
        return x + self.mlp(x)


class PromptedLayer(nn.Module):
    """Two windowed attention blocks (unshifted, shifted), then y = x + tanh(gate) FC(prompt) with an FC and a gate of this layer's own; the
    gate starts at zero, so that prompts are let in only where they help."""

    def __init__(self, width: int, prompt_width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(WindowAttention(width, 0), WindowAttention(width, WINDOW // 2))
        self.inject = nn.Linear(prompt_width, width)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        """(B, tokens of one view, C), (B, P) -> (B, tokens, C)."""
        return self.blocks(x) + torch.tanh(self.gate) * self.inject(prompt)[:, None]
