"""The network of the profile `mediqa-compact`: per slice noise, width and artefact (logarithms, standardised), and a weight per slice.

    views (V,3,96,96) -> convolutional stem, features from three depths -> tokens (V * 144, C)
      -> transposed attention -> prompted windowed attention x 2 -> transposed attention -> prompted windowed attention
      -> head (dual or FiLM) -> late fusion with the classical measures -> axes; slice weight = softmax over the slices of a trained head
    measures (M,) -> boosted trees -> axes, blended with the network's

Axes are corrections, bounded, of what is measured directly: noise and width have estimates among the measures, artefact starts at its mean.
So a slice unlike all that were fitted still gets the noise that it shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qa_engine.measures import MEASURE_NAMES
from qa_engine.measures.physics import DIRECT_NAMES
from qa_engine.network.attention import GRID, PromptedLayer, TransposedAttention
from qa_engine.network.heads import head_of
from qa_engine.network.standard import Standard
from qa_engine.network.trees import Trees
from qa_engine.network.views import CHANNELS
from qa_engine.targets import scale_of

AXES = 3
KINDS = ("noise", "blur", "streak", "ring", "motion", "ghost", "undersampling", "spike")
"""What the side head tells apart."""
LARGEST_CORRECTION = 3.0
"""Standard deviations of the logarithm of the physics in the ladder."""
_MODALITY = MEASURE_NAMES.index("is_mr")
_DIRECT = [MEASURE_NAMES.index(name) for name in DIRECT_NAMES]


@dataclass(frozen=True)
class Output:
    """axes (N,3) standardised logarithms of noise, width, artefact; weight_logit (N,); features (N,F): all that the last layers see;
    kinds (N, len(KINDS)) logits of the degradations that are there; members (N,2,AXES): axes by network and by trees alone."""

    axes: Tensor
    weight_logit: Tensor
    features: Tensor
    kinds: Tensor
    members: Tensor


def bounded(correction: Tensor) -> Tensor:
    """The same near 0, at most LARGEST_CORRECTION on either side."""
    return LARGEST_CORRECTION * torch.tanh(correction / LARGEST_CORRECTION)


def pooled_tokens(tokens: Tensor) -> Tensor:
    """(N,T,C) -> (N,2C): mean and spread."""
    return torch.cat([tokens.mean(1), tokens.std(1)], 1)


class Stem(nn.Module):
    """(B,3,96,96) -> tokens (B,144,C) out of three depths, each brought to the 12 x 12 grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        def block(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.GELU(),
                                 nn.Conv2d(after, after, 3, padding=1, groups=4), nn.GELU())

        self.one, self.two, self.three = block(CHANNELS, 16), block(16, 32), block(32, 48)
        self.mix = nn.Linear(16 * 2 + 32 * 2 + 48, width)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        two = self.two(one)
        three = self.three(two)

        def pooled(f: Tensor) -> Tensor:
            size = f.shape[-1] // GRID
            mean = nn.functional.avg_pool2d(f, size)
            # mean and spread: noise is in the second moment
            return torch.cat([mean, (nn.functional.avg_pool2d(f.square(), size) - mean.square()).clamp(min=1e-6).sqrt()], 1)

        return self.mix(torch.cat([pooled(one), pooled(two), three], 1).flatten(2).transpose(1, 2))


