"""Scores of written texts, against figures worked out by hand."""

import math
import sys

import pytest
import torch

from silotune.core import Answers, joined
from silotune.objectives.text_scores import rouge, text_scores, with_texts

TARGETS = ["Refer to cardiology and urology.", "none", "Grüße aus Łódź", ""]
WRITTEN = ["refer to urology and cardiology", " none\n", "grüße nach łódź", "x"]


def test_they_are_what_is_counted_by_hand():
    found = text_scores(WRITTEN, TARGETS)
    assert found["exact_match"].tolist() == [0, 1, 0, 0]
    assert found["rouge1"].tolist() == pytest.approx([1, 1, 2 / 3, 0])
    assert found["rouge2"].tolist() == pytest.approx([1 / 4, 0, 0, 0])  # "refer to"
    assert found["rougeL"].tolist() == pytest.approx([3 / 5, 1, 2 / 3, 0])
    assert all(t.dtype == torch.float64 for t in found.values())


def test_they_stand_beside_what_is_measured_and_join():
    def one(scores):
        plain = Answers(totals={"loss": torch.ones(len(scores))}, counts=torch.ones(len(scores)))
        return with_texts(plain, {"exact_match": torch.tensor(scores, dtype=torch.float64)})

    both = joined([one([1.0, 0.0]), one([1.0])])
    assert both.metrics() == {"loss": 1.0, "exact_match": pytest.approx(2 / 3)}
    error = both.derive(both).errors["exact_match"]
    assert error == pytest.approx(math.sqrt(2 / 9 * 3 / 2 / 3))
    assert math.isnan(one([1.0]).derive(one([1.0])).errors["exact_match"])


def test_without_the_library_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ValueError, match=r"pip install 'silotune\[metrics\]'"):
        rouge()
