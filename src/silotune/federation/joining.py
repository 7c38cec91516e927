"""Joining: a site that accepts late takes part from the next round on."""

from __future__ import annotations

from dataclasses import replace

from silotune.core.files import write_json

from .opening import OpenRun, silos_of


def joined(job: OpenRun) -> bool:
    """Ask sites that have not accepted yet; whether one has, and takes part from now on.

    Raises:
        RecordError: if it cannot be written down.
    """
    agreement = job.sites.joined(job.built.agreement) if job.sites else None
    if agreement is None:
        return False
    job.built = replace(job.built, agreement=agreement)
    job.facts = replace(job.facts, silos=silos_of(agreement))
    write_json(job.folder.run, job.facts.to_json())
    return True
