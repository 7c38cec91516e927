"""The heart of the method: one client's local training in one round. Begin to read here.

    load the state -> for each step: draw a batch -> gradients under the mechanism -> optimiser

The round's plan says which tensors a step moves; the client's mechanism owns what a step may see
of a record: it draws the batch, clips, adds the noise. Nothing of an earlier round or of another
client is left in the model; of the client's own earlier rounds the optimiser remembers what it is
given. What a round may cost, and what leaves, is the business of
``client.py``; what the server makes of it, of ``server.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from silotune.core import Batch, ClientDataset, ClientTask, Factors
from silotune.optim.galore import GaLore
from silotune.optim.memory import Memory, remembered, remind
from silotune.privacy import NoiseState

from .batches import microbatches, pass_tokens, to_device
from .participants import Client, LocalTrainer


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """What one client's local steps begin from.

    Attributes:
        task: the orders: plan, number of steps, learning rate, seed.
        client: whose records and mechanism they are.
        start: all tensors to begin from.
        memory: of the optimiser, from earlier rounds; empty for none.
        past: of correlated noise, from earlier rounds; None at the beginning and without it.
    """

    task: ClientTask
    client: Client
    start: Factors
    memory: Memory
    past: NoiseState | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What local steps come to.

    Attributes:
        factors: all tensors at the end, written in the adapter's own scale.
        memory: what the optimiser knows then; empty unless it is carried.
        dropped: records that were drawn and left out, a secret number.
    """

    factors: Factors
    memory: Memory
    dropped: int


def local_training(
    task: ClientTask,
    trainer: LocalTrainer,
    client: Client,
    start: Factors,
    *,
    memory: Memory | None = None,
    past: NoiseState | None = None,
) -> Trained:
    """Take the task's steps on the client's records.

    Args:
        task: the orders: plan, number of steps, learning rate, seed.
        trainer: the model, the objective and the optimiser.
        client: whose records and mechanism they are.
        start: all tensors to begin from.
        memory: of the optimiser, from earlier rounds; None or empty for none.
        past: of correlated noise, from earlier rounds; None at the beginning and without it.
    """
    adapted, mechanism, gain = trainer.adapted, client.privacy, trainer.gain(task.rank)
    adapted.load(start.with_b_times(1.0 / gain), task.folded, gain)
    adapted.model.train()
    optimizer = trainer.optimizer.build(adapted.tensors, task.learning_rates[0])
    if isinstance(optimizer, GaLore) and optimizer.decays_base:
        optimizer.stand_beside(adapted.bases())
    set_rate = rate_setter(optimizer, task.learning_rates[0])
    remind(optimizer, adapted.tensors, memory or {})
    randomness = mechanism.draws(task.seed, past)
    batches = mechanism.batches(len(client.train.lengths), task.steps, randomness)
    dropped = 0
    with _seeded(adapted.device, task.seed):  # adapter dropout has no other source
        steps = zip(task.plan.by_step(task.steps), task.learning_rates, batches, strict=True)
        for roles, rate, indices in steps:
            set_rate(rate)
            optimizer.zero_grad()
            active = adapted.train_only(roles, task.plan.fixed)
            records = _records(client.train, indices, trainer)
            dropped += mechanism.gradients(
                active, adapted.sink, trainer.losses, records, randomness
            )
            optimizer.step()
    carried = task.remembers_since is not None
    return Trained(
        factors=adapted.extract().with_b_times(gain),
        memory=remembered(optimizer, adapted.tensors) if carried else {},
        dropped=dropped,
    )


def rate_setter(optimizer: torch.optim.Optimizer, first: float) -> Callable[[float], None]:
    """What sets the rate of every group, each by what it is of the ``first`` one."""
    shares = [group["lr"] / first if first else 1.0 for group in optimizer.param_groups]

    def set_rate(rate: float) -> None:
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = share * rate

    return set_rate


def _records(
    examples: ClientDataset, indices: Sequence[int], trainer: LocalTrainer
) -> Iterator[Batch]:
    device = trainer.adapted.device
    each = pass_tokens(trainer.adapted)
    for part in microbatches(indices, examples.lengths, trainer.micro_batch, each):
        yield to_device(examples.batch(part), device)


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's generators of the CPU and of ``device``, as they were found again on leaving.

    Those of no other device: to seed one that is not there costs as much as a small step.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
