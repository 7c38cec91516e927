"""The engine with next to nothing to do: what tasks, messages and pooling cost by themselves.

73,728 numbers in 24 tensors, as LoRA of rank 8 has on MiniLM's queries and values. A client takes
one step on one record, without privacy. Everything else is what every run goes through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from silotune.adapters import inject
from silotune.core import Answers, Batch, ClientId, GlobalState, Site
from silotune.engine import Client, Experiment, LocalTrainer, federate
from silotune.methods import HeadOnly
from silotune.optim import SGD
from silotune.privacy import NoPrivacy
from silotune.runtimes import InProcess

from .measure import Peak, peak

WIDTH, RANK, TENSORS = 384, 8, 24
FLOATS = WIDTH * RANK * TENSORS


class Sum(nn.Module):
    """The sum of small linear maps."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(WIDTH, RANK, bias=False) for _ in range(TENSORS))

    def forward(self, x: Tensor) -> Tensor:
        """(n, WIDTH) to (n, RANK)."""
        return torch.stack([part(x) for part in self.parts]).sum(dim=0)


@dataclass(frozen=True)
class Total:
    """The output itself is the loss: every tensor gets a gradient."""

    metric: str = "loss"

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) sums."""
        total: Tensor = model(batch["x"]).sum(dim=1)
        return total

    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """Nothing is evaluated here."""
        return Answers()


@dataclass(frozen=True)
class OneRecord:
    """A silo with a single record."""

    lengths: Sequence[int] = (1,)

    def batch(self, indices: Sequence[int]) -> Batch:
        """It, however often it is asked for."""
        n = len(indices)
        return {"x": torch.ones(n, WIDTH), "labels": torch.zeros(n, dtype=torch.int64)}


def run_job(clients: int, rounds: int) -> None:
    """A whole federated run."""
    axes = HeadOnly().axes(SGD(lr=0.1), head=True)
    model = Sum()
    heads = [Site(f"parts.{i}", part, WIDTH, RANK) for i, part in enumerate(model.parts)]
    adapted = inject(model, [], heads, None)
    first = adapted.extract()
    names = [ClientId(f"client-{i:04d}") for i in range(clients)]
    records, privacy = OneRecord(), NoPrivacy(batch_size=1)
    silos = {
        name: Client(client=name, train=records, held_out=None, privacy=privacy) for name in names
    }
    trainer = LocalTrainer(
        adapted=adapted,
        objective=Total(),
        optimizer=axes.optimizer,
        draw=lambda _: first,
        gain=axes.gain,
        micro_batch=1,
    )
    experiment = Experiment(
        run="no-op",
        axes=axes,
        weights=dict.fromkeys(names, 1.0),
        rounds=rounds,
        local_steps=dict.fromkeys(names, 1),
        seed=0,
        draw=lambda _: first,
        quorum=clients,
        private=False,
    )
    finished = list(
        federate(experiment, InProcess(trainer, silos), GlobalState(round=0, factors=first))
    )
    assert len(finished) == rounds
    assert all(len(done.pooled.clients) == clients for done in finished)


def job_peak(clients: int) -> Peak:
    """The memory that one round of so many clients takes, after a small one to warm up."""
    torch.set_num_threads(1)
    run_job(clients=2, rounds=1)
    return peak(lambda: run_job(clients, rounds=1))
