"""The one-run audit: canaries in one training run, and an adversary who guesses which were in it.

Each canary (a record of ``canaries.NumberCanaries``) is in the data by a fair coin. The adversary
sees every message, adds up for each canary what its slot says, and speaks on the clearest cases
only. How often it is right bounds epsilon from below (Steinke et al. 2023, arXiv 2305.08846). One
run is enough, of the real loop with real messages, ledger, coins and noise; several silos and runs
with different canaries are one with more of them. But the bound is loose, so this is a smoke alarm
for the whole, and the two-world audit measures the step.

Shapes: m canaries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .canaries import NumberCanaries
from .lower_bounds import one_run
from .transcript import Message

SPOKEN = 20
"""The adversary speaks on one canary in so many, or more where a high claim asks for it."""

MARGIN = 0.25
"""By how much perfect guesses should exceed the claim."""


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """How well the adversary did.

    Attributes:
        canaries: in or out by a fair coin each.
        spoken: canaries that it spoke on.
        right: how often it was right.
        delta: of the claim.
    """

    canaries: int
    spoken: int
    right: int
    delta: float

    @property
    def epsilon(self) -> float:
        """What the guesses prove."""
        return one_run(self.canaries, self.spoken, self.right, self.delta)

    @property
    def most(self) -> float:
        """What they would prove if all were right: a claim above it cannot be refuted."""
        return one_run(self.canaries, self.spoken, self.spoken, self.delta)


def fair_coins(n: int) -> Tensor:
    """(n,) which canaries are in the data; from the operating system."""
    return torch.from_numpy(np.random.default_rng().random(n) < 0.5)


def evidence(
    messages: Sequence[Message],
    slots: NumberCanaries,
    *,
    unit: float,
    rate: float,
    sigma: float,
) -> Tensor:
    """(m,) log-odds that each canary was in, from what a silo sent in rounds of one step.

    Unit, rate and sigma sharpen the guesses; wrong ones make the bound lower, not wrong.

    Args:
        messages: of that silo.
        slots: the canaries.
        unit: by how much one canary moves its slot in a step, C / b.
        rate: chance of a record to be in a step.
        sigma: noise multiplier of a step.
    """
    total = torch.zeros(len(slots.layer), dtype=torch.float64)
    for message in messages:
        total += _log_odds(slots.read(message.moved) / unit, rate, sigma)
    return total


def guess(odds: Tensor, inside: Tensor, claim: float, delta: float) -> Guesses:
    """Speak on the clearest canaries: on so many that the claim could be refuted, if it can be.

    Args:
        odds: (m,) the evidence.
        inside: (m,) the truth.
        claim: epsilon.
        delta: of the claim.
    """
    spoken = _enough(len(odds), claim, delta)
    clearest = odds.abs().argsort(descending=True)[:spoken]
    right = int(((odds[clearest] > 0) == inside[clearest]).sum())
    return Guesses(canaries=len(odds), spoken=spoken, right=right, delta=delta)


def _enough(canaries: int, claim: float, delta: float) -> int:
    """Depends on public numbers alone, as it must; a few mistakes still leave an alarm."""
    spoken = max(1, canaries // SPOKEN)
    while spoken < canaries and one_run(canaries, spoken, spoken, delta) <= claim + MARGIN:
        spoken = min(canaries, math.ceil(1.2 * spoken))
    return spoken


def _log_odds(x: Tensor, rate: float, sigma: float) -> Tensor:
    """Log-likelihood ratio of "in the data" (a 1 in the step, with this chance) for N(0, sigma).

    Most slots hold noise alone; if they show less of it than there should be, all the better.
    """
    seen = float(x.abs().median()) / 0.6745  # of a normal: half lie within 0.6745 sigma
    log_ratio = (2.0 * x - 1.0) / (2.0 * max(min(sigma, seen), 1e-3) ** 2)
    absent = torch.full_like(x, 1.0 - rate).log()  # from the step, though in the data
    return torch.logaddexp(absent, log_ratio + math.log(rate))
