"""Public numbers: the label set, and how many records each client declares.

Records are read only where nothing is declared that would tell them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from silotune.data.partition import dealt_names
from silotune.engine import Experiment

from .built import public_sizes
from .description import Description
from .inputs import read_tables
from .records import Records


def public_numbers(
    federation: Description,
) -> tuple[tuple[str, ...], dict[str, int], tuple[str, ...]]:
    """Labels, declared sizes and notices; records are read only if they alone can tell."""
    terms, records = federation.terms, federation.records
    labels, names = terms.objective.label_names, _names(records)
    if labels is not None and names:
        sizes, size_notices = public_sizes(terms, records, dict.fromkeys(names, 0))
        return labels, sizes, (*size_notices, *_unread(records))
    prepared = read_tables(terms, records)
    true_sizes = {name: len(silo.train) for name, silo in prepared.silos.items()}
    sizes, size_notices = public_sizes(terms, records, true_sizes)
    return prepared.labels, sizes, (*prepared.notices, *size_notices)


def _names(records: Records) -> list[str]:
    """The clients that declare something, as far as no record has to be looked at to know them."""
    declared, num = records.num_examples, records.partition.num
    if records.elsewhere and declared is None:
        raise ValueError(
            "num_examples: sites declare how many records they have when a run is offered; to plan "
            "before that, say what they will declare: num_examples=300, or of each "
            f"num_examples='{{{records.elsewhere[0]}: 300, ...}}'"
        )
    if declared is None:
        return []
    if records.elsewhere:
        return list(records.elsewhere)
    if num is not None:
        return dealt_names(num)
    if records.at_hand:
        return records.client_names()
    return list(declared) if isinstance(declared, Mapping) else []


def _unread(records: Records) -> Iterator[str]:
    """A notice where nobody could see whether those who declare something are in the data."""
    if records.partition.num is None and not records.at_hand and not records.elsewhere:
        yield (
            f"num_examples: taken as it is declared; {records.place} is not on this machine, so "
            "its silos were not compared"
        )


def shares(experiment: Experiment, sizes: Mapping[str, int]) -> list[float]:
    """What each client counts for in a mean of all, in the experiment's order; 1 in all."""
    declared = [weight or sizes[name] for name, weight in experiment.weights.items()]
    return [weight / sum(declared) for weight in declared]
