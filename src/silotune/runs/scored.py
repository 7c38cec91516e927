"""What stands behind the scores of a finished run: which records, how many, and how sure they are.

It is made from the records that the scores are of, and goes where scores go: outside simulations
it is of public records only, and where silos keep their scores there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The finished model on the records of its last score.

    Attributes:
        part: ``test``, ``valid``, or ``held out`` by the silos.
        records: how many, each once, however many models answered.
        metrics: by name.
        errors: metric -> standard error over records.
        classes: right class, given class, records, by ids, of every pair that occurs; empty for a
            task without. Where silos have models of their own, of all their answers.
        counts: of a task in which a record is not of one class, each label or type of entity by its
            id: how often it is there, was given, and both.
        silos: silo -> its own records among them; in a simulation only.
    """

    part: str
    records: int
    metrics: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)
    classes: Sequence[Sequence[int]] = ()
    counts: Sequence[Sequence[int]] = ()
    silos: Mapping[str, int] = field(default_factory=dict)
