"""Scores of texts that a model writes: exact match, and ROUGE by ``rouge-score``.

ROUGE-1, -2 and -L are F-measures of words, of pairs of words and of the longest common subsequence
(Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", ACL 2004). Words are runs of letters
and digits of any script, in lower case and unstemmed.

Shapes: n records.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from silotune.core import Answers, Derived

ROUGE = ("rouge1", "rouge2", "rougeL")
EXACT = "exact_match"

_WORD = re.compile(r"[^\W_]+")


class _Words:
    """A tokenizer, as ``rouge-score`` asks for one."""

    @staticmethod
    def tokenize(text: str) -> list[str]:
        return _WORD.findall(text.lower())


def rouge() -> Callable[[str, str], Mapping[str, Any]]:
    """What scores a target and a text, by name.

    Raises:
        ValueError: if the library is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ValueError(
            "generate: texts are scored by rouge-score: pip install 'silotune[metrics]'"
        ) from None
    score: Callable[[str, str], Mapping[str, Any]] = RougeScorer([*ROUGE], tokenizer=_Words()).score
    return score


def text_scores(written: Sequence[str], targets: Sequence[str]) -> dict[str, Tensor]:
    """(n,) float64 by name, each from 0 to 1; spaces at the ends of texts do not count.

    Args:
        written: by a model, of n records.
        targets: what they should have been.

    Raises:
        ValueError: as ``rouge``.
    """
    score = rouge()
    pairs = [(t.strip(), w.strip()) for t, w in zip(targets, written, strict=True)]
    found = [score(*pair) for pair in pairs]
    return {
        EXACT: torch.tensor([float(t == w) for t, w in pairs], dtype=torch.float64),
        **{
            name: torch.tensor([one[name].fmeasure for one in found], dtype=torch.float64)
            for name in ROUGE
        },
    }


def with_texts(answers: Answers, scores: Mapping[str, Tensor]) -> Answers:
    """Answers that have these scores beside their own.

    Args:
        answers: of n records.
        scores: (n,) by name.
    """
    names, before = tuple(scores), answers.derive

    def derive(all_of_them: Answers) -> Derived:
        found = before(all_of_them)
        own = {name: all_of_them.kept[name] for name in names}
        return replace(
            found,
            metrics={**found.metrics, **{name: float(t.mean()) for name, t in own.items()}},
            errors={**found.errors, **{name: _error(t) for name, t in own.items()}},
        )

    return replace(answers, kept={**answers.kept, **scores}, derive=derive)


def _error(each: Tensor) -> float:
    return float(each.std() / math.sqrt(len(each))) if len(each) > 1 else math.nan
