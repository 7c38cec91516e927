"""Which tasks there are, each with the class of its objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from silotune.core.answers import Answers, Derived, nothing_more

from .causal_lm import CausalLM
from .embeddings import pooling_of
from .image_classification import ImageClassification
from .multi_label_classification import MultiLabelClassification
from .multi_label_image_classification import MultiLabelImageClassification
from .regression import Regression
from .seq2seq import Seq2Seq
from .sequence_classification import SequenceClassification
from .task import Goal, Task
from .text_embedding import TextEmbedding
from .token_classification import TokenClassification

KINDS = (
    SequenceClassification,
    MultiLabelClassification,
    Regression,
    TextEmbedding,
    TokenClassification,
    CausalLM,
    Seq2Seq,
    ImageClassification,
    MultiLabelImageClassification,
)
"""The objectives of this package, in the order in which tasks are listed."""

TASKS: Mapping[str, Task] = {kind.facts.name: kind.facts for kind in KINDS}
"""By name."""

if TYPE_CHECKING:
    TaskName = str
else:
    TaskName = Literal[tuple(TASKS)]
"""The type of a name, for whoever checks values by types."""


def find(name: str) -> Task:
    """What a task is.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in TASKS:
        raise ValueError(f"task: there is no {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def kind_of(name: str) -> type[Any]:
    """The class of a task's objective.

    Raises:
        ValueError: if there is no such task.
    """
    task = find(name)
    return next(kind for kind in KINDS if kind.facts is task)


def those(trait: Callable[[Task], bool]) -> str:
    """The names of the tasks of which something is true, as a list for people."""
    return " or ".join(name for name, task in TASKS.items() if trait(task))


def derive_of(objective: object) -> Callable[[Answers], Derived]:
    """What makes the scores that are no sums, of an objective of a task that is known."""
    task = TASKS.get(getattr(objective, "task", ""))
    return nothing_more if task is None else task.derive


def told_pooling(objective: Any, model: Any) -> str:
    """How an objective has it pooled, or its model where that is left to it."""
    own: str = objective.pooling
    return pooling_of(model, own) if find(objective.task).embeds else own


def goal_of(metric: str) -> Goal:
    """Whether more of a metric is better; of one that no task has, less is."""
    return next((task.metrics[metric] for task in TASKS.values() if metric in task.metrics), "min")


def is_known(objective: object) -> bool:
    """Whether every loss is known to be a function of its own record.

    A class of somebody's own may compute anything, and so may one that inherits from these.
    """
    return type(objective) in KINDS


def counts_right_answers(objective: object) -> bool:
    """Whether ``measure`` is known to count at most one right answer a record.

    One record then moves the count by 1, which the noise on a score is made for. A class of
    somebody's own may measure anything, and so may one that inherits from these.
    """
    return type(objective) in COUNTING


COUNTING = tuple(kind for kind in KINDS if kind.facts.counts_right)
"""Objectives whose right answers may be counted in public."""
