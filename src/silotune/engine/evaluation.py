"""Evaluation: metrics of a state on records that may be looked at. Never part of training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from silotune.adapters import AdaptedModel
from silotune.core import (
    Answers,
    ClientDataset,
    ClientTask,
    ClientUpdate,
    Factors,
    append_line,
    joined,
)
from silotune.linalg import Matrix
from silotune.objectives import PerExampleLoss
from silotune.objectives.registry import derive_of

from .batches import microbatches, pass_tokens, to_device
from .client_errors import discreet, over_budget, result
from .client_releases import ACCURACY, noisy_score
from .client_state import start_of
from .participants import SCORED, Client, LocalTrainer


def evaluate(
    adapted: AdaptedModel,
    objective: PerExampleLoss,
    factors: Factors,
    examples: ClientDataset,
    batch_size: int = SCORED,
    folded: Mapping[str, Matrix] | None = None,
) -> Answers:
    """Answers of ``factors`` to all of ``examples``; records of similar length go together.

    Args:
        adapted: is loaded with the factors.
        objective: measures.
        factors: of all tensors.
        examples: to look at.
        batch_size: records that go through the model at once.
        folded: what has been added to the base; None for nothing.
    """
    everything = range(len(examples.lengths))
    parts = microbatches(everything, examples.lengths, batch_size, pass_tokens(adapted))
    return answers_to(adapted, objective, factors, examples, parts, folded)


def answers_to(
    adapted: AdaptedModel,
    objective: PerExampleLoss,
    factors: Factors,
    examples: ClientDataset,
    parts: Iterable[Sequence[int]],
    folded: Mapping[str, Matrix] | None = None,
) -> Answers:
    """Answers to some of them.

    Args:
        adapted: as for ``evaluate``, like all others.
        objective: measures.
        factors: of all tensors.
        examples: to look at.
        parts: indices of records that go through the model at once.
        folded: what has been added to the base.
    """
    adapted.load(factors, folded or {})
    adapted.model.eval()
    with torch.inference_mode():
        answers = joined(
            adapted.measure(objective.measure, to_device(examples.batch(part), adapted.device))
            for part in parts
        )
    return replace(answers, derive=derive_of(objective))


def score_at_home(task: ClientTask, trainer: LocalTrainer, client: Client) -> ClientUpdate:
    """Score the task's factors on the silo's held-out records; the scores stay in its folder.

    What comes back says that it is done, or refused; and a noisy score if the silo releases one.
    Nobody is told whether there were any records to score on: of none, none are right. Its price
    is that of a count that one record moves by 1: so no more records are scored at once for it than
    are trained at once, of which it is proved that they do not move each other.

    Raises:
        ValueError: if the silo owns no folder.
    """
    home, held_out = client.folder, client.held_out

    def work() -> ClientUpdate:
        client.check_order(task, "scored")
        right = 0
        if held_out is not None:
            factors = start_of(task, trainer, client)
            released = client.releases.metric is not None
            size = min(trainer.eval_batch, trainer.micro_batch) if released else trainer.eval_batch
            answers = evaluate(
                trainer.adapted, trainer.objective, factors, held_out, size, task.folded
            )
            line = {"round": task.round, "metrics": answers.metrics()}
            append_line(home / "metrics.jsonl", line)
            meters = answers.meters()
            right = round(meters[ACCURACY].total) if ACCURACY in meters else 0
        if client.releases.metric is None:
            return result(task)
        with client.store() as store:
            told = noisy_score(task, client, store, right)
        return over_budget(task) if told is None else replace(result(task), meters=told)

    return discreet(task, home, work) if client.secretive else work()
