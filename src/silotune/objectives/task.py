"""A task: the facts of it that models, data, policies and reports ask for.

An objective's file states them beside its loss. Nothing else knows a task by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from silotune.core import Answers, Derived

from .answers import Answer, Constants
from .guessing import Found, Look

Goal = Literal["max", "min"]

Target = Literal["none", "label", "labels", "entities", "numbers", "score"]

Architecture = Literal["one stack", "decoder", "encoder-decoder"]

LEARNED = frozenset({"label", "tags", "spans", "completion", "target"})
"""Parts that a record is learned by, and no model is asked with."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of problem.

    Attributes:
        name: as users and files call it.
        title: in a sentence.
        reads: what a record is before a model reads it: by its tokenizer, or image processor.
        forms: the sets of parts that make a record.
        apart: parts of a record that are rows of tokens of their own, beside the first (a model
            reads them in a pass of their own, or writes them) -> how the names of the row's tensors
            begin.
        architecture: what a base must be: an encoder or a decoder, one that no token of a text
            looks ahead in, or an encoder with such a decoder.
        auto: the class of transformers that loads a model for it.
        families: types of models that do it, for people.
        head: whether a new head is put on the base, of one output for each label.
        target: what a record is learned with: one label of a public set, any number of them,
            entities of types of such a set, numbers, a score of its two texts, or nothing but
            itself.
        needs: part of a record -> why there is none without it, where that is worth a word.
        poolings: what a head may read, or a vector of a text be made of.
        prototypes: whether it may then begin at what labels mean.
        problem: transformers' ``problem_type``, if it must be told.
        metrics: name -> whether larger or smaller is better, of all that are measured.
        metric: the one to look at first.
        meter: what ``measure`` must give at least, among its totals.
        counts_right: whether the total ``accuracy`` is at most 1 a record and never negative, so
            that its noisy sum may be released.
        derive: scores that are no sums over records.
        answer: what a record's outputs (C,) come to, by the names of the outputs and the
            objective's constants; None where a model answers by tokens: with tags, or a text.
        peft: PEFT's name of the task; None if it has none.
        pipeline: the hub's name of the task.
        template: of the programs that use a result.
        usual_model: a small public one.
        stand_in: the function of ``silotune.testing.tiny_models`` that makes a tiny one.
        fits: whether columns look as if they were for it.
        guess: which column is which part; the second argument names those that are taken.
        rank: where columns fit several tasks, the one of the highest is guessed.
    """

    name: str
    title: str
    reads: Literal["text", "image"]
    forms: Sequence[frozenset[str]]
    apart: Mapping[str, str] = field(default_factory=dict)
    architecture: Architecture = "one stack"
    auto: str
    families: str
    head: bool
    target: Target
    needs: Mapping[str, str] = field(default_factory=dict)
    poolings: tuple[str, ...] = ("model",)
    prototypes: bool = False
    problem: str | None = None
    metrics: Mapping[str, Goal]
    metric: str
    meter: str
    counts_right: bool
    derive: Callable[[Answers], Derived]
    answer: Callable[[Tensor, Sequence[str], Constants], Answer] | None = None
    peft: str | None
    pipeline: str
    template: str
    usual_model: str
    stand_in: str
    fits: Callable[[Look], bool]
    guess: Callable[[Look, set[str]], Found]
    rank: int

    @property
    def labelled(self) -> bool:
        """Whether there is a public set of labels."""
        return self.target in ("label", "labels", "entities")

    @property
    def means(self) -> bool:
        """Whether the head may read the mean over tokens, in a classifier of ours."""
        return self.head and "mean" in self.poolings

    def own_classifier(self, pooling: str) -> bool:
        """Whether a classifier of ours stands on a bare encoder, as transformers has none."""
        return self.means and pooling == "mean"

    @property
    def embeds(self) -> bool:
        """Whether a text comes to a vector, by a pooling that a checkpoint may name itself."""
        return self.target == "score"

    def counted(self, labels: Sequence[str]) -> list[str]:
        """What is counted one by one: labels, or the types of entities that tags are of."""
        if self.target != "entities":
            return [*labels]
        return [tag.removeprefix("B-") for tag in labels if tag.startswith("B-")]

    @property
    def required(self) -> frozenset[str]:
        """Parts that every record has; none if its forms have nothing in common."""
        return frozenset.intersection(*self.forms)

    @property
    def fewest_labels(self) -> int:
        """What the public set must hold at least."""
        return 1 if self.target == "entities" else 2

    @property
    def allowed(self) -> frozenset[str]:
        """Parts that some form has."""
        return frozenset.union(*self.forms)

    @property
    def plain_forms(self) -> list[frozenset[str]]:
        """Those that are no other one with something added."""
        return [form for form in self.forms if not any(other < form for other in self.forms)]
