"""PrivacyEngine: DP-SGD inside somebody's own training loop, in the manner of Opacus.

    for batch in private.loader:                    # a secret Poisson sample; may be empty
        for part in batch:                          # micro-batches
            private.backward(losses_of(model, part))    # one loss a record
        private.optimizer.step()                    # noise once, over the expected batch; charged

Sampling, clipping, noise and price are those of ``privacy.mechanisms.dp_sgd``; nothing is done
twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import default_collate

from silotune.adapters import AdaptedModel
from silotune.privacy import ExampleDP, ExampleLevel, Relation, declared_sizes
from silotune.privacy.ledger.entry import UPDATE
from silotune.privacy.lifetime.book import Book
from silotune.privacy.lifetime.budget import Account, Run, ceiling_of
from silotune.privacy.lifetime.choice import Lifetime, lifetime_of
from silotune.privacy.lifetime.record_set import RecordSet, keyed
from silotune.privacy.mechanisms_from_choice import client_mechanisms
from silotune.privacy.planned_charges import Training

from .batch import Records
from .contents import contents
from .gradient_check import check_gradients
from .loop import DATASET, PrivateLoop, check_held, check_steps_alone


@dataclass(frozen=True, kw_only=True)
class PrivacyEngine:
    """What to hide and at what price. Fields mean what they mean in ``privacy.ExampleDP``.

    Attributes:
        target_epsilon: the budget of all steps; give it or ``noise_multiplier``.
        noise_multiplier: std of the noise in units of ``max_grad_norm``.
        target_delta: below 1 / the number of records.
        max_grad_norm: C, the largest L2 norm of one record's gradient over all that is trained.
        relation: when data sets are neighbours.
        sampling: how records come into a batch.
        max_batch_size: most records in a batch of ``truncated-poisson``.
        noise: its kind; ``correlated`` belongs to ``rotation``.
        bands: how many steps correlated noise reaches back; None = the best.
        insecure_seeded_noise: draw noise and coins from the seed. NOT PRIVATE.

    Raises:
        ValueError: if a field is out of range, or nothing is proved for the combination.
    """

    target_epsilon: float | None = None
    noise_multiplier: float | None = None
    target_delta: float = 1e-5
    max_grad_norm: float = 1.0
    relation: Relation = "add-remove"
    sampling: Literal["poisson", "truncated-poisson", "rotation"] = "poisson"
    max_batch_size: int | None = None
    noise: Literal["gaussian", "discrete", "correlated"] = "discrete"
    bands: int | None = None
    insecure_seeded_noise: bool = False

    def __post_init__(self) -> None:
        self.choice  # noqa: B018  refuses

    @property
    def choice(self) -> ExampleDP:
        """The same as a choice for one client, whose steps are never taken again."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return ExampleDP(**given, reserve_rounds=0)

    def make_private(
        self,
        *,
        model: AdaptedModel,
        optimizer: Optimizer,
        dataset: Any,
        batch_size: int,
        steps: int,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
        micro_batch_size: int | None = None,
        num_examples: int | None = None,
        losses: Callable[[Any, Any], Tensor] | None = None,
        synthetic: Any = None,
        folder: str | Path | None = None,
        lifetime: Lifetime | Literal["off"] | None = None,
        seed: int = 0,
    ) -> PrivateLoop:
        """Find the noise, check the gradients, and give the parts of a private loop.

        What is found is a gradient that flows from one record to another: in the model, on made-up
        records, and in the first losses. Numbers without a gradient are compared only for
        ``losses``. A loss that is divided by the size of its batch, or records that are chosen or
        weighed by others, break the guarantee and may pass: see ``PrivateLoop.backward``.

        Args:
            model: what ``adapt`` or ``adopt`` gives, on its device.
            optimizer: holds ``model.trainable_parameters()`` and nothing else.
            dataset: records by number, with a length.
            batch_size: records that a step expects.
            steps: of the whole training; the budget is for all of them.
            collate_fn: makes a batch of a list of records; tensors' first dimension counts them.
            micro_batch_size: records that go through the model at once; None = ``batch_size``.
            num_examples: the public number of records; None = the length of the dataset, rounded
                down to two digits, from 200 records on.
            losses: of the model on a batch, (n,), to check with, and to compare the first real
                ones with, record by record; None = random ones of its logits.
            synthetic: a batch as ``collate_fn`` makes it, of made-up records, two or more, to check
                with; None = one of the form of a batch of real ones and with nothing else of them.
            folder: where charges are kept, so that they outlive the process; correlated noise
                needs it. One process at a time, and one training: to go on with it, restore its
                checkpoint with ``load_state_dict``; other records get another folder.
            lifetime: a ceiling over all trainings on the same records, and where their book is
                kept; None = recorded, without a ceiling; ``"off"`` for public data. Records are
                read once, to be known again by what the dataset gives: runs on texts and loops on
                their tokens are not told to be of the same records. Records that cannot be digested
                are in no book, with a warning, and refused under a ceiling.
            seed: decides noise and coins with ``insecure_seeded_noise``, and nothing else.

        Raises:
            ValueError: naming the argument, if it does not fit.
            GradientCheckError: if the gradient of a record is not what it must be.
        """
        _check_counts(
            batch_size=batch_size,
            steps=steps,
            micro_batch_size=micro_batch_size,
            num_examples=num_examples,
        )
        _check_functions(collate_fn=collate_fn, losses=losses or default_collate)
        if folder is not None and not isinstance(folder, str | Path):
            raise ValueError(f"folder: must be a path, not {folder!r}")
        _check_model(model)
        check_steps_alone(optimizer)
        sizes = _sizes(dataset, num_examples)
        training = Training(rounds=1, local_steps=steps, batch_size=batch_size, seed=seed)
        mechanism = client_mechanisms(self.choice, sizes, training)[DATASET]
        assert isinstance(mechanism, ExampleLevel)
        tensors = {key: p for key, p in model.tensors.items() if p.requires_grad}
        check_held(optimizer, tensors)
        roles = {key.role for key in tensors}
        micro_batch = micro_batch_size or batch_size
        check_gradients(model, roles, dataset, collate_fn, losses, synthetic, micro_batch)
        account = self._account(lifetime_of(lifetime), mechanism, steps, dataset)
        return PrivateLoop(
            mechanism=mechanism,
            steps=steps,
            delta=self.target_delta,
            relation=self.relation,
            model=model,
            tensors=tensors,
            optimizer=optimizer,
            records=Records(dataset, collate_fn, micro_batch),
            folder=None if folder is None else Path(folder),
            alone=losses,
            account=account,
        )

    def _account(
        self, lifetime: Lifetime, mechanism: ExampleLevel, steps: int, dataset: Any
    ) -> Account | None:
        """The records in their book for life; None if it is off, or they cannot be told again."""
        if not lifetime.record:
            return None
        book = Book(lifetime.place)
        try:
            digests = keyed(contents(dataset), book.key)
        except TypeError as error:
            problem = (
                f"lifetime: a record holds a {error}, by which it cannot be known again, so that "
                "no book can say what it pays; give plain values, lists, mappings, arrays or "
                "tensors, or lifetime='off'"
            )
            if lifetime.max_epsilon is not None:
                raise ValueError(problem) from None
            warnings.warn(problem, stacklevel=3)
            return None
        run = Run(
            silo=DATASET,
            relation=self.relation,
            delta=self.target_delta,
            seeded=mechanism.insecure_seed is not None,
            planned=((UPDATE, mechanism.charge(steps)),),
        )
        records = RecordSet(where="", whose=DATASET, digests=digests)
        return Account(book, records, run, ceiling_of(lifetime))


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{name}: must be a whole number of at least 1, not {value!r}")


def _check_functions(**given: Any) -> None:
    for name, value in given.items():
        if not callable(value):
            raise ValueError(f"{name}: must be a function, not {value!r}")


def _check_model(model: Any) -> None:
    """An adapted model.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(model, AdaptedModel):
        raise ValueError(
            f"model: must be what adapt(...) or adopt(...) gives, not a {type(model).__name__}"
        )


def _sizes(dataset: Any, num_examples: int | None) -> dict[str, int]:
    """The public number of records."""
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise ValueError("dataset: must have a length and give records by number")
    if not len(dataset):
        raise ValueError("dataset: is empty")
    sizes, _ = declared_sizes("num_examples", num_examples, {DATASET: len(dataset)})
    return sizes
