"""The usual optimiser and learning rate: what a run takes that says none. Stated here alone.

Where every record's gradient is clipped, SGD: its step is at most as long as the clipping norm C
lets it be. Where none is, AdamW: it divides the scale of gradients out, which differs between
models by more than ten times, and with it the rate at which plain SGD diverges.

    rate = base(optimiser, clipped or not) x rate_scale(method) x (1 - momentum) / C

(C where SGD is clipped, momentum where there is some, at the silo or at the server). Bases and
scales are measured: docs/methods.md, "Learning rates"; ``python -m benchmarks.learning_rates``.
Those of fed-sb and fedask are not: they are taken over from methods whose A stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from silotune.aggregation import ServerMomentum, ServerStep
from silotune.optim import SGD, AdamW, OptimizerConfig
from silotune.privacy import ExampleDP, PrivacyChoice

from .base import Method

Moved = Literal["sgd", "adamw"]
"""By what; a method's own optimiser is made of AdamW."""

BASE: Mapping[tuple[Moved, bool], float] = {
    ("sgd", True): 0.5,
    ("sgd", False): 0.1,
    ("adamw", True): 0.001,
    ("adamw", False): 0.001,
}
"""(optimiser, whether records are clipped) -> the rate of FedIT, at C = 1."""


def usual_kind(method: type[Method], clipped_at: float | None) -> Moved:
    """The local optimiser of a run that names none.

    Args:
        method: its class.
        clipped_at: C, where every record's gradient is clipped and noised; None where it is not.
    """
    return "adamw" if method.made_of_adamw or clipped_at is None else "sgd"


def usual_rate(
    method: type[Method],
    moved: Moved,
    clipped_at: float | None = None,
    *,
    momentum: float = 0.0,
    server: ServerStep | None = None,
) -> float:
    """The learning rate of a run that names none.

    Args:
        method: its class.
        moved: the local optimiser.
        clipped_at: C, where every record's gradient is clipped and noised; None where it is not.
        momentum: of SGD.
        server: the server's optimiser.
    """
    rate = BASE[moved, clipped_at is not None] * method.rate_scale * (1.0 - momentum)
    if clipped_at is not None and moved == "sgd":
        rate /= clipped_at
    if isinstance(server, ServerMomentum):
        rate *= (1.0 - server.momentum) / server.learning_rate
    return float(f"{rate:.3g}")


def usual_optimizer(
    method: Method, privacy: PrivacyChoice, server: ServerStep | None = None
) -> OptimizerConfig:
    """The usual one at its usual rate.

    Args:
        method: what is trained.
        privacy: who is hidden.
        server: the server's optimiser.
    """
    own = type(method) if isinstance(method, Method) else Method  # what is none is refused later
    clipped_at = privacy.max_grad_norm if isinstance(privacy, ExampleDP) else None
    moved = usual_kind(own, clipped_at)
    make = AdamW if moved == "adamw" else SGD
    return make(lr=usual_rate(own, moved, clipped_at, server=server))
