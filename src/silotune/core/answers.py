"""Answers: what a model made of records, one by one.

They stay where the records are. What is told of them are sums over many (``Meters``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .metrics import Meter, Meters


@dataclass(frozen=True, kw_only=True)
class Derived:
    """Scores that are no sum over records, made where all answers are.

    Attributes:
        metrics: by name.
        errors: metric -> standard error over records, of those whose error is known.
        classes: right class, given class, records, by ids, of every pair that occurs; empty for a
            task in which a record is not of one class.
        counts: of such a task, each label or type of entity by its id: how often it is there, was
            given, and both.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    classes: Sequence[tuple[int, int, int]] = ()
    counts: Sequence[tuple[int, int, int, int]] = ()


def nothing_more(answers: Answers) -> Derived:
    """The means are all that there is."""
    return Derived()


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """Of n records.

    Attributes:
        totals: metric -> (n,) what each record adds to it.
        counts: (n,) what metrics are means over: 1 each, or the tokens of a text.
        kept: name -> (n, ...) what scores are made from that are no sums; it goes nowhere.
        derive: makes these scores.
    """

    totals: Mapping[str, Tensor] = field(default_factory=dict)
    counts: Tensor = field(default_factory=lambda: torch.zeros(0))
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    derive: Callable[[Answers], Derived] = nothing_more

    def meters(self) -> Meters:
        """Sums by metric."""
        count = self.counts.double().sum().item()
        return {name: Meter(t.double().sum().item(), count) for name, t in self.totals.items()}

    def metrics(self) -> dict[str, float]:
        """Means by name, and the scores that are no means."""
        means = {name: meter.value() for name, meter in self.meters().items()}
        return {**means, **self.derive(self).metrics}

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
    first = known[0]
    return Answers(
        totals={n: torch.cat([p.totals[n].cpu() for p in known]) for n in first.totals},
        counts=torch.cat([part.counts.cpu() for part in known]),
        kept={n: torch.cat([p.kept[n].cpu() for p in known]) for n in first.kept},
        derive=first.derive,
    )
