"""The windowed attention of the published network, as in MANIQA (arXiv 2204.08958), with the prompt added after each layer (arXiv 2507.19004).

Tensors have the names of the released code, the convolution `downsample` that it never calls among them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qa_engine.network.published_vit import GRID, Mlp

WINDOW, HEADS, HIDDEN, LAYERS = 4, 4, 768, 2
SCALE = 0.8
"""Of a layer's output in the sum with its input and the prompt."""
OUTSIDE = -100.0
"""Added to the score of two tokens that a shift has brought into one window from opposite edges."""
DROP, DROP_PATH = 0.1, 0.1


def windows_of(grid: Tensor) -> Tensor:
    """(B,28,28,C) -> (B * 49, 16, C)."""
    batch, n, width = len(grid), GRID // WINDOW, grid.shape[-1]
    return grid.reshape(batch, n, WINDOW, n, WINDOW, width).transpose(2, 3).reshape(batch * n * n, WINDOW ** 2, width)


def grid_of(windows: Tensor) -> Tensor:
    """Back again."""
    n, width = GRID // WINDOW, windows.shape[-1]
    return windows.reshape(-1, n, n, WINDOW, WINDOW, width).transpose(2, 3).reshape(-1, GRID, GRID, width)


def shift_mask(shift: int) -> Tensor:
    """(49,16,16): 0 between tokens that are neighbours in the image, OUTSIDE between others."""
    edges = torch.tensor([GRID - WINDOW, GRID - shift])
    band = torch.bucketize(torch.arange(GRID), edges, right=True)
    area = windows_of((3 * band[:, None] + band[None])[None, ..., None].float())[..., 0]
    return (area[:, None] != area[:, :, None]).float() * OUTSIDE


def relative_position_index() -> Tensor:
    """(16,16) row of the bias table for each pair of places in a window."""
    place = torch.stack(torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij"), -1).reshape(-1, 2)
    apart = place[:, None] - place[None] + WINDOW - 1
    return apart[..., 0] * (2 * WINDOW - 1) + apart[..., 1]


class WindowAttention(nn.Module):
    """Scaled attention in 4 heads among the 16 tokens of a window, with a bias that is learned per distance."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * WINDOW - 1) ** 2, HEADS) * 0.02)
        self.register_buffer("relative_position_index", relative_position_index())
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(windows, 16, C) -> the same shape; mask (49,16,16)."""
        count, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(count, tokens, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(count // len(mask), 1, 1, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(count, -1, -1, -1))
        return self.proj(mixed.transpose(1, 2).reshape(count, tokens, width))


class SwinBlock(nn.Module):
    """Windowed attention and MLP, each behind a LayerNorm, residuals added. drop_path: share of the images that skip either in training."""

    attn_mask: Tensor | None

    def __init__(self, width: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.shift, self.drop_path = shift, drop_path
        self.register_buffer("attn_mask", shift_mask(shift) if shift else None)
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        """(B,784,C) -> the same shape."""
        grid = self.norm1(x).unflatten(1, (GRID, GRID)).roll((-self.shift, -self.shift), (1, 2))
        mixed = grid_of(self.attn(windows_of(grid), self.attn_mask)).roll((self.shift, self.shift), (1, 2)).flatten(1, 2)
        x = x + self._skipped(mixed)
        return x + self._skipped(self.mlp(self.norm2(x)))

    def _skipped(self, x: Tensor) -> Tensor:
        if not self.training or not self.drop_path:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path
        return x * kept / (1 - self.drop_path)


class SwinLayer(nn.Module):
    """Two blocks, the second one shifted by half a window, then a 3 x 3 convolution and a ReLU."""

    def __init__(self, width: int, drop_path: tuple[float, float]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.blocks = nn.Sequential(SwinBlock(width, 0, drop_path[0]), SwinBlock(width, WINDOW // 2, drop_path[1]))

    def forward(self, x: Tensor) -> Tensor:
        """(B,784,C) -> the same shape."""
        return F.relu(self.conv(self.blocks(x).transpose(1, 2).unflatten(2, (GRID, GRID)))).flatten(2).transpose(1, 2)


class SwinTransformer(nn.Module):
    """Two layers; after each x <- 0.8 layer(x) + x + prompt."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.downsample = nn.Conv2d(width, width, 3, stride=2, padding=1)
        steps = [DROP_PATH * k / (2 * LAYERS - 1) for k in range(2 * LAYERS)]
        self.layers = nn.ModuleList(SwinLayer(width, (steps[2 * k], steps[2 * k + 1])) for k in range(LAYERS))
        self.dropout = nn.Dropout(DROP)

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        """(B,C,28,28), prompt (B,1,C) or (1,1,C) -> (B,C,28,28)."""
        x = self.dropout(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = SCALE * layer(x) + x + prompt
        return x.transpose(1, 2).unflatten(2, (GRID, GRID))
