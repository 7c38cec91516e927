"""Local training of a crowd: clients of a simulation whose records go through the model together.

    records of all, cut where it is cheapest -> rows, each under its own client's tensors
    -> the clipped sum of every client -> each one's noise -> each one's step (``crowd_steps``)

Passes alone are shared. Batches, coins, noise, clipping norm, memory and rate are every client's
own, as in ``local_training``, which this equals to rounding: products are cut in other places. A
record does to those of other clients what it does to records of its own client that go through the
model with it, and no more of them go at once than of one client alone (``crowd_check``).

Shapes: K clients, n records of a pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from silotune.core import Batch, Crowd, Factors, Key, joinable
from silotune.privacy.mechanisms.clipping import clipped_sums

from .batches import microbatches, pass_tokens, side_by_side, to_device
from .crowd_steps import Clipped, Member, steps_of
from .local_training import Trained, Training
from .participants import LocalTrainer


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
    members = [_member(training) for training in trainings]
    steps = steps_of(members, own, trainer)
    dropped = torch.zeros(len(members), dtype=torch.long)
    for roles, rate in zip(task.plan.by_step(task.steps), task.learning_rates, strict=True):
        active = adapted.train_only(roles, task.plan.fixed)
        clipped = _clipped(members, own, trainer)
        steps.take(active.keys(), rate, clipped)
        dropped += clipped.dropped
    ends = _ends(own, trainer, len(members))
    return [
        Trained(factors=end.with_b_times(gain), memory=steps.memory(k), dropped=count)
        for k, (end, count) in enumerate(zip(ends, dropped.tolist(), strict=True))
    ]


def _differ(tensors: Sequence[Tensor]) -> bool:
    first, *others = tensors
    return any(t is not first and not torch.equal(t, first) for t in others)


def _member(training: Training) -> Member:
    task, client = training.task, training.client
    assert joinable(client.train)
    draws = client.privacy.draws(task.seed, training.past)
    batches = client.privacy.batches(len(client.train.lengths), task.steps, draws)
    return Member(training=training, records=client.train, draws=draws, batches=batches)


def _ends(own: Mapping[Key, Tensor], trainer: LocalTrainer, clients: int) -> list[Factors]:
    """All tensors of each client, on the CPU; those that all have alike are there once."""
    here = trainer.adapted.extract()
    apart = {key: t.detach().to("cpu", copy=True).unbind() for key, t in own.items()}
    return [here.updated({key: each[k] for key, each in apart.items()}) for k in range(clients)]


def _clipped(
    members: Sequence[Member], own: Mapping[Key, Tensor], trainer: LocalTrainer
) -> Clipped:
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
    mechanisms = [member.mechanism for member in members]
    norms = torch.tensor([m.max_grad_norm for m in mechanisms], device=device)
    grids = torch.tensor([m.grid for m in mechanisms], dtype=torch.float64, device=device)
    sums: dict[Key, Tensor] = {}
    dropped = torch.zeros(len(members), dtype=torch.long, device=device)
    each = pass_tokens(adapted)
    for part in microbatches(range(len(which)), lengths, trainer.micro_batch, each):
        places = sorted(part, key=lambda place: whose[place])
        owners = torch.tensor([whose[place] for place in places], device=device)
        batch = to_device(_batch(members, [(whose[p], which[p]) for p in places]), device)
        with adapted.sink.collect_rows(len(places), Crowd(own, owners)) as rows:
            torch.autograd.backward(trainer.losses(batch).sum())
            if rows:
                found, bad = clipped_sums(rows, owners, norms, grids)
                sums = {k: sums[k].add_(t) if k in sums else t for k, t in found.items()}
                dropped += bad
    return Clipped(sums, [len(indices) for indices in drawn], dropped.cpu())


def _of(lengths: Sequence[int], indices: Sequence[int]) -> list[int]:
    return [lengths[i] for i in indices]


def _batch(members: Sequence[Member], places: Sequence[tuple[int, int]]) -> Batch:
    """Records by client and number, those of a client in a row."""
    indices: dict[int, list[int]] = {}
    for client, record in places:
        indices.setdefault(client, []).append(record)
    batches = [members[client].records.batch(own) for client, own in indices.items()]
    return side_by_side(batches, members[places[0][0]].records.padding)
