"""Scores of several labels a record: F1, AUROC and average precision, as scikit-learn has them.

None of them is a sum over records, so they are made where all answers are, and stay there.

Shapes: n records, C labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from silotune.core import Answers, Derived

from .task import Goal

METRICS: Mapping[str, Goal] = {
    "accuracy": "max",
    "loss": "min",
    "micro_f1": "max",
    "macro_f1": "max",
    "auroc": "max",
    "average_precision": "max",
}


def scikit_learn() -> Any:
    """Its metrics.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        from sklearn import metrics
    except ImportError:
        raise ValueError(
            "objective: this task is measured by scikit-learn: pip install 'silotune[metrics]'"
        ) from None
    return metrics


def derived(answers: Answers) -> Derived:
    """F1 over all decisions and as a mean over labels; AUROC and average precision, means too.

    AUROC is of labels that some records have and some have not, average precision of those that
    some have; NaN where there is none, or a probability is none.
    """
    if "probability" not in answers.kept:
        return Derived()
    metrics = scikit_learn()
    right, given = answers.kept["right"].numpy(), answers.kept["given"].numpy()
    probability = answers.kept["probability"].double().numpy()
    some, rest = right.any(axis=0), (~right).any(axis=0)

    def mean(score: Any, which: Any) -> float:
        if not (which.any() and np.isfinite(probability).all()):
            return math.nan
        return float(score(right[:, which], probability[:, which], average="macro"))

    def f1(average: str) -> float:
        return float(metrics.f1_score(right, given, average=average, zero_division=0.0))

    return Derived(
        metrics={
            "micro_f1": f1("micro"),
            "macro_f1": f1("macro"),
            "auroc": mean(metrics.roc_auc_score, some & rest),
            "average_precision": mean(metrics.average_precision_score, some),
        },
        errors=f1_errors(answers.kept["right"], answers.kept["given"]),
        counts=counted(answers.kept["right"], answers.kept["given"], right & given),
    )


def counted(there: Tensor, given: Tensor, both: Any) -> list[tuple[int, int, int, int]]:
    """Each label by its id, with the sums of its columns.

    Args:
        there: (n, C) how often records have it.
        given: (n, C) how often they were given it.
        both: (n, C) both.
    """
    sums = (torch.as_tensor(part).long().sum(dim=0).tolist() for part in (there, given, both))
    return [(label, *numbers) for label, numbers in enumerate(zip(*sums, strict=True))]


def f1_errors(right: Tensor, given: Tensor) -> dict[str, float]:
    """Standard errors of micro and macro F1 over records, by the delta method.

    F1 is 2 hits / (right + given), a ratio of sums over records.

    Args:
        right: (n, C) which labels records have.
        given: (n, C) which labels they were given.
    """
    top, bottom = 2 * (right & given).double(), right.double() + given.double()
    n = len(top)
    if n < 2:
        return {"micro_f1": math.nan, "macro_f1": math.nan}

    def moves(up: Tensor, down: Tensor) -> Tensor:
        """What each record moves a ratio by."""
        total = down.sum(dim=0).clamp(min=1)
        return (up - down * (up.sum(dim=0) / total)) / total

    def error(moved: Tensor) -> float:
        return float((moved.square().sum() * n / (n - 1)).sqrt())

    micro = moves(top.sum(dim=1), bottom.sum(dim=1))
    return {"micro_f1": error(micro), "macro_f1": error(moves(top, bottom).mean(dim=1))}
