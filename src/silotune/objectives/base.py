"""What a model is asked to do: one loss for every example, and metrics that add up.

An objective is public. It says which columns a record has, how its head begins and what is
measured, and never where records are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from torch import Tensor, nn

from silotune.core import Answers, Batch
from silotune.core.inputs import InputSpec

HeadInit = Literal["auto", "random", "label-prototypes", "checkpoint"]
Labels = Sequence[str] | Mapping[str, str] | None
"""The public label set in order of ids; label -> description; None: only the data can tell."""


IGNORED = -100
"""The label of a token without loss, as torch's cross entropy knows it: padding, and the like."""


class PerExampleLoss(Protocol):
    """What training needs: one loss for every example, and metrics that add up."""

    @property
    def metric(self) -> str:
        """Name of the meter to look at first."""
        ...

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) losses, each a function of its own example only."""
        ...

    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """Metrics of a batch, record by record."""
        ...


class Objective(PerExampleLoss, Protocol):
    """Losses and metrics of one kind of problem, and what its records look like."""

    @property
    def task(self) -> str:
        """What it is to everybody else: the name of a ``Task``."""
        ...

    @property
    def columns(self) -> Mapping[str, str | tuple[str, ...]]:
        """Part of a record (``text``, ``label`` ...) -> the column that holds it, or several."""
        ...

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """In order of ids; empty for a task without labels; None if only the data can tell."""
        ...

    @property
    def labels(self) -> Labels:
        """The same, with descriptions where there are any."""
        return None

    @property
    def max_length(self) -> int:
        """Tokens of a text; the rest is cut."""
        return 128

    @property
    def head(self) -> Literal["trained", "frozen"]:
        """Whether the head moves, if there is one."""
        return "trained"

    @property
    def head_init(self) -> HeadInit:
        """How the head begins; never ``auto``, which an objective resolves when it is made."""
        return "random"

    @property
    def head_scale(self) -> float:
        """The head is W0 + head_scale V with V trained."""
        return 1.0

    @property
    def head_bias(self) -> Literal["trained", "frozen"]:
        """Whether the head's bias moves with it, or stays as it began."""
        return "trained"

    @property
    def pooling(self) -> Literal["model", "mean", "cls", "last"]:
        """What the head reads, or a vector is made of: as the model says, or some of its tokens."""
        return "model"

    @property
    def constants(self) -> Mapping[str, tuple[float, ...]]:
        """Public numbers that make answers of outputs, by name, one for each output or all."""
        return {}

    def synthetic(self, spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
        """Random examples of so many tokens each, to prove the gradient of every single one on.

        They are padded on the right, where ``attention_mask`` is 0. Images have no lengths: there
        is one for each number.
        """
        ...


def max_target_length(objective: Objective) -> int:
    """Tokens of a text in a row of its own; those of any text, if the objective says no other."""
    return int(getattr(objective, "max_target_length", objective.max_length))


def source_prefix(objective: Objective) -> str:
    """What every text to be read begins with; nothing, if the objective does not say."""
    return str(getattr(objective, "source_prefix", ""))


def score_range(objective: Objective) -> tuple[float, float] | None:
    """The lowest and the highest number that a record is learned with, where they are declared."""
    declared: tuple[float, float] | None = getattr(objective, "score_range", None)
    return declared


def loss_settings(objective: Objective) -> dict[str, str]:
    """The public numbers and words of a loss that are not the usual ones, by their fields."""
    told = {}
    weights: Mapping[str, float] = getattr(objective, "class_weights", None) or {}
    if weights:
        told["class_weights"] = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    if smoothing := getattr(objective, "label_smoothing", 0.0):
        told["label_smoothing"] = f"{smoothing:g}"
    if getattr(objective, "loss", None) == "huber":
        told |= {"loss": "huber", "huber_delta": f"{getattr(objective, 'huber_delta', 1.0):g}"}
    return told


def columns_read(objective: Objective) -> tuple[str, ...]:
    """Every column that is read, once."""
    flat = ((c,) if isinstance(c, str) else c for c in objective.columns.values())
    return tuple(dict.fromkeys(column for columns in flat for column in columns))


def names_of(labels: Labels) -> tuple[str, ...] | None:
    """The label set in order of ids, without descriptions."""
    return None if labels is None else tuple(labels)


def checked_labels(labels: Labels, fewest: int = 2) -> Labels:
    """The label set as a tuple or a mapping, so that equal ones are equal.

    Raises:
        ValueError: if there are fewer than ``fewest``, one stands there twice, or one is no text.
    """
    if labels is None:
        return None
    if isinstance(labels, str) or not isinstance(labels, Sequence | Mapping):
        raise ValueError(f"labels: give a list of labels, not {type(labels).__name__}")
    names = tuple(labels)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"labels: give each as text, such as '0', not {type(name).__name__}")
        if name != name.strip() or not name:
            raise ValueError(f"labels: {name!r} is empty or has spaces around it; write it without")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"labels: {', '.join(twice)} stands there twice; keep one")
    if len(names) < fewest:
        needs = "two labels or more; None takes them from the data" if fewest > 1 else "one or more"
        raise ValueError(f"labels: needs {needs}")
    return dict(labels) if isinstance(labels, Mapping) else names


def check_max_length(max_length: int) -> None:
    """Refuse to cut everything.

    Raises:
        ValueError: if it is not positive.
    """
    if max_length < 1:
        raise ValueError(f"max_length: must be at least 1 token, not {max_length}")
