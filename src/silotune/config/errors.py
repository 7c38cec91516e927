"""What is wrong with a configuration, in words: one line a problem, key first, then the fix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

REFUSED = "refused"
"""The type of an error of pydantic's whose own words say what is wrong."""


class Problem(NamedTuple):
    """One thing to repair: the dotted home key and a sentence that says how."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"


class ConfigError(ValueError):
    """A configuration that cannot be used.

    Attributes:
        problems: every problem found, one line each, as a user should read them.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(" ".join(problem.split()) for problem in problems)
        super().__init__("\n".join(self.problems))
