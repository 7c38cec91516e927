"""What the owner of records chooses for all runs on them: a ceiling, and where it is kept.

It is one silo's own, and no part of what the parties of a federation agree on.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from silotune.core.fields import check_fields
from silotune.privacy.accounting.accountant import MIN_DELTA

ENVIRONMENT = "SILOTUNE_LIFETIME_FOLDER"
"""Names the folder of the book where nothing else does."""


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """What all runs on the same records may cost together, and where that is written down.

    Attributes:
        max_epsilon: the ceiling: a run that would bring records above it is refused before it
            trains. None = all is recorded, and nothing refused.
        max_delta: at which it holds, over all runs.
        folder: of the book; None = what the environment variable SILOTUNE_LIFETIME_FOLDER names,
            or else the user's data folder.
        record: False for simulations on public data: nothing is recorded, and certificates say so.

    Raises:
        ValueError: naming the field, if one is out of range or two do not go together.
    """

    max_epsilon: float | None = None
    max_delta: float = 1e-5
    folder: str | None = None
    record: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if self.max_epsilon is not None and not 0.0 < self.max_epsilon < math.inf:
            raise ValueError(f"lifetime: max_epsilon must be positive, not {self.max_epsilon}")
        if not MIN_DELTA <= self.max_delta < 1.0:
            raise ValueError(
                f"lifetime: max_delta must be at least {MIN_DELTA:g} and below 1, "
                f"not {self.max_delta}"
            )
        if self.folder is not None and not self.folder.strip():
            raise ValueError("lifetime: folder is empty; name one, or leave it out")
        if not self.record and self.max_epsilon is not None:
            raise ValueError(
                "lifetime: off records nothing, so that no max_epsilon can be kept; leave one out"
            )

    @property
    def place(self) -> Path:
        """The folder of the book."""
        return Path(self.folder).expanduser() if self.folder else default_place()


def lifetime_of(given: Lifetime | Literal["off"] | None) -> Lifetime:
    """What somebody gave, in full.

    Raises:
        ValueError: if it is none of these.
    """
    if given is None:
        return Lifetime()
    if isinstance(given, str) and given == "off":
        return Lifetime(record=False)
    if not isinstance(given, Lifetime):
        raise ValueError(
            f"lifetime: give silotune.Lifetime(max_epsilon=...), or 'off', not {given!r:.40}"
        )
    return given


def default_place() -> Path:
    """Of the environment, or in the user's data folder, which outlives the folders of runs."""
    import platformdirs

    named = os.environ.get(ENVIRONMENT, "").strip()
    place = Path(named).expanduser() if named else platformdirs.user_data_path("silotune")
    return place if named else place / "lifetime"
