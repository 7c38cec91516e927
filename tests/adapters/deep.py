"""A model of several layers, linear and transposed, none square, and ResLoRA's formulas on it."""

from types import SimpleNamespace

import torch
from torch import nn

from silotune.adapters import LoRA, ResLoRA, Shortcut, inject
from silotune.core import Factors, Key, Role, Site, generator
from toys import CLASSES, INNER, VOCABULARY, WIDTH, Conv1D, notes

DEPTH = 4
INPUT, BLOCK, MIDDLE = Shortcut
BATCH = notes(5, "deep").batch(range(5))
PAIR = LoRA(rank=2, alpha=6.0)
KINDS = [
    ResLoRA(pair=PAIR, shortcut=INPUT),
    ResLoRA(pair=PAIR, shortcut=BLOCK),
    ResLoRA(pair=PAIR, shortcut=BLOCK, pre_num=2),
    ResLoRA(pair=LoRA(rank=3, alpha=2.0, rslora=True), shortcut=BLOCK, pre_num=9),
    ResLoRA(pair=PAIR, shortcut=MIDDLE),
    ResLoRA(pair=PAIR, shortcut=MIDDLE, pre_num=3),
]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, INNER)
        self.down = Conv1D(WIDTH, INNER)

    def forward(self, h):
        return h + self.down(torch.tanh(self.up(self.norm(h))))


class Deep(nn.Module):
    """As the toy of the laws, with several layers."""

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(11)
            self.embedding = nn.Embedding(VOCABULARY, WIDTH)
            self.layers = nn.ModuleList(Block() for _ in range(depth))
            self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids, attention_mask):
        h = self.embedding(input_ids)
        for layer in self.layers:
            h = self.run(layer, h)
        mask = attention_mask.unsqueeze(-1).to(h.dtype)
        return SimpleNamespace(logits=self.classifier((h * mask).sum(1) / mask.sum(1)))

    def run(self, layer, h):
        return layer(h)


def deep_sites(model) -> list[Site]:
    found = []
    for i, layer in enumerate(model.layers):
        found.append(Site(f"layers.{i}.up", layer.up, WIDTH, INNER))
        found.append(Site(f"layers.{i}.down", layer.down, INNER, WIDTH, transposed=True))
    return found


def deep_heads(model) -> list[Site]:
    return [Site("classifier", model.classifier, WIDTH, CLASSES)]


def build(kind, model=None):
    model = (model or Deep()).to(torch.get_default_dtype())
    return inject(model, deep_sites(model), deep_heads(model), kind)


def somewhere(adapted, seed: int = 1) -> Factors:
    """Factors with no zeros among them."""
    return Factors(
        {
            k: torch.randn(t.shape, generator=generator("deep", seed, k), dtype=t.dtype) * 0.4
            for k, t in adapted.extract().items()
        }
    )


def logits(model, batch):
    return model(batch["input_ids"], batch["attention_mask"]).logits


def reference(kind: ResLoRA, factors: Factors, batch, read=None) -> torch.Tensor:
    """The formulas of the paper, one layer after another; ``read`` takes what each reads."""
    toy, s = Deep().to(torch.get_default_dtype()), kind.scale
    a = {k.site: t for k, t in factors.items() if k.role is Role.A}
    b = {k.site: t for k, t in factors.items() if k.role is Role.B}
    read = {} if read is None else read

    def linear(i, part, x):
        base, own = getattr(toy.layers[i], part), f"layers.{i}.{part}"
        read[own] = x
        back = [f"layers.{i - k}.{part}" for k in range(1, kind.pre_num + 1) if i - k >= 0]
        y = base(x)
        if kind.shortcut is INPUT:
            return y + s * (x + sum(read[n] for n in back)) @ a[own].T @ b[own].T
        if kind.shortcut is BLOCK:
            return y + s * sum(x @ a[n].T @ b[n].T for n in [own, *back])
        return y + s * sum(read[n] @ a[n].T for n in [own, *back]) @ b[own].T

    h = toy.embedding(batch["input_ids"])
    for i, layer in enumerate(toy.layers):
        h = h + linear(i, "down", torch.tanh(linear(i, "up", layer.norm(h))))
    mask = batch["attention_mask"].unsqueeze(-1)
    weight, bias = (factors[Key("classifier", Role.HEAD, n)] for n in ("weight", "bias"))
    return (h * mask).sum(1) / mask.sum(1) @ weight.T + bias
