"""What records have paid in their life: the charges of all runs of a book, composed.

Charges of different runs compose, by the accountant that each run has, up to a ceiling that is
fixed beforehand (over sets of records: Sage, arXiv 1909.01502). A record pays

- what any set was charged that holds it, or that came from the same place (``record_set``);
- of another run, what both training and held-out records paid, since it may have been either;
- of the run that is asked about, what this silo paid, and of its two tables the dearer one:
  records of different silos of one run are different by origin.

Relations: a charge describes a mechanism, and not how it was priced. So all of them are priced
anew under the relation of the run that is asked about, each by what is proved for its mechanism
(``accounting.supported``): nothing is converted. Where one of them has no proved price there, the
whole has none, and a ceiling refuses.

Composition takes noise and length of each run as chosen beforehand. Where somebody chooses them by
what earlier runs released, a ceiling must be a privacy filter (Rogers et al. 2016, arXiv
1605.08294). For Gaussian mechanisms this one is (Smith, Thakurta 2022, arXiv 2210.17520); for
sampled ones, composing curves and stopping at a ceiling is none in general, and none is claimed.

Noise from a seed hides nothing. Such a charge is remembered as one that nothing bounds: it makes
epsilon for life infinite, which only a ceiling refuses.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from silotune.privacy.accounting.accountant import FINE, epsilon_over_silos
from silotune.privacy.accounting.charges import AnyCharge, Relation
from silotune.privacy.ledger.noisy_counts import by_table

Priced = tuple[str, AnyCharge]
"""A release, and what it is charged."""


class Earlier(NamedTuple):
    """What another run charged the records of one silo.

    Attributes:
        run: which.
        charges: of both tables.
        seeded: whether its noise came from a seed.
    """

    run: str
    charges: tuple[Priced, ...]
    seeded: bool = False


@dataclass(frozen=True)
class Life:
    """What records have paid.

    Attributes:
        runs: how many charged them.
        epsilon: of all together, an upper bound; infinite where nothing bounds them.
        because: why it is infinite; empty where it is not.
    """

    runs: int
    epsilon: float
    because: str = ""


SEEDED = "a run drew its noise from a seed, which protects nothing"
NOISELESS = "the noise of a run was too small to bound anything"
UNPROVED = "the charges of all runs have no proved price together under this relation"


def life(
    earlier: Sequence[Earlier],
    own: Iterable[Priced],
    delta: float,
    relation: Relation,
    grid: float = FINE,
    *,
    seeded: bool = False,
    library: bool = False,
) -> Life:
    """What any one record has paid that was in one run after the other.

    Args:
        earlier: other runs, or other silos of them.
        own: of the run that is asked about, in which a record is in one of two tables.
        delta: over all runs.
        relation: between neighbouring data sets.
        grid: of the privacy loss.
        seeded: whether the noise of the run that is asked about came from a seed.
        library: whether dp-accounting must count it itself.
    """
    columns = by_table(own)
    runs = len({one.run for one in earlier}) + bool(columns.training or columns.held_out)
    if seeded or any(run.seeded for run in earlier):
        return Life(runs, math.inf, SEEDED)
    others = [[charge for _, charge in run.charges] for run in earlier]
    try:
        spent = max(
            epsilon_over_silos(
                [*others, column], delta, relation=relation, grid=grid, library=library
            )
            for column in columns
        )
    except ValueError as error:
        return Life(runs, math.inf, f"{UNPROVED} ({error})")
    return Life(runs, spent, "" if math.isfinite(spent) else NOISELESS)


def summed(charges: Iterable[Priced]) -> Counter[Priced]:
    """Release and kind -> steps."""
    steps = Counter[Priced]()
    for release, charge in charges:
        steps[release, replace(charge, steps=0)] += charge.steps
    return steps


def priced(sums: Mapping[Priced, int]) -> list[Priced]:
    """The inverse of ``summed``."""
    return [(release, replace(kind, steps=steps)) for (release, kind), steps in sums.items()]