class MedIQA(nn.Module):
    """prompts: number of words of each of the four prompt tables (dimension, modality, region, type); index 0 is unknown. head: "dual" or
    "film". trees: (trees, nodes) of the boosted trees of each modality, (0, 0) without them."""

    def __init__(self, prompts: tuple[int, int, int, int], width: int = 64, prompt_width: int = 32, head: str = "dual",
                 trees: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.stem = Stem(width)
        self.tables = nn.ModuleList(nn.Embedding(n, prompt_width // 4) for n in prompts)
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.02)  # a word that training never showed stays near nothing
        self.place = nn.Parameter(torch.zeros(2, 1, width))  # native crop, whole view
        self.mix1, self.mix2 = TransposedAttention(width), TransposedAttention(width)
        self.layers = nn.ModuleList(PromptedLayer(width, prompt_width) for _ in range(3))
        self.head = head_of(head, width, prompt_width, AXES)
        measures = len(MEASURE_NAMES)
        self.prompt_gate = nn.Parameter(torch.zeros(()))
        self.classical = nn.Sequential(nn.Linear(measures + prompt_width, 128), nn.GELU(), nn.Dropout(0.1), nn.Linear(128, 64), nn.GELU())
        features = 64 + 2 * width + AXES
        self.fuse = nn.Sequential(nn.Linear(features, 96), nn.GELU(), nn.Dropout(0.1), nn.Linear(96, AXES))
        self.from_measures = nn.Linear(64, AXES)
        for last in (self.fuse[-1], self.from_measures):
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)
        self.slice_weight = nn.Sequential(nn.Linear(features, 32), nn.GELU(), nn.Linear(32, 1))
        self.kinds = nn.Linear(features, len(KINDS))
        self.register_buffer("measure_mean", torch.zeros(measures))
        self.register_buffer("measure_std", torch.ones(measures))
        self.register_buffer("axis_mean", torch.zeros(2, AXES))
        self.register_buffer("axis_std", torch.ones(2, AXES))
        self.register_buffer("blend", torch.zeros(2, AXES))  # share of the trees, CT and MR
        scales = [scale_of(modality, "").artefact for modality in ("CT", "MR")]
        self.register_buffer("artefact_curve", torch.tensor([[c.s50, c.p, c.texture] for c in scales]))
        self.trees = nn.ModuleList(Trees(AXES, *trees) for _ in range(2)) if trees[0] else None

    def with_trees(self, grown: Sequence[Trees], blend: Tensor) -> MedIQA:
        """A copy with the trees of CT and MR, of which `blend` (2,AXES) is the share in the answer."""
        count, nodes = (max(t.value.shape[k] for t in grown) for k in (1, 2))
        state = {k: v for k, v in self.state_dict().items() if not k.startswith("trees.")}
        state |= {f"trees.{k}.{name}": v for k, t in enumerate(grown) for name, v in t.padded(count, nodes).state_dict().items()}
        return network_of({**state, "blend": blend.to(self.blend)}).eval()

    @property
    def standard(self) -> Standard:
        """What the axes stand for, on the CPU."""
        return Standard(self.axis_mean.cpu(), self.axis_std.cpu())

    def directly(self, measures: Tensor) -> Tensor:
        """(N,M) -> (N,3) standardised axes by the estimates among the measures alone."""
        row = measures[:, _MODALITY].round().long()
        known = measures[:, _DIRECT]
        axes = (known - self.axis_mean[row, : known.shape[1]]) / self.axis_std[row, : known.shape[1]]
        return torch.cat([axes, torch.zeros_like(axes[:, :1])], 1)

    def from_classical(self, measures: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """(N,M) raw measures, (N,4) prompt indices -> hidden (N,64) and corrections (N,3) by the measures and prompts."""
        scaled = ((measures - self.measure_mean) / self.measure_std).clamp(-6, 6)
        hidden = self.classical(torch.cat([scaled, torch.tanh(self.prompt_gate) * self.prompt(prompts)], 1))
        return hidden, self.from_measures(hidden)

    def prompt(self, prompts: Tensor) -> Tensor:
        """(N,4) indices -> (N,P)."""
        return torch.cat([table(prompts[:, k]) for k, table in enumerate(self.tables)], 1)

    def _windowed(self, layer: PromptedLayer, tokens: Tensor, views: int, prompt: Tensor) -> Tensor:
        n, _, width = tokens.shape
        each = tokens.reshape(n * views, GRID * GRID, width)
        return layer(each, prompt.repeat_interleave(views, 0)).reshape(n, views * GRID * GRID, width)

    def encode(self, views: Tensor, prompt: Tensor) -> Tensor:
        """views (N,V,3,96,96), the last one the whole slice, prompt (N,P) -> tokens (N, V * 144, C)."""
        n, v = views.shape[:2]
        tokens = self.stem(views.flatten(0, 1)).reshape(n, v, GRID * GRID, -1)
        kind = torch.cat([self.place[0].expand(v - 1, -1), self.place[1]], 0)
        tokens = self.mix1((tokens + kind[None, :, None]).flatten(1, 2))
        tokens = self._windowed(self.layers[0], tokens, v, prompt)
        tokens = self._windowed(self.layers[1], tokens, v, prompt)
        return self._windowed(self.layers[2], self.mix2(tokens), v, prompt)

    def points_of_artefact(self, axis: Tensor, row: Tensor) -> Tensor:
        """(N,) standardised logarithm of the artefact -> (N,) its falling curve, 1 to 0, of modality `row` (N,) whatever the purpose."""
        s50, p, texture = self.artefact_curve[row].unbind(1)
        amount = (axis * self.axis_std[row, 2] + self.axis_mean[row, 2]).exp()
        beyond = (amount.square() - texture.square()).clamp(min=1e-8).sqrt()
        return 1.0 / (1.0 + (beyond / s50) ** p)

    def artefact_of_points(self, points: Tensor, row: Tensor) -> Tensor:
        """The way back."""
        s50, p, texture = self.artefact_curve[row].unbind(1)
        beyond = s50 * (1.0 / points.clamp(0.005, 0.9999) - 1.0) ** (1.0 / p)
        return ((beyond.square() + texture.square()).sqrt().log() - self.axis_mean[row, 2]) / self.axis_std[row, 2]

    def grown(self, measures: Tensor) -> Tensor | None:
        """What the trees say of raw measures (N,M): corrections of noise and width, curve of the artefact (N,AXES); None without trees."""
        if self.trees is None:
            return None
        return torch.where(measures[:, _MODALITY, None].round() == 1, self.trees[1](measures), self.trees[0](measures))

    def _by_trees(self, direct: Tensor, grown: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Axes (N,AXES) by the trees, and the artefact's curve, of which the trees know the mean and not the mean of its logarithm."""
        points = grown[:, 2].clamp(0.005, 0.9999)
        return torch.cat([direct[:, :2] + bounded(grown[:, :2]), self.artefact_of_points(points, row)[:, None]], 1), points

    def answer(self, features: Tensor, measures: Tensor, grown: Tensor | None) -> Output:
        """The last layers: features (N,F) as `forward` tells them, raw measures (N,M) and what `grown` says of them -> the output."""
        hidden, seen = features[:, :self.from_measures.in_features], features[:, -AXES:]
        direct, row = self.directly(measures), measures[:, _MODALITY].round().long()
        own = direct + bounded(self.from_measures(hidden) + seen + self.fuse(features))
        axes, members = own, torch.stack([own, own], 1)
        if grown is not None:
            by_trees, points = self._by_trees(direct, grown, row)
            share = self.blend[row]
            artefact = (1 - share[:, 2]) * self.points_of_artefact(own[:, 2], row) + share[:, 2] * points
            axes = torch.cat([own[:, :2] + share[:, :2] * (by_trees - own)[:, :2], self.artefact_of_points(artefact, row)[:, None]], 1)
            members = torch.stack([own, by_trees], 1)
        return Output(axes, self.slice_weight(features)[:, 0], features, self.kinds(features), members)

    def forward(self, views: Tensor, measures: Tensor, prompts: Tensor) -> Output:
        """views (N,V,3,96,96), the last one the whole slice; measures (N,M) raw; prompts (N,4) indices."""
        prompt = self.prompt(prompts)
        tokens = self.encode(views, prompt)
        classical, _ = self.from_classical(measures, prompts)
        return self.answer(torch.cat([classical, pooled_tokens(tokens), self.head(tokens, prompt)], 1), measures, self.grown(measures))


def network_of(state: Mapping[str, Tensor]) -> MedIQA:
    """The network whose tensors `state` holds: head, prompts and trees are told by names and shapes. KeyError or RuntimeError when it is none."""
    prompts = tuple(state[f"tables.{k}.weight"].shape[0] for k in range(4))
    trees = state.get("trees.0.value")
    network = MedIQA((prompts[0], prompts[1], prompts[2], prompts[3]), head="film" if "head.modulate.0.weight" in state else "dual",
                     trees=(0, 0) if trees is None else (trees.shape[1], trees.shape[2]))
    network.load_state_dict(state)
    return network
