"""What the parts of a federation mean together, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence

from silotune.privacy.lifetime.choice import Lifetime
from silotune.terms import Terms

from .records import Records


def check_evaluation(terms: Terms, baselines: Sequence[str]) -> None:
    """Refuse baselines where silos' records may not be looked at.

    Raises:
        ValueError: naming the field, like all of these.
    """
    if baselines and terms.evaluation != "simulation":
        raise ValueError(
            f"baselines: {', '.join(baselines)} needs evaluation: simulation; leave baselines out"
        )


def check_books(terms: Terms, records: Records, lifetime: Lifetime) -> None:
    """Refuse books of what nobody could add up."""
    if lifetime.max_epsilon is not None and terms.unit != "example":
        raise ValueError(
            "lifetime: a ceiling is kept for records alone (ExampleDP): no book is kept of "
            "what whole clients pay, nor of runs that hide nobody; leave max_epsilon out"
        )
    if terms.unit == "client" and records.person is not None:
        raise ValueError(
            "person: silos' costs are composed under ExampleDP alone; leave it out. Somebody "
            "whose records are at several clients is protected less than a client"
        )


def check_places(
    terms: Terms,
    records: Records,
    runtime: str,
    wait_after_quorum: float | None,
    *,
    is_object: bool,
) -> None:
    """Refuse what cannot be where clients train, or where records are.

    Args:
        terms: of the run.
        records: of the clients.
        runtime: where clients train.
        wait_after_quorum: seconds, for sites.
        is_object: whether the model is one, and no name.
    """
    in_workers = runtime != "in-process"
    if in_workers and (records.in_memory or is_object):
        raise ValueError(
            "runtime: worker processes open model and data by themselves, so they need "
            "names or paths, not objects; give those, or runtime='in-process'"
        )
    if not records.elsewhere:
        if wait_after_quorum is not None:
            raise ValueError("wait_after_quorum: is for clients that are Sites; leave it out")
        return
    if wait_after_quorum is not None and terms.unit == "client":
        raise ValueError(
            "wait_after_quorum: how many sites answered is secret under ClientDP; leave it out"
        )
    if is_object:
        raise ValueError(
            "model: sites know a base by the SHA-256 of its files, and an object has none; "
            "give a name or a folder"
        )
    if in_workers:
        raise ValueError(
            f"runtime: {runtime} is for clients on this machine, and these are sites; leave it out"
        )
    _check_told(terms)


def _check_told(terms: Terms) -> None:
    """What sites must be told, and what they cannot have."""
    if terms.evaluation == "simulation":
        raise ValueError(
            "evaluation: simulation looks at every client's records, and these are at their "
            "sites; take site, or public with a table for everybody"
        )
    if terms.objective.label_names is None:
        raise ValueError(
            "labels: must be given, as nobody sees the records of all sites; list them in "
            "order of their ids"
        )
    for name in ("experts", "init_from"):
        if getattr(terms.method, name, None):
            raise ValueError(
                f"{name}: names files of this machine, which sites do not have; leave it out"
            )


def check_label_map(terms: Terms, records: Records) -> None:
    """Refuse meanings of labels that there are none of."""
    objective, meant = terms.objective, records.label_map
    names = objective.label_names if objective.labels is None else tuple(objective.labels)
    if names == () and meant:
        raise ValueError("label_map: records without labels have none to name; leave it out")
    unknown = {name for name in meant.values() if name is not None} - set(names or ())
    if names and unknown:
        raise ValueError(
            f"label_map: {min(unknown)!r} is not in labels; it has: {', '.join(names)}"
        )
