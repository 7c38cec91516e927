"""Settling: a learning rate that was left to the rule becomes a number before a run begins.

It is chosen by public numbers, and texts that anybody knows; a run keeps what it began with.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

from silotune.core.units import number_text
from silotune.methods.rate_rule import SPREAD, ruled_rate, walk_of
from silotune.privacy import AnyCharge, ExampleDP
from silotune.runs.folder import RunFolder
from silotune.terms.agreement import agree
from silotune.terms.opening import open_unproved

from .description import Description
from .identity import decided_in
from .public_numbers import public_numbers, shares
from .steepness import steepness

D = TypeVar("D", bound=Description)

RUN = "0" * 12
"""Stands for the run, which has no name yet."""


def settled(federation: D, folder: RunFolder | None = None) -> D:
    """The federation with a number in place of ``auto``; itself where nothing is to be chosen.

    Args:
        federation: as described.
        folder: of a run that may have begun, with a number that it goes on with.

    Raises:
        ValueError: naming the field, if something that is public is not known.
    """
    if federation.learning_rate is None:
        return federation
    kept = None if folder is None else _kept(folder)
    rate, reasons = _ruled(federation) if kept is None else (kept, ())
    optimizer = replace(federation.terms.optimizer, lr=rate)  # type: ignore[type-var]
    return federation.settled_at(optimizer, reasons)


def _kept(folder: RunFolder) -> float | None:
    """The rate that a run began with; None if none has begun there, or no file says it."""
    if not (folder.state.is_file() and folder.description.is_file()):
        return None
    with folder.advising():
        return float(decided_in(folder.description)["terms"]["optimizer"]["lr"])


def _ruled(federation: Description) -> tuple[float, tuple[str, ...]]:
    """The rate by the rule, and a sentence that says why."""
    terms = federation.terms
    labels, sizes, _ = public_numbers(federation)
    model = open_unproved(terms, labels, federation.machine, federation.given)
    agreement = agree(terms, model, labels, sizes, {})
    experiment = agreement.experiment(RUN)
    fewer = math.sqrt(len(sizes) / terms.cohorts.expected(len(sizes)))  # less is averaged
    silos = [
        (fewer * share, _sigma(agreement.price(name)), terms.rounds * terms.steps_of(sizes[name]))
        for name, share in zip(experiment.clients, shares(experiment, sizes), strict=True)
    ]
    steep = steepness(model, terms, labels)
    assert isinstance(terms.privacy, ExampleDP), "there is no rule for others"
    rate = ruled_rate(
        walk=walk_of(silos),
        batch_size=terms.batch_size,
        clipping_norm=terms.privacy.max_grad_norm,
        steepness=steep.norm,
        server=terms.server_optimizer,
    )
    return rate, (
        f"learning_rate: {rate:g} by the rule: the noise of the whole run then moves the "
        f"difference of two labels by at most {SPREAD:g} (standard deviation), which moves by "
        f"{number_text(steep.norm)} a unit on {steep.texts} texts made of labels",
    )


def _sigma(charge: AnyCharge | None) -> float:
    return charge.noise_multiplier if charge else 0.0
