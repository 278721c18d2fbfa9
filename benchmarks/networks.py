"""Networks that stand beside ours: a plain convolutional regressor of its size, and the published architecture trained from scratch.

Both see the versions that all others see and answer Q. The published one is trained where there is a GPU; on a CPU its row says "not run".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.baselines import SEED
from benchmarks.rows import Rows
from qa_engine.network.published import CODES, PublishedMedIQA
from qa_engine.network.views import channels

BATCH = 12


class PlainConvolution(nn.Module):
    """Four strided convolutions over each view, mean and spread of all of them, two linear layers: about 0.4 million parameters."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 192)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.ReLU()]
            before = width
        self.features = nn.Sequential(*layers)
        self.answer = nn.Sequential(nn.Linear(2 * before, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, seen: Tensor) -> Tensor:
        """(N,V,3,96,96) -> (N,) Q / 100."""
        f = self.features(seen.flatten(0, 1)).unflatten(0, seen.shape[:2]).transpose(1, 2).flatten(2)
        return self.answer(torch.cat([f.mean(2), f.std(2)], 1))[:, 0]


def _seen(rows: Rows, pick: np.ndarray, modality: str) -> Tensor:
    return channels(torch.from_numpy(rows.views[pick]).float(), torch.full((len(pick),), modality == "MR"))


def _fitted(answer: Callable[[np.ndarray], Tensor], network: nn.Module, rows: Rows, train: np.ndarray, test: np.ndarray, steps: int,
            rate: float) -> np.ndarray:
    """Fits `network` in `steps` with squared error (AdamW, cosine), subjects drawn evenly; `answer` (of row numbers) is Q / 100."""
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=1e-2)
    random = np.random.default_rng(SEED)
    of_subject = [train[rows.subject[train] == s] for s in np.unique(rows.subject[train])]
    target = torch.from_numpy(rows.q / 100.0).float()
    network.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        pick = np.array([random.choice(of_subject[random.integers(len(of_subject))]) for _ in range(BATCH)])
        found = answer(pick)
        loss = (found - target[pick].to(found.device)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    network.eval()
    with torch.inference_mode():
        return 100.0 * torch.cat([answer(test[at:at + BATCH]).float().cpu() for at in range(0, len(test), BATCH)]).numpy()


def plain_convolution(rows: Rows, train: np.ndarray, test: np.ndarray, modality: str, steps: int) -> np.ndarray:
    """Scores of `test` by PlainConvolution, on the views that ours sees."""
    torch.manual_seed(SEED)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = PlainConvolution().to(device)
    return _fitted(lambda pick: network(_seen(rows, pick, modality).to(device)), network, rows, train, test, steps, 2e-3)


def published_from_scratch(rows: Rows, train: np.ndarray, test: np.ndarray, modality: str, steps: int, device: str = "cuda") -> np.ndarray:
    """Scores of `test` by the published architecture (transposed attention put right), trained on 224 px pictures with no other weights."""
    torch.manual_seed(SEED)
    network = PublishedMedIQA(scrambled=False).to(device)
    prompt = nn.functional.one_hot(torch.tensor([int(modality == "MR")]), CODES).float().to(device)

    def answer(pick: np.ndarray) -> Tensor:
        image = torch.from_numpy(rows.pictures[pick]).to(device).float()[:, None].expand(-1, 3, -1, -1) / 255.0
        with torch.autocast(device, torch.bfloat16):
            return network(image, prompt).score.float()

    return _fitted(answer, network, rows, train, test, steps, 1e-4)
