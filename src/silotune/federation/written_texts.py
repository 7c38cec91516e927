"""Written texts: what a language model writes where a record says what it should, and its scores.

It takes as many passes as there are tokens, so it is done on demand alone. A model is asked by the
very tokens that it was trained after, and writes no more of them than a record may have.

Shapes: T tokens of a record, S of what is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from silotune.core import Answers, ClientDataset, joined
from silotune.core.masks import MASK
from silotune.engine import evaluate
from silotune.objectives import Objective, find
from silotune.objectives.base import IGNORED, max_target_length
from silotune.objectives.text_scores import rouge, text_scores, with_texts
from silotune.terms import BuiltModel

from .built import BuiltFederation
from .loaded_model import LoadedModel
from .scoring import Ask, Measure, records_at
from .trained_models import ModelState


class Asked(NamedTuple):
    """A record, as a model is asked to write it.

    Attributes:
        ids: (1, S) what is read.
        target: tokens of what should be written, (T - S,) or those of a row of its own.
        room: tokens that may be written.
    """

    ids: Tensor
    target: Tensor
    room: int


def check_writes(objective: Objective, most: int | None) -> None:
    """See that there are texts to compare, before any model is opened.

    Args:
        objective: by which the model was trained.
        most: tokens of a text; None = as many as a record may have.

    Raises:
        ValueError: if the task writes nothing, its records are not divided into what is read and
            what is written, or a library is not installed.
    """
    if find(objective.task).target != "none":
        raise ValueError(
            f"generate: {objective.task} writes no texts; leave it out, and its metrics are made"
        )
    if objective.columns.keys() == {"text"}:
        raise ValueError(
            "generate: a record of plain text does not say what is read and what is to be written; "
            "it takes prompt and completion, messages, or source and target"
        )
    if most is not None and (type(most) is not int or most < 1):
        raise ValueError(f"generate: {most!r} new tokens; ask for a whole number, 1 at least")
    rouge()


def writing(built: BuiltFederation, most: int | None) -> Measure:
    """Answers as ever, and the scores of what is written beside them.

    Args:
        built: whose models and records they are.
        most: as of ``check_writes``.
    """

    def measure(asks: Sequence[Ask]) -> list[Answers]:
        model, objective = built.agreement.model, built.terms.objective
        return [
            joined(
                written(model, objective, numbers, records_at(built.data, ask.records), most)
                for numbers in ask.models
            )
            for ask in asks
        ]

    return measure


def written(
    model: BuiltModel,
    objective: Objective,
    numbers: ModelState,
    examples: ClientDataset,
    most: int | None,
) -> Answers:
    """Answers to examples, with the scores of what is written for each.

    Args:
        model: of the run.
        objective: by which it was trained.
        numbers: that are loaded into it.
        examples: tokenised as for training.
        most: as of ``check_writes``.

    Raises:
        ValueError: naming a record of which nothing is read before it is written, as there is no
            text and the model has no token to begin with.
    """
    trainer = model.trainer
    adapted, asked = trainer.adapted, list(_asked(objective, examples, most))
    answers = evaluate(
        adapted, objective, numbers.factors, examples, trainer.eval_batch, numbers.folded
    )
    writer = LoadedModel(
        model=adapted.model.eval(),
        objective=objective,
        tokenizer=model.loaded.tokenizer,
        image_processor=None,
        labels=(),
    )
    texts, targets = list[str](), list[str]()
    for one in asked:
        texts.append(writer.written(one.ids, one.room))
        targets.append(writer.text_of(one.target))
    return with_texts(answers, text_scores(texts, targets))


def _asked(objective: Objective, examples: ClientDataset, most: int | None) -> Iterator[Asked]:
    anew = find(objective.task).architecture == "encoder-decoder"
    for row in range(len(examples.lengths)):
        batch = examples.batch([row])
        ids, labels = batch["input_ids"][:, batch[MASK][0].bool()], batch["labels"][0]
        if anew:
            target, longest = labels[labels != IGNORED], max_target_length(objective)
        else:
            first, end = last_run(labels != IGNORED)
            ids, target = ids[:, :first], labels[first:end]
            longest = objective.max_length - first
        if not ids.numel():
            raise ValueError(
                f"generate: record {row} (the first is 0, of those that are not empty) has nothing "
                "before its text, and the model no token to begin with; leave that record out"
            )
        yield Asked(ids, target, max(1, longest if most is None else min(most, longest)))


def last_run(learned: Tensor) -> tuple[int, int]:
    """Where the last stretch of tokens with a loss begins and ends: the last answer of a chat.

    Args:
        learned: (T,) bool, somewhere true.
    """
    end = int(learned.nonzero()[-1]) + 1
    before = (~learned[:end]).nonzero()
    return (int(before[-1]) + 1 if len(before) else 0), end
