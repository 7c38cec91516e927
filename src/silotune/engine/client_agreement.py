"""What a client has agreed to do in a run; whatever else it is asked to do, it does not do.

A client trusts no server. It computes from the public terms what each round must ask of it, and
holds every task against that, before anything is trained, written or charged: plan, steps,
learning rate and seed of the round, the tensors that a state consists of, and how large they are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from silotune.core import ClientId, ClientTask, Factors, Key, Role
from silotune.linalg import LowRank, Matrix, NumericalError, norm

from .experiment import Experiment
from .isolation import LARGEST

GROWTH = 10.0
"""How many times as large as at its beginning a tensor may be that began larger than that."""

CANCELLING = 100.0
"""How many times as large as their sum the terms of a fold may be together."""

SAME = 1e-3
"""Distance of first tensors that two machines may compute, relative to their size."""


class NotAgreedError(ValueError):
    """A task asks for what was not agreed; the message names a field, and never a number."""


class Due(NamedTuple):
    """A tensor of the state as it was at first, and the largest L2 norm that it may have."""

    first: torch.Tensor
    largest: float


class Layer(NamedTuple):
    """What may be added to a layer; ``largest`` is an L2 norm."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    most_rank: int
    largest: float

    @classmethod
    def of(cls, shape: Sequence[int], dtype: torch.dtype, rank: int) -> Layer:
        """Of a layer (out, in) whose pair has a rank.

        A product of more than min(out, in) terms is never sent: the matrix itself is smaller.
        """
        size = LARGEST * math.sqrt(math.prod(shape))
        return cls(tuple(shape), dtype, max(min(shape), rank), size)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClientAgreement:
    """One client's part in a run, from public terms alone.

    Attributes:
        client: its own name.
        experiment: what decides the run.
        first: all tensors before round 0, of the adapter at its largest rank.
        base: SHA-256 of all that is frozen.
        start: SHA-256 of the first tensors that are a trained adapter's; empty if none are.
        scored: whether the state after so many rounds is to be scored; None if any may be.
        mechanism: what hides its records, as text: clipping norm, noise, sampling, sizes.
        clips: whether it clips single records, so that a state's numbers must be of ordinary size.
    """

    client: ClientId
    experiment: Experiment
    first: Factors
    base: str
    mechanism: str
    clips: bool
    start: str = ""
    scored: Callable[[int], bool] | None = None

    @property
    def run(self) -> str:
        """The run's name."""
        return self.experiment.run

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that was agreed: equal for the same run on every machine."""
        experiment = self.experiment
        agreed = {
            "run": experiment.run,
            "client": self.client,
            "base": self.base,
            "start": self.start,
            "mechanism": self.mechanism,
            "steps": self._steps,
            "course": experiment.course(self._steps),
            "asked": list(self._asked),
            "seed": experiment.seed,
            "rank": experiment.ranks.get(self.client),
            "tensors": [[str(k), list(t.first.shape)] for k, t in self._tensors.items()],
        }
        return hashlib.sha256(json.dumps(agreed).encode()).hexdigest()

    def check_training(self, task: ClientTask) -> None:
        """Refuse a task that the round does not ask for.

        Raises:
            NotAgreedError: naming the field.
        """
        self._check(task, self.experiment.rounds - 1, folds=self._folds)
        if task.round not in self._asked:
            raise NotAgreedError("task: round is one that does not ask this client")

    def check_scoring(self, task: ClientTask) -> None:
        """The same of a task to be scored; a score that is not due is one that nobody priced.

        Raises:
            NotAgreedError: naming the field.
        """
        self.check_result(task)
        if self.scored is not None and not self.scored(task.round):
            raise NotAgreedError("task: round is not one that is scored")

    def check_result(self, task: ClientTask) -> None:
        """The same of a state that a run may end with, which the one after the last round may be.

        Raises:
            NotAgreedError: naming the field.
        """
        tail = self.experiment.tail
        averaged = tail is not None and tail.folds(task.round, self.first)
        self._check(task, self.experiment.rounds, folds=self._folds or averaged)

    def _check(self, task: ClientTask, last: int, *, folds: bool) -> None:
        wrong = next(self._wrong(task, last, folds=folds), None)
        if wrong:
            raise NotAgreedError(f"task: {wrong} is not what was agreed")

    def _wrong(self, task: ClientTask, last: int, *, folds: bool) -> Iterator[str]:
        """Fields that differ; each is looked at only if all before it are right."""
        experiment = self.experiment
        if task.run != experiment.run:
            yield "run"
        if task.client != self.client:
            yield "client"
        if type(task.round) is not int or not 0 <= task.round <= last:
            yield "round"
        agreed = {
            "steps": self._steps,
            "learning_rates": experiment.learning_rates(task.round, self._steps),
            "rank": experiment.ranks.get(self.client),
            "seed": experiment.client_seed(task.round, self.client),
            "remembers_since": experiment.remembers_since(task.round),
        }
        for name, value in agreed.items():
            if repr(getattr(task, name)) != repr(value):  # 2 is not 2.0, nor true
                yield name
        if json.dumps(task.plan.outline()) != json.dumps(experiment.plan(task.round).outline()):
            yield "plan"
        yield from self._wrong_state(task)
        if task.folded and not folds:
            yield "folded"
        yield from self._wrong_fold(task.folded)

    def _wrong_state(self, task: ClientTask) -> Iterator[str]:
        drawn = [key for seeded in task.seeded for key in seeded.keys]
        if sorted([*task.factors, *drawn]) != list(self._tensors):
            yield "factors"
        if any(self._seeds.get(seeded.seed, math.inf) > task.round for seeded in task.seeded):
            yield "seeded"
        if any(not self._drawn_by(seeded.seed).issuperset(seeded.keys) for seeded in task.seeded):
            yield "seeded"
        for key, tensor in task.factors.items():
            due = self._tensors[key]
            if (tuple(tensor.shape), tensor.dtype) != (tuple(due.first.shape), due.first.dtype):
                yield f"factors: {key}"
            if self.clips and not task.factors.norm(key) <= due.largest:
                yield f"factors: size of {key}"
            if self._trained.get(key, math.inf) >= task.round and not _same(tensor, due.first):
                yield f"factors: {key}, which no round has trained,"

    def _wrong_fold(self, folded: Mapping[str, Matrix]) -> Iterator[str]:
        for site, matrix in folded.items():
            layer = self._layers.get(site)
            if layer is None or tuple(matrix.shape) != layer.shape:
                yield f"folded: {site[:100]!r}"
            elif _types(matrix) != {layer.dtype} or _rank(matrix) > layer.most_rank:
                yield f"folded: type or rank of {site}"
            elif self.clips and not _fold_size(matrix) <= layer.largest:
                yield f"folded: size of {site}"

    @property
    def _steps(self) -> int:
        """That it takes in every round."""
        return self.experiment.steps_of(self.client)

    @property
    def _asked(self) -> tuple[int, ...]:
        """The rounds in which it may be asked to train."""
        return self.experiment.asked_in.get(self.client, ())

    @property
    def _folds(self) -> bool:
        """Whether anything is ever added to the base."""
        axes = self.experiment.axes
        return not axes.aggregator.leaves_base or any(plan.fold for plan in axes.schedule.plans())

    @cached_property
    def _seeds(self) -> Mapping[int, int]:
        """Seed of tensors that need not travel -> the round from which it may be named."""
        experiment = self.experiment
        fresh = range(1, experiment.rounds + 1) if self._folds else ()
        return {**{experiment.pair_seed(r): r for r in fresh}, experiment.seed: 0}

    def _drawn_by(self, seed: int) -> frozenset[Key]:
        """What may travel as this seed: first tensors, or pairs that begin afresh."""
        if seed == self.experiment.seed:
            return self._drawn
        return frozenset(key for key in self.first if key.role in (Role.A, Role.B))

    @cached_property
    def _drawn(self) -> frozenset[Key]:
        """First tensors that are what the run's seed draws; others never travel as a seed."""
        born = self.experiment.draw(self.experiment.seed)
        same = (k for k, t in self.first.items() if k in born and torch.equal(born[k], t))
        return frozenset(same)

    @cached_property
    def _trained(self) -> Mapping[Key, int]:
        """Tensor -> the first round that may move it; a plain mean moves what is trained alone."""
        if not self.experiment.axes.aggregator.rule.replaceable:
            return dict.fromkeys(self._tensors, -1)
        first = dict[Key, int]()
        for round, plan in self.experiment.plans_in_turn:
            for key in plan.only_trained(self.first):
                first.setdefault(key, round)
        return first

    @cached_property
    def _tensors(self) -> Mapping[Key, Due]:
        """What a state consists of, at this client's rank, in the order of keys."""
        own = self.first.cut(self.experiment.ranks.get(self.client))
        return {
            key: Due(t, max(LARGEST * math.sqrt(t.numel()), GROWTH * own.norm(key)))
            for key, t in own.items()
        }

    @cached_property
    def _layers(self) -> Mapping[str, Layer]:
        """Where something may be added: every layer with a pair or a whole matrix."""
        wholes = {key.site: t for key, t in self.first.items() if key.role is Role.D}
        pairs = {site: self.first.pair(site) for site in self.first.pair_sites()}
        return {
            **{site: Layer.of(whole.shape, whole.dtype, 0) for site, whole in wholes.items()},
            **{s: Layer.of(p.shape, p.left.dtype, p.rank) for s, p in pairs.items()},
        }


def _size(tensor: torch.Tensor) -> float:
    """L2 norm; NaN or infinity if a number is not finite, or its square is no float64."""
    return float(torch.linalg.vector_norm(tensor.detach().double()))


def _same(tensor: torch.Tensor, first: torch.Tensor) -> bool:
    """Whether a tensor never moved; some begin as what machines compute, to their last digits."""
    return _size(tensor.double() - first.double()) <= SAME * _size(first)


def _types(matrix: Matrix) -> set[torch.dtype]:
    parts = (matrix.left, matrix.right) if isinstance(matrix, LowRank) else (matrix,)
    return {part.dtype for part in parts}


def _rank(matrix: Matrix) -> int:
    """Terms of a product; 0 for a matrix."""
    return matrix.rank if isinstance(matrix, LowRank) else 0


def _fold_size(matrix: Matrix) -> float:
    """L2 norm, or that of its terms if they cancel; NaN if a number is not finite."""
    try:
        terms = matrix.size_of_terms() if isinstance(matrix, LowRank) else norm(matrix)
        return max(float(norm(matrix)), float(terms) / CANCELLING)
    except NumericalError:
        return float("nan")
