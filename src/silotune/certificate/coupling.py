"""Coupling: whether what a certificate says of records in one batch can have been measured.

It cannot be measured again without the model. What the gradient check lets pass is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields

from silotune.engine.isolation import COMPANY, PLACES, ROUNDING, Coupling
from silotune.runs.privacy_statement import PrivacyStatement

from .fields import strange

MOST = max(PLACES, COMPANY) * ROUNDING * (1 + 1e-9)
"""By how many C the sum of all records beside another may move, if each moves by rounding only."""

_COUNTS = ("together", "others")
_APART = ("others", "moved", "moved_at_large", "small_norm", "large_norm")
"""Zero where records go through the model one by one."""


def measurable(statement: PrivacyStatement) -> Iterator[str]:
    """What no check can have found, a sentence's end each.

    Args:
        statement: a certificate whose coupling is an object.
    """
    found = statement.coupling
    if statement.unit != "example":
        if found:
            yield "is stated, though no single records are hidden"
        return
    if not found:
        yield "is empty, though single records are hidden"
        return
    wrong = [*strange(found, [f.name for f in fields(Coupling)]), *_numbers(statement)]
    yield from wrong
    if not wrong:
        yield from _possible(Coupling(**found))  # type: ignore[arg-type]  # looked at above


def _numbers(statement: PrivacyStatement) -> Iterator[str]:
    for name, value in statement.coupling.items():
        kinds = (int,) if name in _COUNTS else (int, float)
        if type(value) not in kinds:
            yield f"{name} is {value!r}: no {'whole ' if name in _COUNTS else ''}number"
        elif not math.isfinite(value):
            yield f"{name} is {value}: not finite"
        elif value < 0:
            yield f"{name} is {value}: below 0"


def _possible(found: Coupling) -> Iterator[str]:
    if found.together < 1:
        yield f"together is {found.together}: at least one record goes through the model"
    if found.together == 1:
        for name in _APART:
            if value := getattr(found, name):
                yield f"{name} is {value}, though records go through the model one by one"
        return
    if not found.others:
        yield f"others is 0, though {found.together} go together"
    if not found.moved <= MOST:
        yield f"moved is {found.moved}, more than the check lets pass, {MOST:.2g}"
    if found.moved_if_together:
        yield f"moved_if_together is {found.moved_if_together}, though records do go together"
