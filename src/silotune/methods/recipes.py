"""Recipes: settings that did best where they were measured, and the nearest one by public facts.

The table is ``recipes.json``; ``python -m benchmarks.recipes GRID...`` makes it of finished grids.
Nearest is, of those with the same task and unit of privacy, what was measured with the same model
if any was, and then what differs least in the logarithms of epsilon, labels, silos and records, as
far as both are known; of several about as near, the first of the table, where the longest runs come
first. Which parts of a model are adapted, what its head reads, and at what rate, is taken over for
that model alone. No record decides anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from silotune.core.files import build, read_json
from silotune.core.units import number_text

from .base import Method
from .registry import built_in

PLACES = ("target_modules", "target_parameters", "layers_to_transform")
"""Options of a method that name parts of one model, and mean others in another or none."""

RATE = "train.learning_rate"
"""As a number it is one model's as well."""

POOLING = "model.pooling"
"""What a head reads; vectors of texts were made by one of them when a model was trained."""

TABLE = Path(__file__).with_name("recipes.json")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is public of a run before it begins; None where it is not known.

    Attributes:
        task: its name.
        unit: of privacy.
        model: the name of the base; empty where it has none.
        epsilon: that is aimed at.
        labels: how many.
        silos: how many.
        records: that the smallest silo declares.
    """

    task: str
    unit: str
    model: str = ""
    epsilon: float | None = None
    labels: int | None = None
    silos: int | None = None
    records: int | None = None

    def distance(self, other: Facts) -> float:
        """From other facts; infinite where task or unit differ."""
        if (self.task, self.unit) != (other.task, other.unit):
            return math.inf
        both = ((getattr(self, name), getattr(other, name)) for name in NUMBERS)
        return sum(abs(math.log(a) - math.log(b)) for a, b in both if a and b and min(a, b) > 0)

    @property
    def words(self) -> str:
        """For people: ``sequence-classification, unit example, model m, epsilon 6, 2 labels``."""
        known = [(name, getattr(self, name)) for name in NUMBERS]
        told = [
            f"{name} {number_text(n)}" if name == "epsilon" else f"{n:,} {name}"
            for name, n in known
            if n is not None
        ]
        base = [f"model {self.model}"] if self.model else []
        return ", ".join([self.task, f"unit {self.unit}", *base, *told])


NUMBERS = ("epsilon", "labels", "silos", "records")

NEAR = 0.25
"""Distances that differ by less say nothing: a quarter more records, say."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One row of the table.

    Attributes:
        facts: of the runs by which it was chosen.
        settings: key of the configuration -> value; under ``method`` its name and options.
        measured: what it came to, and against what, in words.
        grid: where that was.
    """

    facts: Facts
    settings: Mapping[str, Any] = field(default_factory=dict)
    measured: str = ""
    grid: str = ""

    @property
    def method(self) -> Mapping[str, Any]:
        """Its name and options."""
        found: Mapping[str, Any] = self.settings.get("method", {})
        return found

    def with_model(self, model: str) -> Recipe:
        """What of it holds for a model: all, or all but what is said of the parts of another."""
        if model == self.facts.model:
            return self
        method = {name: value for name, value in self.method.items() if name not in PLACES}
        own = {POOLING, RATE}
        other = {k: v for k, v in self.settings.items() if k not in own or v == "auto"}
        return replace(self, settings={**other, "method": method})

    @property
    def why(self) -> str:
        """Why it is taken, in a sentence."""
        return f"best where it is most like here ({self.grid}: {self.facts.words}): {self.measured}"


@cache
def recipes(table: Path = TABLE) -> tuple[Recipe, ...]:
    """All rows.

    Raises:
        DamagedError: if the file is not what the script has written.
    """
    rows = read_json(table)["recipes"]
    return tuple(
        build(Recipe, {**row, "facts": build(Facts, row["facts"], str(table))}, str(table))
        for row in rows
    )


def nearest(facts: Facts, rows: Sequence[Recipe], method: str | None = None) -> Recipe:
    """The recipe that was measured nearest, as far as it holds for the model.

    Args:
        facts: of a run.
        rows: to choose from.
        method: the one that it must be of; None for any.

    Raises:
        ValueError: if there is none for the task and the unit, or of the method.
    """
    fitting = [row for row in rows if method in (None, row.method.get("name"))]
    same = [row for row in fitting if row.facts.distance(facts) < math.inf]
    if not same:
        of = f" of {method}" if method else ""
        raise ValueError(
            f"nothing was measured{of} for a {facts.task} under unit {facts.unit}, so that there "
            f"is no recipe; name the method and leave auto out{_there_are(rows)}"
        )

    def farness(row: Recipe) -> tuple[bool, int]:
        return row.facts.model != facts.model, round(row.facts.distance(facts) / NEAR)

    return min(same, key=farness).with_model(facts.model)


def method_of(recipe: Recipe) -> Method:
    """The method of a recipe."""
    options = dict(recipe.method)
    return built_in()[options.pop("name")](**options)


def _there_are(rows: Iterable[Recipe]) -> str:
    kinds = dict.fromkeys(f"{row.facts.task} under unit {row.facts.unit}" for row in rows)
    return f" (there are recipes for {'; '.join(kinds)})" if kinds else ""
