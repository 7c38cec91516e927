"""What the parts of a federation mean together, checked before anything is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from silotune.models.load import check_given
from silotune.terms.rate_rules import refuse_without_rule

if TYPE_CHECKING:
    from .description import Description


def check_description(federation: Description) -> None:
    """Refuse parts that do not go together; no record is read.

    Raises:
        ValueError: naming the field.
    """
    terms, records = federation.terms, federation.records
    if federation.given is not None:
        check_given(federation.given, terms.objective.task)
    _check_label_map(federation)
    _check_sites(federation)
    if federation.learning_rate is not None:
        refuse_without_rule(terms)
    if federation.baselines and terms.evaluation != "simulation":
        raise ValueError(
            f"baselines: {', '.join(federation.baselines)} needs evaluation: simulation; leave "
            "baselines out"
        )
    if federation.in_workers and (records.in_memory or federation.given is not None):
        raise ValueError(
            "runtime: worker processes open model and data by themselves, so they need "
            "names or paths, not objects; give those, or runtime='in-process'"
        )
    in_one_process = not (federation.in_workers or records.elsewhere)
    federation.machine.check_processes(in_one_process=in_one_process)
    if federation.lifetime.max_epsilon is not None and terms.unit != "example":
        raise ValueError(
            "lifetime: a ceiling is kept for records alone (ExampleDP): no book is kept of "
            "what whole clients pay, nor of runs that hide nobody; leave max_epsilon out"
        )
    if terms.unit == "client" and records.person is not None:
        raise ValueError(
            "person: silos' costs are composed under ExampleDP alone; leave it out. Somebody "
            "whose records are at several clients is protected less than a client"
        )


def _check_sites(federation: Description) -> None:
    """What cannot be where records are elsewhere."""
    terms, method = federation.terms, federation.terms.method
    if not federation.records.elsewhere:
        if federation.wait_after_quorum is not None:
            raise ValueError("wait_after_quorum: is for clients that are Sites; leave it out")
        return
    if federation.wait_after_quorum is not None and terms.unit == "client":
        raise ValueError(
            "wait_after_quorum: how many sites answered is secret under ClientDP; leave it out"
        )
    if federation.given is not None:
        raise ValueError(
            "model: sites know a base by the SHA-256 of its files, and an object has none; "
            "give a name or a folder"
        )
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
    if federation.in_workers:
        raise ValueError(
            f"runtime: {federation.runtime} is for clients on this machine, and these are sites; "
            "leave it out"
        )
    for name in ("experts", "init_from"):
        if getattr(method, name, None):
            raise ValueError(
                f"{name}: names files of this machine, which sites do not have; leave it out"
            )


def _check_label_map(federation: Description) -> None:
    objective, meant = federation.terms.objective, federation.records.label_map
    names = objective.label_names if objective.labels is None else tuple(objective.labels)
    if names == () and meant:
        raise ValueError("label_map: records without labels have none to name; leave it out")
    unknown = {name for name in meant.values() if name is not None} - set(names or ())
    if names and unknown:
        raise ValueError(
            f"label_map: {min(unknown)!r} is not in labels; it has: {', '.join(names)}"
        )
