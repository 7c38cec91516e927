"""What a client has agreed to do in a run; whatever else it is asked to do, it does not do.

A client trusts no server. It computes from the public terms what each round must ask of it, and
holds every task against that, before anything is trained, written or charged: plan, steps,
learning rate and seed of the round, the tensors that a state consists of, and how large they are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from silotune.core import ClientId, ClientTask, Factors, Key, Role
from silotune.linalg import LowRank, Matrix, NumericalError, norm, vector_norm

from .experiment import Experiment
from .isolation import LARGEST

GROWTH = 10.0
"""How many times as large as at its beginning a tensor may be that began larger than that."""

CANCELLING = 100.0
"""How many times as large as their sum the terms of a fold may be together."""


class NotAgreedError(ValueError):
    """A task asks for what was not agreed; the message names a field, and never a number."""


class Due(NamedTuple):
    """What a tensor of the state must be; ``largest`` is its L2 norm."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    largest: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ClientAgreement:
    """One client's part in a run, from public terms alone.

    Attributes:
        client: its own name.
        experiment: what decides the run.
        first: all tensors before round 0, of the adapter at its largest rank.
        base: SHA-256 of all that is frozen.
        mechanism: what hides its records, as text: clipping norm, noise, sampling, sizes.
        clips: whether it clips single records, so that a state's numbers must be of ordinary size.
    """

    client: ClientId
    experiment: Experiment
    first: Factors
    base: str
    mechanism: str
    clips: bool

    @property
    def run(self) -> str:
        """The run's name."""
        return self.experiment.run

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that was agreed: equal for the same run on every machine."""
        experiment = self.experiment
        rounds = range(experiment.rounds)
        agreed = {
            "run": experiment.run,
            "client": self.client,
            "base": self.base,
            "mechanism": self.mechanism,
            "steps": experiment.local_steps,
            "plans": [experiment.plan(round).outline() for round in rounds],
            "rates": [experiment.learning_rate(round) for round in rounds],
            "seed": experiment.seed,
            "rank": experiment.ranks.get(self.client),
            "tensors": [[str(key), t.shape, str(t.dtype)] for key, t in self._tensors.items()],
        }
        return hashlib.sha256(json.dumps(agreed).encode()).hexdigest()

    def check_training(self, task: ClientTask) -> None:
        """Refuse a task that the round does not ask for.

        Raises:
            NotAgreedError: naming the field.
        """
        self._check(task, self.experiment.rounds - 1)

    def check_scoring(self, task: ClientTask) -> None:
        """The same of a task to be scored, which the state after the last round may be.

        Raises:
            NotAgreedError: naming the field.
        """
        self._check(task, self.experiment.rounds)

    def _check(self, task: ClientTask, last: int) -> None:
        wrong = next(self._wrong(task, last), None)
        if wrong:
            raise NotAgreedError(f"task: {wrong} is not what was agreed")

    def _wrong(self, task: ClientTask, last: int) -> Iterator[str]:
        """Fields that differ; each is looked at only if all before it are right."""
        experiment = self.experiment
        if task.run != experiment.run:
            yield "run"
        if task.client != self.client:
            yield "client"
        if type(task.round) is not int or not 0 <= task.round <= last:
            yield "round"
        agreed = {
            "plan": experiment.plan(task.round),
            "steps": experiment.local_steps,
            "learning_rate": experiment.learning_rate(task.round),
            "rank": experiment.ranks.get(self.client),
            "seed": experiment.client_seed(task.round, self.client),
        }
        for name, value in agreed.items():
            if getattr(task, name) != value:  # NaN is equal to nothing
                yield name
        yield from self._wrong_state(task)

    def _wrong_state(self, task: ClientTask) -> Iterator[str]:
        drawn = [key for seeded in task.seeded for key in seeded.keys]
        if sorted([*task.factors, *drawn]) != list(self._tensors):
            yield "factors"
        for key, tensor in task.factors.items():
            due = self._tensors[key]
            if (tuple(tensor.shape), tensor.dtype) != (due.shape, due.dtype):
                yield f"factors: {key}"
            if self.clips and not _size(tensor) <= due.largest:
                yield f"factors: size of {key}"
        yield from self._wrong_fold(task.folded)

    def _wrong_fold(self, folded: Mapping[str, Matrix]) -> Iterator[str]:
        shapes = self._sites
        for site, matrix in folded.items():
            if tuple(matrix.shape) != shapes.get(site):
                yield f"folded: {site[:100]!r}"
            elif self.clips and not _fold_size(matrix) <= LARGEST * math.sqrt(
                math.prod(matrix.shape)
            ):
                yield f"folded: size of {site}"

    @cached_property
    def _tensors(self) -> Mapping[Key, Due]:
        """What a state consists of, at this client's rank, in the order of keys."""
        own = self.first.cut(self.experiment.ranks.get(self.client))
        return {
            key: Due(
                tuple(t.shape), t.dtype, max(LARGEST * math.sqrt(t.numel()), GROWTH * _size(t))
            )
            for key, t in own.items()
        }

    @cached_property
    def _sites(self) -> Mapping[str, tuple[int, ...]]:
        """(out, in) of every layer with a pair or a whole matrix."""
        whole = {key.site: tuple(t.shape) for key, t in self.first.items() if key.role is Role.D}
        pairs = {site: tuple(self.first.pair(site).shape) for site in self.first.pair_sites()}
        return {**whole, **pairs}


def _size(tensor: torch.Tensor) -> float:
    """L2 norm; NaN if a number is not finite."""
    try:
        return float(vector_norm(tensor.detach().double().reshape(1, -1)))
    except NumericalError:
        return float("nan")


def _fold_size(matrix: Matrix) -> float:
    """L2 norm, or that of its terms if they cancel; NaN if a number is not finite."""
    try:
        terms = matrix.size_of_terms() if isinstance(matrix, LowRank) else norm(matrix)
        return max(float(norm(matrix)), float(terms) / CANCELLING)
    except NumericalError:
        return float("nan")
