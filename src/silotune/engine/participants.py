"""Who takes part in a round: clients, a server, and the model that clients of one process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from silotune.adapters import AdaptedModel
from silotune.core import Batch, ClientDataset, ClientId, Factors
from silotune.objectives import PerExampleLoss
from silotune.optim import OptimizerConfig
from silotune.privacy import ClientMechanism, PrivacyBudget
from silotune.privacy.ledger.noisy_counts import Releases
from silotune.privacy.lifetime.budget import Account


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
            raise ValueError(f"silo {self.client} needs a folder of its own to keep its ledger in")
        return self.home


@dataclass(frozen=True, kw_only=True, eq=False)
class Server:
    """What the server owns, where it is the one that hides the clients.

    Attributes:
        home: a folder for its ledger and the state that it released last.
        budget: None when no epsilon was set.
    """

    home: Path
    budget: PrivacyBudget | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalTrainer:
    """What the clients of one process share: the frozen base model and how to use it.

    Attributes:
        draw: the tensors that a seed decides, so that they need not travel.
        micro_batch: records that go through the model at once.
    """

    adapted: AdaptedModel
    objective: PerExampleLoss
    optimizer: OptimizerConfig
    draw: Callable[[int], Factors]
    micro_batch: int

    def losses(self, batch: Batch) -> torch.Tensor:
        """The loss of every record of a batch, shape (records,)."""
        return self.adapted.losses(self.objective.losses, batch)
