"""Whom rounds ask: what of it goes together with what else."""

from __future__ import annotations

from collections.abc import Collection

from silotune.engine.cohorts import Cohorts
from silotune.privacy import ClientDP, PrivacyChoice


def check_cohorts(cohorts: Cohorts, min_clients: int | None, privacy: PrivacyChoice) -> None:
    """That rounds may ask some of the clients, and need no more than they ask.

    Raises:
        ValueError: naming the field.
    """
    number, rate = cohorts.number, cohorts.rate
    if number is not None and rate is not None:
        raise ValueError(
            "cohort_rate: clients_per_round says how many a round asks, and this would say it "
            "again; leave one of them out"
        )
    if rate is not None and not 0.0 < rate <= 1.0:
        raise ValueError(f"cohort_rate: must be above 0 and at most 1, not {rate:g}")
    if number is not None and min_clients is not None and min_clients > number:
        raise ValueError(
            f"min_clients: must be at most clients_per_round = {number}, not {min_clients}"
        )
    if cohorts.of_all:
        return
    field = "clients_per_round" if number is not None else "cohort_rate"
    if privacy.noise == "correlated":
        raise ValueError(
            f"{field}: noise: correlated hangs together over the steps of all rounds, and a client "
            "would miss some; leave it out, or take gaussian"
        )
    if isinstance(privacy, ClientDP):
        raise ValueError(
            f"{field}: ClientDP draws whom it asks in secret (its client_sampling_rate); leave it "
            "out"
        )


def check_clients(
    cohorts: Cohorts, clients: Collection[str], min_clients: int | None, most_asked: int
) -> None:
    """That there are as many clients as rounds ask or need, and that some round asks somebody.

    Args:
        cohorts: whom rounds ask.
        clients: all there are.
        min_clients: that a round needs; None = all that it asks.
        most_asked: the largest number of rounds that ask one client.

    Raises:
        ValueError: naming the field.
    """
    there = f"must be at most the number of clients, {len(clients)}, not"
    if min_clients is not None and min_clients > len(clients):
        raise ValueError(
            f"min_clients: {there} {min_clients}, or no round could count; lower it, or leave it "
            "out for all"
        )
    if (cohorts.number or 0) > len(clients):
        raise ValueError(
            f"clients_per_round: {there} {cohorts.number}; lower it, or leave it out for all"
        )
    if not most_asked:
        raise ValueError(
            f"cohort_rate: {cohorts.rate:g} of {len(clients)} clients draws fewer than min_clients "
            f"= {cohorts.least} in every round; raise it"
        )
