"""Whose the records are. Read where ``person`` names a column, and never learned from.

The unit of privacy is one record. A person with records at several silos is protected by what
these silos spend together; several records of a person at one silo are a group, which epsilon for
one record does not cover. How many such people there are is itself private: it may be counted only
where one machine sees everything anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from datasets import Dataset

from .messages import listed


@dataclass(frozen=True, kw_only=True)
class People:
    """What a simulation sees of the people behind the training records.

    Attributes:
        shared: people with records at more than one silo.
        silos: where they have them, in order of names.
        most: the most records that one person has at one silo.
    """

    shared: int
    silos: tuple[str, ...]
    most: int


def count_people(tables: Mapping[str, Dataset]) -> People:
    """Count over the silos' readable tables; a record without a person is somebody of its own."""
    records = {name: Counter(_persons(table)) for name, table in tables.items()}
    places = Counter(person for counts in records.values() for person in counts)
    shared = {person for person, silos in places.items() if silos > 1}
    return People(
        shared=len(shared),
        silos=tuple(name for name, counts in records.items() if shared & counts.keys()),
        most=max((n for counts in records.values() for n in counts.values()), default=1),
    )


def notices(people: People | None) -> Iterator[str]:
    """What a user should know; None: they were not counted, because nobody may."""
    if people is None:
        yield (
            "person: outside a simulation nobody may count who has records at several silos, "
            "so the statement adds up what all silos spend"
        )
        return
    if people.shared:
        yield (
            f"person: {people.shared} people have records at several silos "
            f"({listed(people.silos)}); what protects them is the sum of what these silos spend"
        )
    if people.most > 1:
        yield (
            f"person: one person has {people.most} records at one silo; unit: example "
            "protects each of them alone, and all together much less"
        )


def without_person(table: Dataset) -> Dataset:
    """What may be learned from."""
    return table.remove_columns("person") if "person" in table.column_names else table


def _persons(table: Dataset) -> Iterator[str]:
    return (person for person in table["person"][:] if person is not None)
