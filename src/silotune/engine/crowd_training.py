"""Local training of a crowd: clients of a simulation whose records go through the model together.

    records of all, cut where it is cheapest -> rows, each under its own client's tensors
    -> the clipped sum of every client -> each one's noise -> each one's optimiser

Passes alone are shared. Batches, coins, noise, clipping norm, memory and rate are every client's
own, as in ``local_training``, which this equals to rounding: products are cut in other places. A
record does to those of other clients what it does to records of its own client that go through the
model with it, and no more of them go at once than of one client alone (``crowd_check``).

Shapes: K clients, n records of a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from silotune.core import Batch, Crowd, Factors, Joinable, Key
from silotune.optim.memory import remembered, remind
from silotune.privacy import RoundRandomness
from silotune.privacy.mechanisms.clipping import Accumulated, clipped_sums

from .batches import microbatches, side_by_side, to_device
from .local_training import Trained, Training, rate_setter
from .participants import LocalTrainer


@dataclass(frozen=True, eq=False)
class Member:
    """One client of a crowd.

    Attributes:
        training: what it is to do.
        records: to learn from.
        tensors: its own, in the memory of the crowd's; the model's, where all have the same.
        optimizer: over them.
        set_rate: of the optimiser.
        draws: its coins and noise.
        batches: what its coins draw, a step each.
    """

    training: Training
    records: Joinable
    tensors: Mapping[Key, nn.Parameter]
    optimizer: torch.optim.Optimizer
    set_rate: Callable[[float], None]
    draws: RoundRandomness
    batches: Iterator[Sequence[int]]


def train_together(trainings: Sequence[Training], trainer: LocalTrainer) -> list[Trained]:
    """Take the steps of several clients, of one plan, rank, fold and rates.

    Args:
        trainings: of clients whose records are ``Joinable``.
        trainer: whose adapter is ``crowdable``.
    """
    adapted, task = trainer.adapted, trainings[0].task
    gain = trainer.gain(task.rank)
    starts = [training.start.with_b_times(1.0 / gain) for training in trainings]
    adapted.load(starts[0], task.folded, gain)
    adapted.model.train()
    moving = task.plan.only_trained(starts[0]).keys()
    own = {
        key: torch.stack([start[key].to(parameter) for start in starts])
        for key, parameter in adapted.tensors.items()
        if key in moving or _differ([start[key] for start in starts])
    }
    members = [_member(training, trainer, own, k) for k, training in enumerate(trainings)]
    dropped = torch.zeros(len(members), dtype=torch.long)
    for roles, rate in zip(task.plan.by_step(task.steps), task.learning_rates, strict=True):
        active = adapted.train_only(roles, task.plan.fixed)
        clipped = _clipped(members, own, trainer)
        for member, sums in zip(members, clipped, strict=True):
            _step(member, active.keys(), rate, sums)
        dropped += torch.tensor([sums.dropped for sums in clipped])
    return [
        _end(member, gain, count) for member, count in zip(members, dropped.tolist(), strict=True)
    ]


def _differ(tensors: Sequence[Tensor]) -> bool:
    first, *others = tensors
    return any(t is not first and not torch.equal(t, first) for t in others)


def _member(
    training: Training, trainer: LocalTrainer, own: Mapping[Key, Tensor], place: int
) -> Member:
    task, client, model = training.task, training.client, trainer.adapted.tensors
    tensors = {k: nn.Parameter(own[k][place]) if k in own else p for k, p in model.items()}
    optimizer = trainer.optimizer.build(tensors, task.learning_rates[0])
    remind(optimizer, tensors, training.memory)
    draws = client.privacy.draws(task.seed, training.past)
    assert isinstance(client.train, Joinable)
    return Member(
        training=training,
        records=client.train,
        tensors=tensors,
        optimizer=optimizer,
        set_rate=rate_setter(optimizer, task.learning_rates[0]),
        draws=draws,
        batches=client.privacy.batches(len(client.train.lengths), task.steps, draws),
    )


def _clipped(
    members: Sequence[Member], own: Mapping[Key, Tensor], trainer: LocalTrainer
) -> list[Accumulated]:
    """One step's clipped sums of every client."""
    adapted, device = trainer.adapted, trainer.adapted.device
    drawn = [next(member.batches) for member in members]
    whose = [k for k, indices in enumerate(drawn) for _ in indices]
    which = [i for indices in drawn for i in indices]
    lengths = [
        length
        for member, indices in zip(members, drawn, strict=True)
        for length in _of(member.records.lengths, indices)
    ]
    mechanisms = [member.training.client.privacy for member in members]
    norms = torch.tensor([m.max_grad_norm for m in mechanisms], device=device)
    grids = torch.tensor([m.grid for m in mechanisms], dtype=torch.float64, device=device)
    sums: dict[Key, Tensor] = {}
    dropped = torch.zeros(len(members), dtype=torch.long, device=device)
    for part in microbatches(range(len(which)), lengths, trainer.micro_batch, device):
        places = sorted(part, key=lambda place: whose[place])
        owners = torch.tensor([whose[place] for place in places], device=device)
        batch = to_device(_batch(members, [(whose[p], which[p]) for p in places]), device)
        with adapted.sink.collect_rows(len(places), Crowd(own, owners)) as rows:
            torch.autograd.backward(trainer.losses(batch).sum())
            if rows:
                found, bad = clipped_sums(rows, owners, norms, grids)
                sums = {k: sums[k].add_(t) if k in sums else t for k, t in found.items()}
                dropped += bad
    counts = dropped.tolist()
    return [
        Accumulated({key: t[k] for key, t in sums.items()}, len(drawn[k]), counts[k])
        for k in range(len(members))
    ]


def _of(lengths: Sequence[int], indices: Sequence[int]) -> list[int]:
    return [lengths[i] for i in indices]


def _batch(members: Sequence[Member], places: Sequence[tuple[int, int]]) -> Batch:
    """Records by client and number, those of a client in a row."""
    indices: dict[int, list[int]] = {}
    for client, record in places:
        indices.setdefault(client, []).append(record)
    batches = [members[client].records.batch(own) for client, own in indices.items()]
    return side_by_side(batches, members[places[0][0]].records.padding)


def _step(member: Member, active: Collection[Key], rate: float, clipped: Accumulated) -> None:
    """One client's own noise and step."""
    member.set_rate(rate)
    member.optimizer.zero_grad()
    trained = {key: member.tensors[key] for key in active}
    member.training.client.privacy.noised(trained, clipped, member.draws)
    member.optimizer.step()


def _end(member: Member, gain: float, dropped: int) -> Trained:
    carried = member.training.task.remembers_since is not None
    ends = {key: p.detach().to("cpu", copy=True) for key, p in member.tensors.items()}
    return Trained(
        factors=Factors(ends).with_b_times(gain),
        memory=remembered(member.optimizer, member.tensors) if carried else {},
        dropped=dropped,
    )
