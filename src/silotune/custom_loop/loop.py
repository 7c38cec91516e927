"""A private loop: batches whose parts are clipped, a step that noises and charges, checkpoints.

The order of calls is enforced, since a batch that is stepped twice, or half, is another mechanism
than the one that is accounted. A step is charged before a parameter moves. With a folder the
charges are on the disk and outlive the process: whatever is restored, and however often, all of it
counts against the same budget, and a loop that restores nothing is refused a folder that holds the
charges of another. Without one, a loop counts what it did itself and what the state that it was
given says: restoring one state in two processes makes two trainings that do not know of each other.
A book for life knows of all of them, if it is kept: a step is in it before anything else.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from silotune.adapters import AdaptedModel
from silotune.core import Key
from silotune.privacy import ExampleLevel, LedgerEntry, Relation, RoundRandomness, SiloStore
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.accounting.charges import to_json
from silotune.privacy.ledger.entry import UPDATE
from silotune.privacy.lifetime.budget import Account
from silotune.privacy.mechanisms.clipping import NOTHING, Accumulated
from silotune.privacy.mechanisms.noise import Correlated

from .batch import Batch, Records
from .gradient_check import (
    check_alone,
    check_independent,
    check_nothing_else_trained,
    check_reaches,
)
from .optimizer import PrivateOptimizer

DATASET = "dataset"
"""Whose charges the ledger of a loop holds."""

_VERSION = 1


class Spent(NamedTuple):
    """What the records have paid so far.

    Attributes:
        epsilon: an upper bound; infinite if the noise came from a seed.
        delta: at which it holds.
        steps: that were charged.
    """

    epsilon: float
    delta: float
    steps: int


class PrivateLoop:
    """The parts of a private loop, from ``PrivacyEngine.make_private``.

    Attributes:
        loader: the batches of the steps that are left, one a step.
        optimizer: the user's own, whose ``step`` clips, noises and charges first.
    """

    def __init__(
        self,
        *,
        mechanism: ExampleLevel,
        steps: int,
        delta: float,
        relation: Relation,
        model: AdaptedModel,
        tensors: Mapping[Key, nn.Parameter],
        optimizer: Optimizer,
        records: Records,
        folder: Path | None = None,
        alone: Callable[[Any, Any], Tensor] | None = None,
        account: Account | None = None,
    ) -> None:
        self._mechanism, self._steps = mechanism, steps
        self.loader = _Loader(lambda: self.steps - self._paid(), self._begin)
        self.optimizer = PrivateOptimizer(optimizer, self._step)
        if isinstance(mechanism.noise, Correlated) and folder is None:
            raise ValueError(
                "folder: correlated noise goes on from a secret key, which belongs into no "
                "checkpoint; give a folder to keep it in"
            )
        self._delta, self._relation = delta, relation
        self._model, self._tensors, self._records = model, tensors, records
        self._inner = optimizer
        self._store = None if folder is None else SiloStore(folder)
        self._run = secrets.token_hex(8)
        self._taken = self._charged = 0
        self._batch: Batch | None = None
        self._stream: RoundRandomness | None = None
        self._alone, self._account = alone, account
        self._planned = False  # whether the account was asked for all steps
        self._independent = False  # whether losses were seen to be each its own record's

    @property
    def mechanism(self) -> ExampleLevel:
        """Sampling, clipping and noise; its fields are public."""
        return self._mechanism

    @property
    def steps(self) -> int:
        """That the budget pays for."""
        return self._steps

    def backward(self, losses: Tensor) -> None:
        """Take the losses of the part that is in hand: clip every record and add up.

        The first losses of two records or more are checked: no gradient may flow between records,
        and with ``losses=`` each must be about what that gives for the record alone. Numbers
        without a gradient are not seen otherwise: never divide by the number of records, and never
        choose or weigh a record by others of its batch, such as the hardest few, or classes by how
        often they occur in it.

        Args:
            losses: (n,) one for each record of the part, with their graph; no mean, no sum.

        Raises:
            ValueError: if they are not that, there is no part in hand, or something that requires
                a gradient is not what was made private.
        """
        batch = self._batch
        if batch is None or not batch.in_hand:
            raise ValueError(
                "backward: no part of a batch is in hand; call it once for each part, inside "
                "`for part in batch`"
            )
        n = batch.in_hand
        if not isinstance(losses, Tensor) or tuple(losses.shape) != (n,):
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(
                f"losses: must be one a record, of shape ({n},), not {shape}; "
                "use reduction='none', and the mean over a record's own tokens"
            )
        if not losses.requires_grad:
            raise ValueError("losses: have no graph; compute them without torch.no_grad")
        check_nothing_else_trained(self._model, self._tensors)
        check_reaches(losses, self._tensors)
        if not self._independent and n > 1:
            check_independent(losses, batch.rows)
            if self._alone is not None:
                check_alone(losses, self._alone, self._model, batch.part)
            self._independent = True
        torch.autograd.backward(losses.sum())
        batch.add()

    def spent(self) -> Spent:
        """What the records have paid so far."""
        paid = self._paid()
        charge = self.mechanism.charge(paid)
        cost = epsilon([charge], self._delta, relation=self._relation)
        if self.mechanism.insecure_seed is not None and paid:
            cost = inf
        return Spent(cost, self._delta, paid)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside the model: steps taken and charged, and the optimiser's.

        Nothing in it is secret but what the optimiser's memory is: made of noised gradients.

        Raises:
            ValueError: in the middle of a batch.
        """
        if self._batch is not None:
            raise ValueError("state_dict: a batch is in hand; call it after optimizer.step()")
        return {
            "version": _VERSION,
            "run": self._run,
            "taken": self._taken,
            "charged": self._paid(),
            "terms": self._terms(),
            "optimizer": self._inner.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint. What was charged since it was made stays charged.

        Args:
            state: of a loop with the same arguments. The model is loaded by its owner.

        Raises:
            ValueError: if it is of another loop, this one has taken steps of its own, or the
                folder holds charges of another.
        """
        if self._batch is not None:
            raise ValueError("load_state_dict: a batch is in hand; call it before the loop")
        if state.get("version") != _VERSION or state["terms"] != self._terms():
            raise ValueError(
                "load_state_dict: the state was made with other arguments (noise, batch, sampling "
                "or steps), so what it spent does not count here; make the loop with the same ones"
            )
        if state["run"] != self._run and self._charged:
            raise ValueError(
                "load_state_dict: this loop has taken steps of its own; restore into a new one"
            )
        self._check_folder(state["run"])
        same = state["run"] == self._run
        charged = max(state["charged"], self._charged if same else 0)
        taken, run, before = state["taken"], state["run"], (self._run, self._charged)
        self._run, self._charged = run, charged
        if isinstance(self.mechanism.noise, Correlated) and self._paid() != taken:
            self._run, self._charged = before
            raise ValueError(
                f"load_state_dict: {charged} steps have drawn correlated noise, and this state is "
                f"from after {taken}; noise may not be drawn for a step again; begin anew"
            )
        if self._store is not None and self._kept() < charged:  # they were taken without a folder
            self._store.release_number(self._entry(taken, charged - self._kept()))
        self.optimizer.load_state_dict(state["optimizer"])
        self._taken, self._stream = taken, None

    def abandon(self) -> None:
        """Give up the batch in hand, after an error in one's own code, and go on with the next.

        Nothing moves; the step is charged all the same, since the records may have decided it.
        """
        if self._batch is not None:
            self._batch.close()
            self._release(NOTHING, lambda: None)

    def close(self) -> None:
        """Let another process use the folder."""
        if self._store is not None:
            self._store.close()

    def _begin(self) -> Batch | None:
        """The next step's batch; None when all steps are paid for."""
        if self._batch is not None:
            raise ValueError(
                "loader: the last batch was not stepped; call optimizer.step() once for each batch"
            )
        self._check_folder(self._run)
        if self._paid() >= self.steps:
            return None
        if self._account is not None and not self._planned:
            self._account.check_plan(self._run, [(UPDATE, self.mechanism.charge(self._paid()))])
            self._planned = True
        draws = self._draws()
        [drawn] = self.mechanism.batches(self._records.number, 1, draws)
        self._batch = Batch(self._records.parts(drawn), self._model, self.mechanism, draws)
        return self._batch

    def _step(self) -> None:
        """Charge, noise, and let the optimiser move what is trained."""
        if self._batch is None:
            raise ValueError(
                "optimizer.step: there is no batch to step; call it once for each batch of the "
                "loader"
            )
        clipped = self._batch.finished()
        check_held(self._inner, self._tensors)
        self._release(clipped, self._inner.step)

    def _release(self, clipped: Accumulated, step: Callable[[], object]) -> None:
        """Once charged, a step is taken, whatever happens: its noise is never drawn again."""
        assert self._batch is not None
        self._charge()
        draws, self._batch = self._batch.draws, None
        self._taken += 1
        try:
            self.mechanism.noised(self._tensors, clipped, draws)
            step()
        except BaseException:
            self._stream = None  # begun again from what was charged
            raise
        finally:
            for parameter in self._tensors.values():
                parameter.grad = None

    def _charge(self) -> None:
        """One step, on the disk if there is a folder, before anything moves."""
        if self._paid() >= self.steps:
            raise ValueError(f"optimizer.step: all {self.steps} steps are spent")
        if self._account is not None:
            self._account.pay(self._entry(self._taken, 1))
        if self._store is not None:
            self._store.release_number(self._entry(self._taken, 1))
        self._charged += 1

    def _entry(self, step: int, steps: int) -> LedgerEntry:
        """A line of the ledger, and of the book for life."""
        return LedgerEntry(
            run=self._run,
            silo=DATASET,
            round=step,
            attempt=self._store.attempts(self._run, step) if self._store is not None else 0,
            charge=self.mechanism.charge(steps),
            max_grad_norm=self.mechanism.max_grad_norm,
            time=datetime.now(UTC).date().isoformat(),
        )

    def _check_folder(self, run: str) -> None:
        """What another training spent would not count, though the records may be the same."""
        if self._store is not None and self._store.runs() - {run}:
            raise ValueError(
                "folder: holds charges of another training, which would not count in this one's "
                "budget; restore its checkpoint with load_state_dict, or choose another folder for "
                "other records"
            )

    def _paid(self) -> int:
        """Steps charged: what this loop knows of, or the ledger if it knows of more."""
        return max(self._charged, self._kept())

    def _kept(self) -> int:
        """Steps of this run in the ledger."""
        return 0 if self._store is None else self._store.book(self._run).steps

    def _draws(self) -> RoundRandomness:
        """Of the next step: under a fresh key, or the next of one stream of correlated noise."""
        if not isinstance(self.mechanism.noise, Correlated):
            return self.mechanism.draws(self._taken, None)
        if self._stream is None:
            assert self._store is not None, "refused when the loop was made"
            past = self._store.past(self._run)
            if not self._store.still_holds(self._run, f"{self._records.number} records"):
                raise ValueError(
                    "dataset: has another number of records than this run began with, and "
                    "correlated noise needs the same ones in every step; bring them back"
                )
            self._stream = self.mechanism.draws(0, past)
        return self._stream._replace(start=self._taken)

    def _terms(self) -> dict[str, Any]:
        """What a checkpoint must have been made under."""
        mechanism = self.mechanism
        return {
            "charge": to_json(mechanism.charge(1)),
            "max_grad_norm": mechanism.max_grad_norm,
            "expected_batch_size": mechanism.expected_batch_size,
            "insecure_seed": mechanism.insecure_seed,
            "steps": self.steps,
            "delta": self._delta,
            "relation": self._relation,
        }


def check_held(optimizer: Optimizer, tensors: Mapping[Key, nn.Parameter]) -> None:
    """The optimiser moves what is clipped and noised, all of it and nothing else."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [str(key) for key, p in tensors.items() if id(p) not in held]
    if missing:
        raise ValueError(
            f"optimizer: does not hold {missing[0]}, which is trained; make it of "
            "model.trainable_parameters()"
        )
    if held - {id(p) for p in tensors.values()}:
        raise ValueError(
            "optimizer: holds parameters that are not trained here, and neither clipped nor "
            "noised; make it of model.trainable_parameters()"
        )


def check_steps_alone(optimizer: Any) -> None:
    """An optimiser that moves by the gradients it finds.

    Raises:
        ValueError: if it is none, or asks for a closure, which would look at the records again.
    """
    if not isinstance(optimizer, Optimizer):
        raise ValueError(
            f"optimizer: must be a torch.optim.Optimizer, not {type(optimizer).__name__}"
        )
    try:
        inspect.signature(optimizer.step).bind()
    except TypeError:
        raise ValueError(
            f"optimizer: {type(optimizer).__name__} needs a closure, which would look at the "
            "records again, at no charge; use one that steps once, such as SGD or AdamW"
        ) from None


class _Loader:
    """Iterates the batches of the steps that are left; its length is their number."""

    def __init__(self, left: Callable[[], int], begin: Callable[[], Batch | None]) -> None:
        self._left, self._begin = left, begin

    def __len__(self) -> int:
        return self._left()

    def __iter__(self) -> Iterator[Batch]:
        while (batch := self._begin()) is not None:
            yield batch
