"""A learning rate from public numbers: as large as the noise of a run lets it be.

Over a run of SGD whose gradients are clipped and noised, all noise together walks

    eta C sqrt(sum_i T_i (w_i sigma_i)^2) / b

in every trained number, and moves the difference of two logits by that times phi, the norm of that
difference's gradient. The rule sets its standard deviation to 1.3, and lets no rate be larger than
40 / C, at which few steps swing whatever the noise is. How many numbers are trained does not enter.
Both constants are fitted on SST-2 and QNLI with MiniLM (two labels, FFA-LoRA, the server's
momentum), so it is a rule of thumb.

    T_i   noised steps of silo i in the run        w_i      its share of the mean of a round
    sigma_i  its noise multiplier                  b, C     expected batch, clipping norm
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from silotune.aggregation import ServerMomentum, ServerOptimizer, ServerStep
from silotune.core import Role
from silotune.optim import SGD

from .axes import ANY_SITE, Axes

SPREAD, LARGEST = 1.3, 40.0
"""Standard deviation that noise gives the difference of two logits; the largest rate times C."""

USUAL = "leave it out, which takes the usual rate of method and optimiser"


def ruled_rate(
    *,
    walk: float,
    batch_size: float,
    clipping_norm: float,
    steepness: float,
    server: ServerStep | None = None,
) -> float:
    """The local learning rate, to three digits.

    Args:
        walk: ``walk_of`` the silos.
        batch_size: b, expected records of a step.
        clipping_norm: C.
        steepness: phi.
        server: its momentum makes steps of one round count in later ones.
    """
    rate = LARGEST / clipping_norm
    if walk and steepness:
        rate = min(rate, SPREAD * batch_size / (clipping_norm * walk * steepness))
    if isinstance(server, ServerMomentum):
        rate *= (1.0 - server.momentum) / server.learning_rate
    return float(f"{rate:.3g}")


def walk_of(silos: Iterable[tuple[float, float, float]]) -> float:
    """``sqrt(sum_i T_i (w_i sigma_i)^2)``; of each silo (w_i, sigma_i, T_i)."""
    return math.sqrt(sum(steps * (share * sigma) ** 2 for share, sigma, steps in silos))


def refuse_unruled(axes: Axes, unit: str, *, correlated: bool, constant: bool) -> None:
    """Refuse what the rule does not speak of.

    Args:
        axes: the method at work, with the optimisers of both sides.
        unit: of privacy: none, example or client.
        correlated: whether noise hangs together over steps.
        constant: whether the learning rate is the same in all steps.

    Raises:
        ValueError: with the reason.
    """
    if unit != "example":
        raise ValueError(
            "learning_rate: auto is a rule for gradients of single records that are clipped and "
            f"noised (unit: example), and here none are; {USUAL}"
        )
    if correlated:
        raise ValueError(
            "noise: correlated takes a part of itself back, of which learning_rate: auto knows "
            "nothing; set noise to discrete or gaussian, or give a rate"
        )
    optimizer = axes.optimizer
    if type(optimizer) is not SGD or optimizer.momentum or optimizer.weight_decay:
        raise ValueError(
            "learning_rate: auto is a rule for plain SGD, without momentum, decay or pull at the "
            f"silo; {USUAL}"
        )
    if not constant:
        raise ValueError(
            "lr_schedule: learning_rate: auto is a rule for a rate that stays; set it to constant"
        )
    rule = axes.aggregator
    step = rule.step if isinstance(rule, ServerOptimizer) else None
    if not (isinstance(step, ServerMomentum) and step.momentum):
        raise ValueError(
            "server_optimizer: learning_rate: auto is fitted to runs with the server's momentum; "
            "set it to momentum, or give a rate"
        )
    if not _moves_alone(axes):
        raise ValueError(
            "learning_rate: auto is a rule for methods in which one factor of a pair moves and the "
            f"server averages it (ffa-lora, head-only, fed-sb); {USUAL}"
        )


def _moves_alone(axes: Axes) -> bool:
    """Whether noise enters weights in proportion, and stays what it was."""
    moving = axes.trained() - {Role.HEAD}
    if axes.adapter is not None:
        moving -= axes.adapter.frozen(ANY_SITE)
    linear = axes.adapter is None or axes.adapter.multilinear
    shared = all(plan.trained() == plan.share for plan in axes.schedule.plans())
    averaged = axes.aggregator.rule.replaceable and not axes.turning
    return linear and shared and averaged and len(moving) <= 1
