"""Tuning: which records a choice may be made by, and which of the trials is taken.

A trial is a run of a seed of its own, scored after its last round on valid records. What is chosen
is scored on test records, which no choice has seen. Epsilon covers neither the trials nor the
choice, so that tuning is for simulations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

from datasets import Dataset

from silotune.config import Config, ConfigError, build, naming_keys
from silotune.data.federated_dataset import Prepared
from silotune.data.record_digests import record_digests
from silotune.federation.inputs import read_tables
from silotune.reports.comparison import Measurement, larger_is_better

NOT_CHARGED = (
    "Tuning is not charged: what is tuned was chosen by {trials} trials of every cell on records "
    "of the silos (seed {seed}, scored on valid records and never on test ones). An epsilon here "
    "is that of one run, as if its settings had been known; a tuned result spends more."
)

OUTSIDE = (
    "tune: tuning looks at private records {trials} times, which no epsilon here covers, and is "
    "for evaluation: simulation; under evaluation: {evaluation} take the settings from public data "
    "or from other records, and leave tune out"
)

_NO_TEST = (
    "tune: what is chosen by valid records is scored on test ones, and the data have none: name "
    "one in data.splits.test"
)

_NO_VALID = (
    "tune: the data have no valid records, so that rounds are scored on the test ones; name a "
    "valid part in data.splits.valid, or set data.valid_fraction"
)

_SAME = (
    "tune: half of the {one} part or more are {other} records too, so that a choice would be made "
    "by the test; name another part in data.splits"
)


def refuse_outside(configs: Sequence[Config], trials: int) -> None:
    """Refuse to tune where records are private.

    Raises:
        ConfigError: in words.
    """
    for config in configs:
        if config.evaluation != "simulation" or config.federation.sites:
            evaluation = "site" if config.federation.sites else config.evaluation
            raise ConfigError([OUTSIDE.format(trials=trials, evaluation=evaluation)])


def check_apart(config: Config) -> None:
    """See that a choice is made by records that the result is not scored on.

    Raises:
        ConfigError: if not, or if the data cannot be read.
    """
    federation = build(config)
    with naming_keys():
        prepared = read_tables(federation.terms, federation.records)
    valid, test = _parts(prepared, "valid"), _parts(prepared, "test")
    if not test:
        raise ConfigError([_NO_TEST])
    if not valid:
        raise ConfigError([_NO_VALID])
    chosen_by, scored_on = ([*chain.from_iterable(map(record_digests, p))] for p in (valid, test))
    if _half_in(scored_on, chosen_by):
        raise ConfigError([_SAME.format(one="test", other="valid")])
    if _half_in(chosen_by, scored_on):  # a piece of the test, however small
        raise ConfigError([_SAME.format(one="valid", other="test")])


def best(trials: Sequence[Measurement]) -> int | None:
    """Which trial did best, the first of equals; None if none has a value.

    Args:
        trials: in order, each with its value on valid records.
    """
    known = {i: run.value for i, run in enumerate(trials) if math.isfinite(run.value)}
    if not known:
        return None
    metric = next(trials[i].metric for i in known)  # one that failed has none
    sign = 1 if larger_is_better(metric) else -1
    return max(known, key=lambda i: sign * known[i])


def _half_in(some: Sequence[bytes], others: Sequence[bytes]) -> bool:
    """Whether half of some records or more are among others; a few recur by chance."""
    known = set(others)
    return 2 * sum(digest in known for digest in some) >= len(some)


def _parts(prepared: Prepared, part: str) -> list[Dataset]:
    """The tables of a part: that for everybody, or else those of the silos."""
    shared: Dataset | None = getattr(prepared, part)
    own = [getattr(silo, part) for silo in prepared.silos.values()]
    tables = [shared] if shared is not None else [table for table in own if table is not None]
    return [table for table in tables if len(table)]
