"""A small model, its records and one silo after another, for the laws. No transformers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from silotune.adapters import (
    AdaptedModel,
    Adapter,
    Expert,
    LoRA,
    fixed_keys,
    initial_factors,
    inject,
)
from silotune.core import Batch, ClientId, Factors, GlobalState, Key, Role, Site, generator
from silotune.engine import Client, ClientAgreement, Experiment, LocalTrainer, evaluate
from silotune.linalg import LowRank
from silotune.methods import Axes, Method, MoLE, built_in
from silotune.objectives import SequenceClassification
from silotune.privacy import NoPrivacy

CPU = torch.device("cpu")
CLASSIFY = SequenceClassification(text="text", label="label")
"""The objective of all toys."""

VOCABULARY, WIDTH, INNER, CLASSES = 13, 6, 10, 3


class Conv1D(nn.Module):
    """GPT-2's linear layer: the weight is (in, out)."""

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(in_features, out_features) * 0.3)
        self.bias = nn.Parameter(torch.randn(out_features) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Toy(nn.Module):
    """Embedding, one residual block with a wide and a narrow layer, masked mean, classifier."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(7)  # no device's but the CPU's
            self.embedding = nn.Embedding(VOCABULARY, WIDTH)
            self.norm = nn.LayerNorm(WIDTH)
            self.up = nn.Linear(WIDTH, INNER)
            self.down = Conv1D(WIDTH, INNER)
            self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        h = self.embedding(input_ids)
        h = h + self.down(torch.tanh(self.up(self.norm(h))))
        mask = attention_mask.unsqueeze(-1).to(h.dtype)
        return SimpleNamespace(logits=self.classifier((h * mask).sum(1) / mask.sum(1)))


def sites(model: Toy) -> list[Site]:
    return [
        Site("up", model.up, WIDTH, INNER),
        Site("down", model.down, INNER, WIDTH, transposed=True),
    ]


def heads(model: Toy) -> list[Site]:
    return [Site("classifier", model.classifier, WIDTH, CLASSES)]


@dataclass(frozen=True)
class Notes:
    """Random token sequences; the label depends on their first token."""

    ids: tuple[tuple[int, ...], ...]

    @property
    def lengths(self) -> Sequence[int]:
        return [len(i) for i in self.ids]

    @property
    def padding(self) -> Mapping[str, int]:
        return {}

    def batch(self, indices: Sequence[int]) -> Batch:
        longest = max(len(self.ids[i]) for i in indices)
        ids = [[*self.ids[i], *([0] * (longest - len(self.ids[i])))] for i in indices]
        mask = [[1.0] * len(self.ids[i]) + [0.0] * (longest - len(self.ids[i])) for i in indices]
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask),
            "labels": torch.tensor([self.ids[i][0] % CLASSES for i in indices]),
        }


def notes(n: int, *address: object) -> Notes:
    g = generator("notes", *address)
    lengths = torch.randint(1, 8, (n,), generator=g).tolist()
    return Notes(
        tuple(tuple(torch.randint(1, VOCABULARY, (k,), generator=g).tolist()) for k in lengths)
    )


def adapter(rank: int = 2, alpha: float = 6.0) -> LoRA:
    return LoRA(rank=rank, alpha=alpha)


def adapted(lora: Adapter | None, head_scale: float = 1.0) -> AdaptedModel:
    toy = Toy().to(torch.get_default_dtype())
    return inject(toy, sites(toy), heads(toy), lora, head_scale)


def first_factors(lora: Adapter | None, seed: int = 0) -> Factors:
    toy = Toy().to(torch.get_default_dtype())
    head = {
        Key("classifier", Role.HEAD, "weight"): toy.classifier.weight.detach(),
        Key("classifier", Role.HEAD, "bias"): toy.classifier.bias.detach(),
    }
    born = initial_factors(sites(toy), lora, seed).map(lambda t: t.to(torch.get_default_dtype()))
    return born.updated(head)


def random_factors(lora: Adapter | None, seed: int) -> Factors:
    """Factors with no zeros among them."""
    return Factors(
        {
            k: torch.randn(t.shape, generator=generator("factors", seed, k), dtype=t.dtype) * 0.5
            for k, t in first_factors(lora).items()
        }
    )


def trainer(axes: Axes, micro_batch: int = 4) -> LocalTrainer:
    lora = axes.adapter
    return LocalTrainer(
        adapted=adapted(lora),
        objective=CLASSIFY,
        optimizer=axes.optimizer,
        draw=lambda seed: first_factors(lora, seed),
        gain=axes.gain,
        micro_batch=micro_batch,
    )


def silos(
    n: int = 3, records: int = 12, batch_size: int = 6, home: Path | None = None
) -> dict[ClientId, Client]:
    """Methods with personal tensors need a ``home``."""
    return {
        ClientId(f"silo-{i}"): Client(
            client=ClientId(f"silo-{i}"),
            train=notes(records + i, i),
            held_out=None,
            privacy=NoPrivacy(batch_size=batch_size),
            home=home / f"silo-{i}" if home else None,
        )
        for i in range(n)
    }


def experts(n: int = 3) -> tuple[Expert, ...]:
    """Adapters of unequal ranks, as if trained."""

    def pair(i: int, site: Site) -> LowRank:
        g = generator("expert", i, site.name)
        left = torch.randn(site.out_features, i + 1, generator=g) * 0.5
        return LowRank(left, torch.randn(i + 1, site.in_features, generator=g) * 0.5)

    return tuple(Expert(f"e{i}", {s.name: pair(i, s) for s in sites(Toy())}) for i in range(n))


def method(name: str, lora: LoRA | None = None, **options: object) -> Method:
    """A method whose pair is ``lora``. MoLE gets experts, unless there are some."""
    pair = lora or adapter()
    mixed = options.pop("experts", None)
    made = built_in()[name](
        r=pair.rank,
        lora_alpha=pair.alpha,
        lora_dropout=pair.dropout,
        use_rslora=pair.rslora,
        init_lora_weights=pair.init,
        **options,
    )
    return made.over(mixed or experts()) if isinstance(made, MoLE) else made


def axes(
    name: str,
    optimizer: object,
    lora: LoRA | None = None,
    *,
    head: bool = True,
    **options: object,
) -> Axes:
    """That method at work."""
    return method(name, lora, **options).axes(optimizer, head=head)


def experiment(method_axes: Axes, clients: Sequence[ClientId], **changes: object) -> Experiment:
    choices: dict[str, object] = {
        "run": "law",
        "axes": method_axes,
        "weights": {c: float(i + 1) for i, c in enumerate(clients)},
        "rounds": 3,
        "local_steps": 2,
        "seed": 0,
        "sites": tuple(site.name for site in sites(Toy())),
        "fixed": fixed_keys(sites(Toy()), method_axes.adapter),
        "draw": lambda seed: first_factors(method_axes.adapter, seed),
        "quorum": len(clients),
        "private": False,
    }
    return Experiment(**(choices | changes))


def agreed(exp: Experiment, clients: Mapping[ClientId, Client]) -> dict[ClientId, Client]:
    """The same clients, who have agreed to the run."""

    def with_client(name: ClientId) -> ClientAgreement:
        return ClientAgreement(
            client=name,
            experiment=exp,
            first=first_factors(exp.axes.adapter),
            base="toy",
            mechanism=repr(clients[name].privacy),
            clips=clients[name].privacy.private,
        )

    return {name: replace(client, agreement=with_client(name)) for name, client in clients.items()}


def begin(method_axes: Axes) -> GlobalState:
    first = first_factors(method_axes.adapter)
    return GlobalState(round=0, factors=first, drawn=dict.fromkeys(first, 0))


def loss(
    a_trainer: LocalTrainer, state: GlobalState, records: Notes, own: Factors | None = None
) -> float:
    """Of a state on records; with the tensors that one silo keeps to itself, if there are any."""
    factors = state.factors.updated(own or {})
    answers = evaluate(
        a_trainer.adapted, a_trainer.objective, factors, records, folded=state.folded
    )
    return answers.meters()["loss"].value()
