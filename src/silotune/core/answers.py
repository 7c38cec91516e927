"""Answers: what a model made of records, one by one.

They stay where the records are. What is told of them are sums over many (``Meters``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .classes import macro_f1
from .metrics import Meter, Meters


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """Of n records.

    Attributes:
        totals: metric -> (n,) what each record adds to it.
        counts: (n,) what metrics are means over: 1 each, or the tokens of a text.
        right: (n,) ids of the right classes; empty for a task without.
        given: (n,) ids of the classes that the model chose.
    """

    totals: Mapping[str, Tensor] = field(default_factory=dict)
    counts: Tensor = field(default_factory=lambda: torch.zeros(0))
    right: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    given: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

    def meters(self) -> Meters:
        """Sums by metric."""
        count = self.counts.double().sum().item()
        return {name: Meter(t.double().sum().item(), count) for name, t in self.totals.items()}

    def metrics(self) -> dict[str, float]:
        """Means by name; of classes also their mean F1, of a language model its perplexity."""
        values = {name: meter.value() for name, meter in self.meters().items()}
        if len(self.right):
            values["macro_f1"] = macro_f1(self.pairs())
        if values and "accuracy" not in values:
            values["perplexity"] = math.exp(min(values["loss"], 700.0))
        return values

    def pairs(self) -> list[tuple[int, int, int]]:
        """Right class, given class, and how many records: of all pairs that there are."""
        times = Counter(zip(self.right.tolist(), self.given.tolist(), strict=True))
        return [(right, given, times[right, given]) for right, given in sorted(times)]

    def error(self, metric: str) -> float:
        """Standard error of a metric's mean over records, which are drawn whole (ratio estimator).

        NaN for fewer than two records. Cochran, Sampling Techniques, section 6.4.
        """
        total, counts = self.totals[metric].double(), self.counts.double()
        n = len(counts)
        if n < 2:
            return float("nan")
        beside = total - counts * (total.sum() / counts.sum())
        return float((beside.square().sum() * n / (n - 1)).sqrt() / counts.sum())


def joined(parts: Iterable[Answers]) -> Answers:
    """All of them, one after another, in memory of the processor."""
    known = list(parts)
    if not known:
        return Answers()
    return Answers(
        totals={n: torch.cat([p.totals[n].cpu() for p in known]) for n in known[0].totals},
        counts=torch.cat([part.counts.cpu() for part in known]),
        right=torch.cat([part.right.cpu() for part in known]),
        given=torch.cat([part.given.cpu() for part in known]),
    )
