"""Who takes part in a round: clients, a server, and the model that clients of one process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from silotune.adapters import AdaptedModel
from silotune.core import Batch, ClientDataset, ClientId, ClientTask, Factors
from silotune.core.durable import Writing, settled
from silotune.objectives import PerExampleLoss
from silotune.optim import OptimizerConfig
from silotune.privacy import ClientMechanism, PrivacyBudget, SiloStoreError
from silotune.privacy.ledger.ledger import Ledger
from silotune.privacy.ledger.noisy_counts import Releases
from silotune.privacy.ledger.store import LEDGER, SiloStore
from silotune.privacy.lifetime.budget import Account

from .client_agreement import ClientAgreement, NotAgreedError
from .order_book import Work, admitting

SCORED = 64
"""Records that are scored at once, if nothing else is said."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Client:
    """What one client owns. Nothing of it leaves except through its mechanism.

    Attributes:
        train: records to learn from.
        held_out: records to score on, at home; None if there are none.
        home: the silo's own folder, for its ledger, what it sent last and its scores. A private
            round needs it.
        budget: None when no epsilon was set.
        releases: what it sends besides its update.
        lifetime: its records in the silo's book for life; None where none is kept.
        discreet: whether its errors stay at home although its own mechanism hides nothing, since
            the server's does.
        agreement: what it may be asked. Without one a client obeys whoever asks, so one that
            hides anything refuses everything.
    """

    client: ClientId
    train: ClientDataset
    held_out: ClientDataset | None
    privacy: ClientMechanism
    home: Path | None = None
    budget: PrivacyBudget | None = None
    releases: Releases = field(default_factory=Releases)
    lifetime: Account | None = None
    discreet: bool = False
    agreement: ClientAgreement | None = None

    @property
    def secretive(self) -> bool:
        """Whether it says nothing of its own records that no mechanism covers."""
        return self.discreet or self.privacy.private

    @property
    def folder(self) -> Path:
        """Where it keeps what must not leave.

        Raises:
            ValueError: if it has none.
        """
        if self.home is None:
            raise ValueError(
                f"silo {self.client} needs a folder of its own, to keep in it what never leaves it"
            )
        return self.home

    def check_order(self, task: ClientTask, work: Work) -> None:
        """``checking_order``, at once."""
        settled(self.checking_order(task, work))

    def checking_order(self, task: ClientTask, work: Work) -> Writing[None]:
        """Let an order pass that was agreed, and count it; nothing is done before all steps are.

        Raises:
            NotAgreedError: if it was not.
            RecordError: if it cannot be counted.
        """
        if self.agreement is None:
            if self.secretive:
                raise NotAgreedError("task: nothing was agreed with this client")
            return
        if work == "scored":
            self.agreement.check_scoring(task)
        else:
            self.agreement.check_training(task)
        if self.home is not None:
            yield from admitting(self.home, self.agreement, task, work)

    def store(self) -> SiloStore:
        """Its folder, for this process alone until it is closed.

        Raises:
            SiloStoreError: if it is in use, or has lost charges.
        """
        return SiloStore(self.folder, self._ledger)

    def charges_since(self, number: object, digest: object) -> bytes:
        """Lines of its ledger after one that somebody knows, for whoever is to hear of them.

        Args:
            number: how many lines are known.
            digest: SHA-256 of the last of them.

        Raises:
            SiloStoreError: if that line is not in the ledger.
        """
        if type(number) is not int or not isinstance(digest, str):
            raise SiloStoreError("what is known of a ledger is a number of lines and a digest")
        return self._ledger.since(number, digest)

    @cached_property
    def _ledger(self) -> Ledger:
        """Its charges; from round to round only new ones are read."""
        return Ledger(self.folder / LEDGER)


@dataclass(frozen=True, kw_only=True, eq=False)
class Server:
    """What the server owns, where it is the one that hides the clients.

    Attributes:
        home: a folder for its ledger and the state that it released last.
        budget: None when no epsilon was set.
    """

    home: Path
    budget: PrivacyBudget | None = None

    def store(self) -> SiloStore:
        """Its folder, as a client's."""
        return SiloStore(self.home, self._ledger)

    @cached_property
    def _ledger(self) -> Ledger:
        """The charges of every client; from round to round only new ones are read."""
        return Ledger(self.home / LEDGER)


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalTrainer:
    """What the clients of one process share: the frozen base model and how to use it.

    Attributes:
        draw: the tensors that a seed decides, so that they need not travel.
        gain: what pairs of a rank are multiplied by besides the adapter's scale.
        micro_batch: records that go through the model at once in training.
        eval_batch: records that do so when they are scored.
    """

    adapted: AdaptedModel
    objective: PerExampleLoss
    optimizer: OptimizerConfig
    draw: Callable[[int], Factors]
    gain: Callable[[int | None], float]
    micro_batch: int
    eval_batch: int = SCORED

    def losses(self, batch: Batch) -> torch.Tensor:
        """The loss of every record of a batch, shape (records,)."""
        return self.adapted.losses(self.objective.losses, batch)
