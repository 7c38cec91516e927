"""Evaluation: metrics of a state on records that may be looked at. Never part of training."""

from __future__ import annotations

import torch

from silotune.adapters import AdaptedModel
from silotune.core import Examples, Factors, Meters, Task, append_line, pool
from silotune.tasks import Objective

from .client import Bench, Silo, microbatches, received, to_device


def evaluate(
    adapted: AdaptedModel,
    objective: Objective,
    factors: Factors,
    examples: Examples,
    batch_size: int = 64,
) -> Meters:
    """Metrics of ``factors`` over all of ``examples``; records of similar length go together."""
    adapted.load(factors)
    adapted.model.eval()
    everything = range(len(examples.lengths))
    with torch.inference_mode():
        return pool(
            objective.measure(adapted.model, to_device(examples.batch(part), adapted.device))
            for part in microbatches(everything, examples.lengths, batch_size)
        )


def score_at_home(task: Task, bench: Bench, silo: Silo) -> None:
    """Score the task's factors on the silo's held-out records; the result stays in its folder.

    Raises:
        ValueError: if the silo holds nothing out or owns no folder.
    """
    if silo.held_out is None or silo.home is None:
        raise ValueError(
            f"evaluation: silo {silo.client} has no held-out records to score on; give it a valid "
            "split, set data.valid_fraction, or choose evaluation: public"
        )
    meters = evaluate(bench.adapted, bench.objective, received(task, bench), silo.held_out)
    metrics = {name: meter.value() for name, meter in meters.items()}
    append_line(silo.home / "metrics.jsonl", {"round": task.round, "metrics": metrics})
