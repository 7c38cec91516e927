"""Several labels on a record, and numbers: losses, scores and what they refuse."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from silotune.core import joined
from silotune.core.inputs import TextInput
from silotune.models.heads import random_head
from silotune.models.load import load_model
from silotune.objectives import (
    MultiLabelClassification,
    Objective,
    Regression,
    SequenceClassification,
)

NAMES = ("ash", "birch", "cedar")
WEIGHTS = {"birch": 3.0}
LABELS = MultiLabelClassification(text="text", label="tags", labels=NAMES)
WEIGHTED = MultiLabelClassification(
    text="text", label=NAMES, class_weights=WEIGHTS, label_smoothing=0.2
)
NUMBERS = Regression(
    text="text", label=NAMES, target_mean=(5.0, 0.0, -100.0), target_scale=(2.0, 1.0, 30.0)
)
HUBER = Regression(text="text", label=NAMES, target_mean=1, target_scale=2, loss="huber")
ONE = SequenceClassification(
    text="text", label="label", labels=NAMES, class_weights=WEIGHTS, label_smoothing=0.2
)
ALL = {"labels": LABELS, "weighted": WEIGHTED, "numbers": NUMBERS, "huber": HUBER, "one": ONE}


@pytest.fixture(params=ALL)
def objective(request):
    return ALL[request.param]


@pytest.fixture(params=["model", "mean"])
def loaded(request, folders, objective):
    found = load_model(str(folders["bert"]), objective.task, labels=NAMES, pooling=request.param)
    for key, tensor in random_head(found.heads, 0).items():
        found.model.get_submodule(key.site).get_parameter(key.name).copy_(tensor)
    found.model.double()
    return found


def synthetic(objective, loaded):
    return objective.synthetic(loaded.inputs, (5, 8, 4, 7, 6), 0)


def rows(batch, *indices):
    return {name: tensor[list(indices)] for name, tensor in batch.items()}


def trimmed(batch, i):
    length = int(batch["attention_mask"][i].sum())
    one = rows(batch, i)
    return {k: t if k == "labels" else t[:, :length] for k, t in one.items()}


def reference(objective, z, target):
    """The loss of one record in numpy, by its formula."""
    if objective is ONE:
        smooth = np.full(3, 0.2 / 3)
        smooth[target] += 0.8
        weight = WEIGHTS.get(NAMES[target], 1.0)
        return weight * -(smooth * (z - np.log(np.exp(z).sum()))).sum()
    if isinstance(objective, MultiLabelClassification):
        y = target * (1 - objective.label_smoothing) + objective.label_smoothing / 2
        weight = np.array([(objective.class_weights or {}).get(name, 1.0) for name in NAMES])
        p = 1 / (1 + np.exp(-z))
        return -(weight * y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    mean, scale = (np.array(objective.constants[name]) for name in ("mean", "scale"))
    away = np.abs(z - (target - mean) / scale)
    if objective.loss == "mse":
        return (away**2).mean()
    return np.where(away < 1, away**2 / 2, away - 0.5).mean()


def test_losses_are_those_of_their_formula(objective, loaded):
    batch = synthetic(objective, loaded)
    inputs = {k: t for k, t in batch.items() if k != "labels"}
    logits = loaded.model(**inputs).logits.detach().numpy()
    by_hand = [
        reference(objective, z, y) for z, y in zip(logits, batch["labels"].numpy(), strict=True)
    ]
    assert objective.losses(loaded.model, batch).tolist() == pytest.approx(by_hand, rel=1e-6)


def test_a_loss_depends_on_its_own_record_only_and_not_on_padding(objective, loaded):
    batch = synthetic(objective, loaded)
    whole = objective.losses(loaded.model, batch)
    part = objective.losses(loaded.model, rows(batch, 3, 1))
    assert torch.allclose(whole[[3, 1]], part, rtol=0, atol=1e-12)
    alone = torch.cat([objective.losses(loaded.model, trimmed(batch, i)) for i in range(5)])
    assert torch.allclose(whole, alone, rtol=0, atol=1e-10)


def test_measures_add_up_over_parts(objective, loaded):
    batch = synthetic(objective, loaded)
    whole = objective.measure(loaded.model, batch)
    parts = joined([objective.measure(loaded.model, rows(batch, *p)) for p in ([0], [1, 2, 3, 4])])
    assert whole.metrics() == pytest.approx(parts.metrics())
    assert objective.facts.meter in whole.metrics()
    told = {**whole.metrics(), **objective.facts.derive(whole).metrics}
    assert told.keys() == objective.facts.metrics.keys()
    assert objective.facts.metric in told


class Fixed(torch.nn.Module):
    """A model whose outputs are given."""

    def forward(self, logits):
        return type("Output", (), {"logits": logits})


def answers(objective, logits, labels):
    return objective.measure(Fixed(), {"logits": torch.tensor(logits), "labels": labels})


def test_scores_of_several_labels_by_hand():
    pytest.importorskip("sklearn")
    marks = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]])
    found = answers(LABELS, [[2.0, -1, -1], [-2, 3, -1], [-3, 1, -1]], marks)
    told = LABELS.facts.derive(found)
    assert found.metrics()["accuracy"] == pytest.approx(1 / 3)  # the first record alone
    assert told.metrics["micro_f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert told.counts == [(0, 2, 1, 1), (1, 1, 2, 1), (2, 0, 0, 0)]
    assert told.metrics["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert told.metrics["auroc"] == pytest.approx((1 + 1) / 2)  # the third label is on no record
    assert told.metrics["average_precision"] == pytest.approx(1)


def test_a_threshold_is_of_its_label():
    marks = torch.tensor([[1.0, 0, 1]])
    eager = MultiLabelClassification(
        text="t", label="tags", labels=NAMES, threshold={"ash": 0.2, "cedar": 0.9}
    )
    assert answers(LABELS, [[-1.0, -1, 1]], marks).metrics()["accuracy"] == 0
    assert answers(eager, [[-1.0, -1, 3]], marks).metrics()["accuracy"] == 1
    assert answers(eager, [[-1.0, -1, 1]], marks).metrics()["accuracy"] == 0


def test_errors_of_f1_are_those_of_records_drawn_again():
    pytest.importorskip("sklearn")
    draw = torch.Generator().manual_seed(0)
    marks = (torch.rand(400, 3, generator=draw) < torch.tensor([0.5, 0.3, 0.2])).float()
    logits = marks * 2 - 1 + 1.5 * torch.randn(400, 3, generator=draw)
    errors = LABELS.facts.derive(answers(LABELS, logits.tolist(), marks)).errors
    coins, again = np.random.default_rng(0), []
    for _ in range(200):
        drawn = torch.from_numpy(coins.integers(400, size=400))
        found = answers(LABELS, logits[drawn].tolist(), marks[drawn])
        again.append(LABELS.facts.derive(found).metrics)
    for name in ("micro_f1", "macro_f1"):
        assert errors[name] == pytest.approx(np.std([m[name] for m in again]), rel=0.2)


def test_scores_of_numbers_are_in_their_own_units():
    pytest.importorskip("sklearn")
    target = torch.tensor([[5.0, 1, -100], [7, 2, -40], [1, 0, -130]])
    z = [[0.5, 0.0, 0.0], [1.0, 2, 1], [-1, -1, -2]]
    found = answers(NUMBERS, z, target)
    predicted = np.array(z) * [2, 1, 30] + [5, 0, -100]
    away = predicted - target.numpy()
    assert found.metrics()["mae"] == pytest.approx(np.abs(away).mean())
    assert found.metrics()["mse"] == pytest.approx((away**2).mean())
    told = NUMBERS.facts.derive(found).metrics
    spread = ((target - target.mean(0)) ** 2).sum(0).numpy()
    assert told["r2"] == pytest.approx((1 - (away**2).sum(0) / spread).mean())
    ranks = [spearmanr(predicted[:, c], target[:, c]).statistic for c in range(3)]
    assert told["spearman"] == pytest.approx(np.mean(ranks))


def test_a_record_without_a_number_costs_its_scores_and_ends_nothing():
    pytest.importorskip("sklearn")
    marks = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 0]])
    z = [[2.0, -1, 1], [math.nan, 1, -1], [1, 1, -1]]
    told = LABELS.facts.derive(answers(LABELS, z, marks)).metrics
    assert math.isnan(told["auroc"])
    assert math.isnan(told["average_precision"])
    assert told["micro_f1"] == pytest.approx(1)
    told = NUMBERS.facts.derive(answers(NUMBERS, z, marks)).metrics
    assert all(math.isnan(value) for value in told.values())


def test_no_scores_of_no_record_and_of_one():
    pytest.importorskip("sklearn")
    for objective in (LABELS, NUMBERS):
        assert objective.facts.derive(joined([])).metrics == {}
        one = objective.facts.derive(answers(objective, [[1.0, 2, 3]], torch.ones(1, 3)))
        assert all(math.isnan(e) for e in one.errors.values())
    assert math.isnan(one.metrics["spearman"])


def test_they_are_objectives_and_their_synthetic_records_repeat():
    spec = TextInput(vocabulary=20, special=frozenset({0}), pad=0, num_labels=3)
    for objective in ALL.values():
        task: Objective = objective
        batch, again = (task.synthetic(spec, (3, 5), 7) for _ in range(2))
        assert all(torch.equal(batch[name], again[name]) for name in batch)
        other = task.synthetic(spec, (3, 5), 8)["input_ids"]
        assert not torch.equal(batch["input_ids"], other)


LABELLED = {"text": "t", "label": "tags", "labels": NAMES}
NUMBERED = {"text": "t", "label": "days", "target_mean": 1.0, "target_scale": 1.0}


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (MultiLabelClassification, {"threshold": 1.0}, "^threshold: must be between 0 and 1"),
        (MultiLabelClassification, {"threshold": {"oak": 0.5}}, "^threshold: oak is no label"),
        (MultiLabelClassification, {"label": ("one",)}, "^label: one column of 0 and 1 is one"),
        (MultiLabelClassification, {"label": ("x", "y")}, "^labels: 3 names for 2 columns"),
        (MultiLabelClassification, {"class_weights": {"ash": 0}}, "^class_weights: ash must be"),
        (MultiLabelClassification, {"label_smoothing": 1.0}, "^label_smoothing: must be below 1"),
        (SequenceClassification, {"class_weights": {"oak": 1}}, "^class_weights: oak is no label"),
        (
            SequenceClassification,
            {"class_weights": {"ash": 1}, "labels": None},
            "^class_weights: goes by the names of labels",
        ),
        (Regression, {"target_scale": 0.0}, "^target_scale: must be positive"),
        (Regression, {"target_mean": math.nan}, "^target_mean: must be"),
        (Regression, {"target_mean": (1.0, 2.0)}, "^target_mean: 2 numbers for 1 columns"),
        (Regression, {"huber_delta": 0.0}, "^huber_delta: must be"),
        (Regression, {"loss": "mae"}, "^loss: must be one of mse, huber"),
    ],
)
def test_what_is_refused_in_words(kind, change, words):
    usual = NUMBERED if kind is Regression else LABELLED
    with pytest.raises(ValueError, match=words):
        kind(**{**usual, **change})
