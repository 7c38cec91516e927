"""Token classification: entities of texts, as one tag for each token (IOB2).

A record's loss is the mean over its *own* tokens that have a tag, as a mean over the tokens of a
batch would let one record's length change another's gradient.

Shapes: n examples, T tokens, C tags, K types of entities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from silotune.core import Answers, Batch, Derived, generator
from silotune.core.fields import check_fields
from silotune.core.inputs import InputSpec, synthetic_inputs

from .base import IGNORED, Labels, check_max_length, checked_labels, names_of
from .classification import check_head, logits_of
from .guessing import Found, Look
from .iob2 import Entity, entities, tags_of
from .label_scores import counted
from .task import Task
from .tokens import own_means, token_losses

_TAGGED = 0.75
"""Of the tokens of made-up records, about so many have a tag."""


def derived(answers: Answers) -> Derived:
    """Precision, recall and F1 of entities, all types together (seqeval's micro average).

    Where nothing is found, precision is 0, as seqeval has it. Errors are those of ratios of sums
    over records, which are drawn whole.
    """
    if "hits" not in answers.kept:
        return Derived()
    each = {name: answers.kept[name] for name in ("hits", "found", "there")}
    hits, found, there = (own.sum(dim=1).double() for own in each.values())
    ratios = {
        "entity_f1": (2 * hits, found + there),
        "entity_precision": (hits, found),
        "entity_recall": (hits, there),
    }
    metrics, errors = {}, {}
    for name, (total, counts) in ratios.items():
        alone = replace(answers, totals={name: total}, counts=counts)
        some = bool(counts.sum() > 0)
        metrics[name] = alone.meters()[name].value() if some else 0.0
        if some:
            errors[name] = alone.error(name)
    by_type = counted(each["there"], each["found"], each["hits"])
    return Derived(metrics=metrics, errors=errors, counts=by_type)


def _fits(look: Look) -> bool:
    return bool(look.spans() or look.tags())


def _guess(look: Look, taken: set[str]) -> Found:
    if spans := look.spans():
        texts = [column for column in look.texts() if column not in taken]
        columns = {"spans": next(look.called("spans", spans), spans[0])}
        if not texts:
            return columns, {"text": tuple(look.columns)}
        return {"text": next(look.called("text", texts), texts[0]), **columns}, {}
    tags = look.tags()
    if not tags:
        return {}, {"tags": tuple(look.columns)}
    chosen = next(look.called("tags", tags), tags[0])
    words = [column for column in look.word_lists() if column not in {*tags, *taken}]
    if not words:
        return {"tags": chosen}, {"words": tuple(look.columns)}
    return {"words": next(look.called("words", words), words[0]), "tags": chosen}, {}


TASK = Task(
    name="token-classification",
    title="the recognition of entities",
    reads="text",
    forms=(frozenset({"words", "tags"}), frozenset({"text", "spans"})),
    auto="AutoModelForTokenClassification",
    families="an encoder (bert, roberta, modernbert, deberta-v2)",
    head=True,
    target="entities",
    metrics={
        "entity_f1": "max",
        "entity_precision": "max",
        "entity_recall": "max",
        "token_accuracy": "max",
        "loss": "min",
    },
    metric="entity_f1",
    meter="token_accuracy",
    counts_right=False,
    derive=derived,
    peft="TOKEN_CLS",
    pipeline="token-classification",
    template="tokens",
    usual_model="sentence-transformers/all-MiniLM-L6-v2",
    stand_in="tiny_bert",
    fits=_fits,
    guess=_guess,
    rank=3,
)


@dataclass(frozen=True, kw_only=True)
class TokenClassification:
    """Entities of texts; ``batch["labels"]`` holds a tag for each token, shape (n, T), or -100.

    Attributes:
        words: column of words, a list for each record, with
        tags: column of their tags, as many, by name and in IOB2; or
        text: column of texts, with
        spans: column of entities, lists of {start, end, label}: characters from ``start`` up to,
            and without, ``end``.
        labels: the public types of entities, such as NAME and DATE. They make the tags O, B-NAME,
            I-NAME, B-DATE and I-DATE, in order of ids.
        max_length: tokens of a record; the rest is cut.
        head: whether the head moves.
        head_init: from the seed (``auto`` too), or as the base model brings it.
        head_scale: the head is W0 + head_scale V with V trained: smaller makes it slower.
        head_bias: whether the head's bias moves with it, or stays as it began.

    Raises:
        ValueError: if a field is out of range, or the columns make no record.
    """

    facts: ClassVar[Task] = TASK
    task: ClassVar[str] = TASK.name
    metric: ClassVar[str] = TASK.meter
    goal: ClassVar[Literal["max", "min"]] = "max"
    pooling: ClassVar[Literal["model", "mean"]] = "model"
    constants: ClassVar[Mapping[str, tuple[float, ...]]] = {}

    words: str | None = None
    tags: str | None = None
    text: str | None = None
    spans: str | None = None
    labels: Labels
    max_length: int = 128
    head: Literal["trained", "frozen"] = "trained"
    head_init: Literal["auto", "random", "checkpoint"] = "auto"
    head_scale: float = 1.0
    head_bias: Literal["trained", "frozen"] = "trained"

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "labels", checked_types(self.labels))
        check_max_length(self.max_length)
        check_head(self.head_scale)
        if self.columns.keys() not in TASK.forms:
            raise ValueError(
                "columns: token-classification takes words and tags, or text and spans, not "
                f"{' and '.join(self.columns) or 'nothing'}"
            )
        if self.head_init == "auto":
            object.__setattr__(self, "head_init", "random")

    @property
    def columns(self) -> Mapping[str, str]:
        """Those that are named."""
        parts = {"words": self.words, "tags": self.tags, "text": self.text, "spans": self.spans}
        return {part: column for part, column in parts.items() if column is not None}

    @property
    def label_names(self) -> tuple[str, ...]:
        """The tags, in order of ids."""
        return tags_of(names_of(self.labels) or ())

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,) mean cross entropies; 0 for an example without a tag."""
        labels = batch["labels"]
        return own_means(token_losses(logits_of(model, batch), labels), labels)

    @torch.no_grad()
    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """``token_accuracy`` and ``loss``, counted in tokens that have a tag; and entities.

        Of these are kept, for each record and type (n, K), how many there are, were found, and were
        found where they are and of their type.
        """
        logits, labels = logits_of(model, batch), batch["labels"]
        given, tagged = logits.argmax(dim=-1), labels != IGNORED
        right = ((given == labels) & tagged).sum(dim=1)
        types = logits.shape[-1] // 2
        found_in = [
            _found(ids[own].tolist(), said[own].tolist(), types)
            for ids, said, own in zip(labels.cpu(), given.cpu(), tagged.cpu(), strict=True)
        ]
        hits, found, there = torch.tensor(found_in).unbind(dim=1)
        return Answers(
            totals={
                "token_accuracy": right.double(),
                "loss": token_losses(logits, labels).double().sum(dim=1),
            },
            counts=tagged.sum(dim=1),
            kept={"hits": hits, "found": found, "there": there},
        )

    def synthetic(self, spec: InputSpec, lengths: Sequence[int], seed: int) -> Batch:
        """Random texts of these lengths; most of their tokens have a random tag, the first has."""
        g = generator(seed, "synthetic")
        inputs = synthetic_inputs(spec, lengths, g)
        mask = inputs["attention_mask"].bool()
        tagged = torch.rand(mask.shape, generator=g) < _TAGGED
        tagged[:, 0] = True
        tags = torch.randint(spec.num_labels, mask.shape, generator=g)
        return inputs | {"labels": tags.where(mask & tagged, torch.tensor(IGNORED))}


def checked_types(labels: Labels) -> Labels:
    """The types of entities as a tuple or a mapping.

    Raises:
        ValueError: if there is none, one stands there twice, or is a tag.
    """
    if labels is None:
        raise ValueError("labels: list the types of entities, such as NAME and DATE")
    known = checked_labels(labels, fewest=1)
    for name in names_of(known) or ():
        if name == "O" or name.startswith(("B-", "I-")):
            raise ValueError(
                f"labels: {name!r} is a tag; list types of entities, such as NAME and DATE, of "
                "which O, B-NAME, I-NAME, B-DATE and I-DATE are made"
            )
    return known


def _found(right: Sequence[int], given: Sequence[int], types: int) -> list[list[int]]:
    """Entities in both, found, and there, of each type."""
    there: set[Entity] = set(entities(right))
    found = set(entities(given))
    kinds = ([one.kind for one in some] for some in (there & found, found, there))
    return [[own.count(kind) for kind in range(types)] for own in kinds]
