"""What the owner of a site allows a coordinator to ask for. The site's own; no offer changes it.

What is not said is not allowed: a policy without a word refuses every offer.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from silotune.core.fields import check_fields
from silotune.core.names import is_digest
from silotune.methods.registry import built_in
from silotune.privacy import Relation
from silotune.privacy.accounting.accountant import MIN_DELTA
from silotune.privacy.choice import Unit
from silotune.privacy.lifetime.budget import Ceiling

Approve = Literal["each", "listed", "any"]
Noise = Literal["gaussian", "discrete", "correlated"]
Release = Literal["count", "metric"]
Personal = Literal["refuse", "keep"]


@dataclass(frozen=True, kw_only=True)
class PrivacyPolicy:
    """What a run may cost the records, and how they must be hidden.

    Attributes:
        units: what may be the unit of privacy. ``none`` hides nothing, and ``client`` trusts the
            coordinator with what the site sends.
        max_epsilon: of one run, at its own delta.
        max_delta: of one run.
        lifetime: the most of all runs on these records together; needed where nothing but
            ``example`` is allowed, and kept for that alone.
        relations: when two data sets may be called neighbours.
        noise: kinds that may hide the records.
        min_other_sites: in every mean, so that the site is not alone in it.

    Raises:
        ValueError: naming the field, if one is out of range or two contradict each other.
    """

    units: tuple[Unit, ...] = ("example",)
    max_epsilon: Annotated[float, Ge(0)] = 0.0
    max_delta: Annotated[float, Ge(0), Lt(1)] = 0.0
    lifetime: Ceiling | None = None
    relations: tuple[Relation, ...] = ()
    noise: tuple[Noise, ...] = ()
    min_other_sites: Annotated[int, Ge(0)] = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if self.lifetime is not None:
            self._check_lifetime(self.lifetime)

    def _check_lifetime(self, life: Ceiling) -> None:
        if not 0.0 < life.epsilon < math.inf:
            raise ValueError(f"lifetime: epsilon must be positive, not {life.epsilon}")
        if not MIN_DELTA <= life.delta < 1.0:
            raise ValueError(
                f"lifetime: delta must be at least {MIN_DELTA:g} and below 1, not {life.delta}"
            )
        if uncounted := [unit for unit in self.units if unit != "example"]:
            raise ValueError(
                f"lifetime: is counted for unit example alone, and what runs with unit "
                f"{' or '.join(uncounted)} tell of the records is in no book; take "
                f"{' and '.join(uncounted)} out of units, or leave lifetime out"
            )
        for name, most in (("epsilon", life.epsilon), ("delta", life.delta)):
            of_one = getattr(self, f"max_{name}")
            if of_one > most:
                raise ValueError(
                    f"max_{name}: one run may not cost more ({of_one:g}) than all runs together "
                    f"({most:g}, lifetime); lower it, or raise lifetime"
                )


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a site takes part in.

    Attributes:
        approve: who looks at a run before it begins: a person at ``each``; nobody, if the SHA-256
            of its offer is ``listed``; nobody at ``any``.
        approved: those digests.
        coordinator: whose offers are looked at, by the name in its certificate; empty = nobody's.
        privacy: what the records may pay, and how they are hidden.
        columns: of the records that may be read. Empty = any, as long as somebody looks or single
            records are hidden: a run of unit ``client`` or ``none`` that nobody looks at could
            carry away a column that was never meant.
        methods: names of the methods that may train.
        max_rounds: of one run.
        max_local_steps: of one round.
        releases: noisy numbers that may be sent besides the update: of records (``count``), of
            right answers on held-out ones (``metric``).
        personal: whether tensors may be trained that stay at the site.
        accept_result: whether the final adapter may be written into the site's folder.

    Raises:
        ValueError: naming the field, if one is out of range or two contradict each other.
    """

    approve: Approve = "each"
    approved: tuple[str, ...] = ()
    coordinator: str = ""
    privacy: PrivacyPolicy = field(default_factory=PrivacyPolicy)
    columns: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    max_rounds: Annotated[int, Ge(0)] = 0
    max_local_steps: Annotated[int, Ge(0)] = 0
    releases: tuple[Release, ...] = ()
    personal: Personal = "refuse"
    accept_result: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if type(self.privacy) is not PrivacyPolicy:
            raise ValueError("privacy: give a PrivacyPolicy(...)")
        if unknown := [name for name in self.methods if name not in built_in()]:
            near = get_close_matches(unknown[0], built_in(), 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(built_in())}"
            raise ValueError(f"methods: there is none called {unknown[0]}; {hint}")
        if any(not is_digest(digest) for digest in self.approved):
            raise ValueError(
                "approved: an offer is named by its SHA-256, 64 of the digits 0 to 9 and a to f, "
                "as `silotune site show` prints it"
            )
        if self.approve == "listed" and not self.approved:
            raise ValueError(
                "approved: approve: listed needs the digest of an offer here; list one, or take "
                "approve: each"
            )
        if self.approve != "listed" and self.approved:
            raise ValueError(
                f"approved: is looked at by approve: listed alone, and approve is {self.approve}; "
                "leave it out, or take approve: listed"
            )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that it says: two files that say the same have the same."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
