"""Answers: what a model says of one record, made of the model's outputs as its task has it.

Shapes: C outputs of a record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

Constants = Mapping[str, Sequence[float]]
"""Public numbers that make answers of outputs, as an objective names them."""


class Prediction(NamedTuple):
    """What a classifier says of one record.

    Attributes:
        label: the most probable one.
        probability: of this label.
        probabilities: of every label.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]


class Labels(NamedTuple):
    """What a classifier with several labels a record says of one.

    Attributes:
        labels: those whose probability reaches their threshold.
        probabilities: of every label; they do not sum to 1.
    """

    labels: tuple[str, ...]
    probabilities: Mapping[str, float]


class Entity(NamedTuple):
    """One entity of a text.

    Attributes:
        label: its type.
        start: its first character.
        end: the first character after it.
        probability: the mean over its tokens of that of the tag that each was given.
    """

    label: str
    start: int
    end: int
    probability: float


class Tags(NamedTuple):
    """What a model says of a record of words.

    Attributes:
        tags: of each word; None of one that is not read: it is beyond ``max_length``, or no token.
        probabilities: of these tags.
    """

    tags: tuple[str | None, ...]
    probabilities: tuple[float | None, ...]


class Similarity(NamedTuple):
    """What a model says of two texts.

    Attributes:
        score: that their cosine stands for.
        cosine: of their vectors.
    """

    score: float
    cosine: float


class Embedding(NamedTuple):
    """What a model makes of one text.

    Attributes:
        vector: of length 1.
    """

    vector: tuple[float, ...]


Answer = Prediction | Labels | dict[str, float] | list[Entity] | Tags | Similarity | Embedding
"""What is said of one record: a label, several, numbers by name, entities, a tag a word, how like
two texts are, or a vector of one."""


def most_probable(outputs: Tensor, names: Sequence[str], _constants: Constants) -> Prediction:
    """One label, by the softmax of its outputs (C,)."""
    row = outputs.softmax(dim=-1)
    each = dict(zip(names, row.tolist(), strict=True))
    best = names[int(row.argmax())]
    return Prediction(best, each[best], each)


def likely(outputs: Tensor, names: Sequence[str], constants: Constants) -> Labels:
    """Any number of labels, each by the sigmoid of its output (C,) and its ``threshold``."""
    row = outputs.sigmoid()
    reached = row >= row.new_tensor(constants["threshold"])
    given = zip(names, reached.tolist(), strict=True)
    each = dict(zip(names, row.tolist(), strict=True))
    return Labels(tuple(label for label, is_given in given if is_given), each)


def in_units(outputs: Tensor, names: Sequence[str], constants: Constants) -> dict[str, float]:
    """Numbers in their own units: ``mean`` + ``scale`` * outputs (C,), in float64."""
    mean, scale = (outputs.double().new_tensor(constants[name]) for name in ("mean", "scale"))
    return dict(zip(names, (mean + scale * outputs.double()).tolist(), strict=True))


def cells(answer: Answer) -> dict[str, Any]:
    """An answer as the cells of a table, by the names of its columns."""
    match answer:
        case Prediction():
            return {"prediction": answer.label, **_probabilities(answer.probabilities)}
        case Labels():
            return {"prediction": [*answer.labels], **_probabilities(answer.probabilities)}
        case Tags():
            return {"prediction": [*answer.tags], "probability": [*answer.probabilities]}
        case Similarity() | Embedding():
            return _of_vectors(answer)
        case list():
            return {"prediction": [entity._asdict() for entity in answer]}
    return {f"prediction_{name}": number for name, number in answer.items()}


def _of_vectors(answer: Similarity | Embedding) -> dict[str, Any]:
    if isinstance(answer, Embedding):
        return {"embedding": [*answer.vector]}
    return {"prediction": answer.score, "cosine": answer.cosine}


def cell_names(target: str, names: Sequence[str], *, alone: bool) -> tuple[str, ...]:
    """The columns of ``cells``, before there is an answer.

    Args:
        target: of the task.
        names: of its outputs.
        alone: whether a record is one text: no list of words, and no pair that is compared.
    """
    match target:
        case "numbers":
            return tuple(f"prediction_{name}" for name in names)
        case "entities":
            return ("prediction",) if alone else ("prediction", "probability")
        case "score":
            return ("embedding",) if alone else ("prediction", "cosine")
    return ("prediction", *_probabilities(dict.fromkeys(names, 1.0)))


def _probabilities(each: Mapping[str, float]) -> dict[str, float]:
    return {f"probability_{label}": number for label, number in each.items()}
