"""What is charged for noised steps: public numbers, one frozen value for each kind of mechanism.

    Charge             every record by its own coin, then Gaussian noise (or discrete Gaussian)
    TruncatedCharge    the same, but a sample beyond a fixed size is cut at random
    CorrelatedCharge   no coins; each record takes part at most every so many steps, and the
                       noise of the steps is one stream of correlated numbers

``accountant`` turns charges into epsilon; a ledger keeps them as JSON.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

Relation = Literal["add-remove", "zero-out", "replace-one"]
"""When two data sets are neighbours. One has a record that the other

- lacks (add-remove);
- has replaced by one that gives nothing but keeps its place (zero-out);
- has replaced by any other (replace-one).
"""


@dataclass(frozen=True)
class Charge:
    """``steps`` steps of one Poisson-subsampled Gaussian mechanism. Public.

    Attributes:
        sampling_rate: q in (0, 1], the chance of each record to be in a batch.
        noise_multiplier: sigma >= 0, noise std in units of what one record can move the sum by.
        steps: how many steps were, or will be, executed.
        grid_points: of discrete noise, within one standard deviation at least; 0 for noise that
            is on no grid.

    Raises:
        ValueError: if a field is out of range.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int
    grid_points: int = 0

    def __post_init__(self) -> None:
        _check_rate(self.sampling_rate)
        _check_noise(self.noise_multiplier)
        _check_least("steps", self.steps, 0)
        _check_grid(self.grid_points)


@dataclass(frozen=True)
class TruncatedCharge:
    """``steps`` steps in which a Poisson sample is cut to ``largest`` places at random. Public.

    Attributes:
        sampling_rate: q in (0, 1], the chance of each place to be drawn.
        noise_multiplier: sigma >= 0, noise std in units of the clip norm.
        steps: how many steps were, or will be, executed.
        largest: places kept at most.
        num_examples: places, with a record or without; no more records than that take part.
        grid_points: as for ``Charge``.

    Raises:
        ValueError: if a field is out of range.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int
    largest: int
    num_examples: int
    grid_points: int = 0

    def __post_init__(self) -> None:
        _check_rate(self.sampling_rate)
        _check_noise(self.noise_multiplier)
        _check_least("steps", self.steps, 0)
        _check_least("max_batch_size", self.largest, 1)
        _check_least("num_examples", self.num_examples, 1)
        _check_grid(self.grid_points)


@dataclass(frozen=True)
class CorrelatedCharge:
    """``steps`` steps of one stream of correlated noise. Public.

    Charges of one silo and one run that differ in their steps only are parts of the same stream.

    Attributes:
        noise_multiplier: sigma >= 0, std of the independent noise behind the stream, in units
            of the clip norm.
        steps: how many steps were, or will be, executed.
        bands: of the factorisation.
        separation: a record that takes part in step t takes part in none of the next
            ``separation - 1``.

    Raises:
        ValueError: if a field is out of range.
    """

    noise_multiplier: float
    steps: int
    bands: int
    separation: int

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier)
        _check_least("steps", self.steps, 0)
        _check_least("bands", self.bands, 1)
        _check_least("separation", self.separation, 1)


LEAST_GRID_POINTS = 2**10
"""On a coarser grid no price of discrete noise is proved here (``discrete``)."""

AnyCharge = Charge | TruncatedCharge | CorrelatedCharge

LARGEST = 2**63
"""Of whole numbers in a line; no arithmetic on floats fails below it."""

SAME = 1e-6
"""By what part two machines may differ in the noise that they compute for one target."""

_KINDS: Mapping[str, type[AnyCharge]] = {
    "poisson": Charge,
    "truncated-poisson": TruncatedCharge,
    "correlated": CorrelatedCharge,
}


def merged(charges: Iterable[AnyCharge]) -> tuple[AnyCharge, ...]:
    """One charge for all that differ in their steps only; those without steps are left out.

    Remembered, since many records of many runs paid the same.

    Args:
        charges: of one silo and one run, in any order.
    """
    return _merged(tuple(charges))


@lru_cache(maxsize=2**14)
def _merged(charges: tuple[AnyCharge, ...]) -> tuple[AnyCharge, ...]:
    steps = Counter[AnyCharge]()
    for charge in charges:
        steps[replace(charge, steps=0)] += charge.steps
    return tuple(sorted((replace(charge, steps=n) for charge, n in steps.items() if n), key=order))


def order(charge: AnyCharge) -> tuple[Any, ...]:
    """A place among others that does not depend on where they came from."""
    return (_kind(charge), *(getattr(charge, field.name) for field in fields(charge)))


def close(one: AnyCharge, other: AnyCharge) -> bool:
    """Whether two machines could have computed these for the same, up to the last digits."""
    if type(one) is not type(other):
        return False
    return all(
        math.isclose(a, b, rel_tol=SAME) if isinstance(a, float) else a == b
        for a, b in zip(astuple(one), astuple(other), strict=True)
    )


def to_json(charge: AnyCharge) -> dict[str, Any]:
    """The fields, and the ``kind`` that tells which they are."""
    return {"kind": _kind(charge), **vars(charge)}


def from_json(values: object) -> AnyCharge:
    """The inverse of ``to_json``.

    Raises:
        ValueError: if the kind is unknown, or a field is missing, unknown, of another type or
            out of range.
    """
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if not isinstance(values, Mapping) or not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"a charge must name its kind: {', '.join(_KINDS)}")
    charge = _KINDS[kind]
    rest = {name: value for name, value in values.items() if name != "kind"}
    if charge is not CorrelatedCharge and "grid_points" not in rest:
        rest = _on_no_grid(rest)
    return charge(**typed(charge, rest))


def typed(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """``values``, if they are all fields of a dataclass and of the types that it declares.

    A whole number is at most ``LARGEST``. Fields of other types than text, whole numbers, numbers
    and truth values are the caller's.

    Raises:
        ValueError: if they are not.
    """
    kinds: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
    }
    declared = {field.name: kinds.get(str(field.type)) for field in fields(cls)}
    if unknown := values.keys() - declared.keys():
        raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
    for name, allowed in declared.items():
        if name not in values or (allowed and type(values[name]) not in allowed):
            raise ValueError(f"{name} is missing or of the wrong type")
        if type(values[name]) is int and abs(values[name]) > LARGEST:
            raise ValueError(f"{name} is larger than any number here")
    return dict(values)


def _on_no_grid(values: dict[str, Any]) -> dict[str, Any]:
    """A line from before charges told their grid, if its noise was on none."""
    if values.pop("discrete", False):
        raise ValueError("discrete noise without its grid_points has no price any more")
    return {**values, "grid_points": 0}


def _kind(charge: AnyCharge) -> str:
    return next(kind for kind, cls in _KINDS.items() if cls is type(charge))


def _check_rate(q: float) -> None:
    if not 0.0 < q <= 1.0:
        raise ValueError(
            f"batch_size: the sampling rate must be above 0 and at most 1, not {q}; "
            "the expected batch cannot be larger than the silo's num_examples"
        )


def _check_noise(sigma: float) -> None:
    if not 0.0 <= sigma < math.inf:
        raise ValueError(f"noise_multiplier: must be a finite number of 0 or more, not {sigma}")


def _check_grid(points: int) -> None:
    if points and points < LEAST_GRID_POINTS:
        raise ValueError(
            f"grid_points: nothing is proved for discrete noise on {points} points to a standard "
            f"deviation; it takes {LEAST_GRID_POINTS}, or 0 for noise on no grid"
        )


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}: must be at least {least}, not {value}")
