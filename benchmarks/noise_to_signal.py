"""What noise leaves of a run's gain, by its noise over its signal: the bounds of ``plan``'s words.

Private softmax regression on made features, far quicker than a model: classes x features numbers
are trained, records are clipped to 1, every silo adds its own noise, and the best of three
learning rates counts. Printed is the gain over chance, as a share of the gain without noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATIOS = (0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 0.8)
TASKS = ((2, 64, 0.5), (10, 64, 1.0), (50, 64, 1.0), (10, 256, 0.7))
"""Classes, features, distance of classes."""
RUNS = ((1, 64, 50), (5, 64, 50), (5, 32, 20), (1, 128, 100))
"""Silos, batch, steps."""
TRAIN, TEST = 5000, 1000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """Records x (n, d) with classes y (n,), the last ``TEST`` of them to score on."""

    classes: int
    x: Floats
    y: NDArray[np.int64]

    def accuracy(self, weights: Floats) -> float:
        """On the last records."""
        found = (self.x[TRAIN:] @ weights.T).argmax(1)
        return float((found == self.y[TRAIN:]).mean())


def made(classes: int, features: int, distance: float) -> Task:
    """Clouds around random directions, scaled to length one."""
    draw = np.random.default_rng(0)
    middles = draw.normal(size=(classes, features))
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    y = draw.integers(classes, size=TRAIN + TEST)
    x = distance * middles[y] + draw.normal(size=(len(y), features)) / math.sqrt(features)
    return Task(classes, x / np.linalg.norm(x, axis=1, keepdims=True), y)


def trained(task: Task, sigma: float, run: Sequence[int], lr: float) -> float:
    """Accuracy after the steps of a run."""
    silos, batch, steps = run
    draw, own = np.random.default_rng(1), np.array_split(np.arange(TRAIN), silos)
    weights = np.zeros((task.classes, task.x.shape[1]))
    for _ in range(steps):
        mean = np.zeros_like(weights)
        for records in own:
            chosen = records[draw.random(len(records)) < batch / len(records)]
            x, errors = task.x[chosen], _errors(task, weights, chosen)
            norms = np.linalg.norm(errors, axis=1, keepdims=True)  # records have length one
            clipped = errors * np.minimum(1, 1 / np.maximum(norms, 1e-9))
            mean += (clipped.T @ x + sigma * draw.normal(size=weights.shape)) / batch / silos
        weights -= lr * mean
    return task.accuracy(weights)


def _errors(task: Task, weights: Floats, chosen: NDArray[np.int64]) -> Floats:
    logits = task.x[chosen] @ weights.T
    shares: Floats = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    shares[np.arange(len(chosen)), task.y[chosen]] -= 1
    return shares


def kept(task: Task, ratio: float, run: Sequence[int], whole: float) -> float:
    """Share of the gain that is left at a noise / signal of the whole run."""
    silos, batch, steps = run
    numbers = task.classes * task.x.shape[1]
    sigma = ratio * batch * math.sqrt(steps * silos / numbers)
    best = max(trained(task, sigma, run, lr) for lr in (0.5, 2, 8))
    return (best - 1 / task.classes) / (whole - 1 / task.classes)


def main() -> None:
    """Print a row for every ratio."""
    found: dict[float, list[float]] = {ratio: [] for ratio in RATIOS}
    for task in (made(*sizes) for sizes in TASKS):
        for run in RUNS:
            whole = max(trained(task, 0.0, run, lr) for lr in (2, 8, 32))
            for ratio in RATIOS:
                found[ratio].append(kept(task, ratio, run, whole))
    print("noise / signal   least   median   most   (share of the gain without noise)")
    for ratio, shares in found.items():
        print(f"{ratio:14} {min(shares):7.0%} {np.median(shares):8.0%} {max(shares):6.0%}")


if __name__ == "__main__":
    main()
