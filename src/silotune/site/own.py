"""What a site is: its name, its records, its folder, its base models, its machine, its policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from silotune.core.names import is_digest
from silotune.federation.records import Records
from silotune.privacy.lifetime.choice import Lifetime
from silotune.terms import Machine

from .policy import Policy


@dataclass(frozen=True, kw_only=True)
class OwnSite:
    """Everything that a site says of itself, to itself.

    Attributes:
        name: as in its certificate.
        records: where they are, how they are read, and how many are declared; the site is their
            only client.
        home: its folder, which outlives all runs.
        models: SHA-256 of a base model's files of weights -> the folder that holds it; nothing is
            downloaded.
        machine: how it computes.
        policy: what it takes part in.

    Raises:
        ValueError: naming the field, if one is out of range.
    """

    name: str
    records: Records
    home: Path
    models: Mapping[str, Path]
    machine: Machine
    policy: Policy

    def __post_init__(self) -> None:
        clients = self.records.clients
        if not isinstance(clients, Mapping) or list(clients) != [self.name]:
            raise ValueError(f"clients: a site has the records of one client, {self.name!r}")
        if _declared(self.records.num_examples, self.name) is None:
            raise ValueError("num_examples: a site declares how many records it trains on; set it")
        if "metric" in self.policy.releases and self.num_held_out is None:
            raise ValueError(
                "num_held_out: a noisy score is divided by it; declare it, or take metric out of "
                "releases"
            )
        for digest in self.models:
            if not is_digest(digest):
                raise ValueError(
                    "models: a base model is named by the SHA-256 of its files, 64 of the digits 0 "
                    f"to 9 and a to f in small letters, not {digest[:80]!r}"
                )

    def lacks(self, base: str) -> bool:
        """Whether a base model is not among its models.

        Args:
            base: SHA-256 of its files.
        """
        return base not in self.models

    @property
    def num_examples(self) -> int:
        """The declared number of training records; public."""
        declared = _declared(self.records.num_examples, self.name)
        assert declared is not None, "refused when it was made"
        return declared

    @property
    def num_held_out(self) -> int | None:
        """The declared number of held-out records; None if no noisy score may be asked for."""
        return _declared(self.records.num_held_out, self.name)

    @property
    def lifetime(self) -> Lifetime:
        """The book of what its records pay, in its folder, with the ceiling of its policy."""
        ceiling, folder = self.policy.privacy.lifetime, str(self.home / "life")
        if ceiling is None:
            return Lifetime(folder=folder)
        return Lifetime(max_epsilon=ceiling.epsilon, max_delta=ceiling.delta, folder=folder)


def _declared(numbers: int | Mapping[str, int] | None, name: str) -> int | None:
    return numbers.get(name) if isinstance(numbers, Mapping) else numbers
