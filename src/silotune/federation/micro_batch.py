"""Micro-batches that were measured: a run keeps the number that it began with.

``auto`` is what decides a run (``identity``); the number that was found is written into its facts,
and is the same when it is resumed, whatever memory is free by then.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

from silotune.core.files import DamagedError
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder
from silotune.terms import BuiltModel

from .description import Description

FOUND = "micro_batch_size"
"""Under this name the number stands in ``run.json: host``."""


def found(model: BuiltModel) -> Mapping[str, int]:
    """What a run's facts say of it; nothing where the number was given."""
    return {} if model.fits is None else {FOUND: model.fits}


def recalled(federation: Description, folder: RunFolder) -> Description:
    """The federation with the number that its run began with, where it was to be found.

    Raises:
        DamagedError: if the run does not say it.
    """
    if federation.machine.micro_batch_size != "auto":
        return federation
    number = read_facts(folder).host.get(FOUND)
    if not isinstance(number, int) or number < 1:
        raise DamagedError(f"{folder.run}: damaged, host has no {FOUND} that auto was found to be")
    other = copy.copy(federation)
    other.machine = replace(federation.machine, micro_batch_size=number)
    return other
