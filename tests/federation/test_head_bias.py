"""A bias that stays as it began neither moves nor travels, and is exported all the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import silotune as st
from by_config import evaluate, open_model
from federation.results import LABELS
from federation.small import PRIVATE, small, train
from silotune.core import Key, Role
from silotune.federation.results import model_in
from silotune.objectives import TASKS
from silotune.runs.folder import RunFolder
from silotune.terms import Terms
from silotune.terms.opening import open_unproved
from silotune.testing import tiny_models

CLIENT = (
    "privacy={unit: client, noise_multiplier: 2, target_delta: 1e-3}",
    "train.weighting=uniform",
    PRIVATE[1],
)
STILL = "model.head_bias=frozen"


def head_of(model, factors):
    """Its weight and its bias."""
    (site,) = model.loaded.heads
    return (factors[Key(site.name, Role.HEAD, part)] for part in ("weight", "bias"))


@pytest.mark.parametrize("hidden", [(), PRIVATE, CLIENT], ids=["none", "example", "client"])
@pytest.mark.parametrize("method", ["{name: ffa-lora, r: 2}", "{name: fedit, r: 2}"])
def test_the_weight_moves_and_the_bias_does_not(place, method, hidden):
    changes = (f"method={method}", *hidden)
    config = small(place, *changes, STILL)
    model, whole = open_model(config, LABELS), open_model(small(place, *changes), LABELS)
    train(config)
    found = model_in(RunFolder(Path(config.output_dir)).adapter, model).factors
    (began, stayed), (weight, bias) = head_of(model, model.first), head_of(model, found)
    assert torch.equal(bias, stayed)
    assert not torch.equal(weight, began)
    assert (model.trained, model.shared) == (whole.trained - 2, whole.shared - 2)


def test_what_is_exported_scores_as_the_run_did(place):
    config = small(place, STILL, "model.head_scale=0.5")
    records = train(config)
    found = evaluate(RunFolder(Path(config.output_dir)), None)
    assert found.metrics == pytest.approx(records[-1].metrics, rel=1e-5)


TREES = ("ash", "birch")
TEXT = {"text": "text", "label": "label"}
OBJECTIVES = [
    st.SequenceClassification(labels=TREES, **TEXT),
    st.MultiLabelClassification(labels=TREES, **TEXT),
    st.Regression(target_mean=0.0, target_scale=1.0, **TEXT),
    st.TokenClassification(words="words", tags="tags", labels=["TREE"]),
    st.ImageClassification(image="image", label="label", labels=TREES),
    st.MultiLabelImageClassification(image="image", label="label", labels=TREES),
]


def test_every_task_with_a_head_is_named_here():
    assert {one.task for one in OBJECTIVES} == {name for name, task in TASKS.items() if task.head}


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one.task)
def test_of_every_task_the_bias_stays_and_the_weight_moves(objective, tmp_path):
    base = getattr(tiny_models, objective.facts.stand_in)(tmp_path / "base")
    still = replace(objective, head_bias="frozen")
    for one, moving in ((objective, {"weight", "bias"}), (still, {"weight"})):
        terms = Terms(model=str(base), objective=one, optimizer=st.optim.SGD(lr=0.5))
        model = open_unproved(terms, one.label_names)
        trained = model.trainer.adapted.train_only(model.plan.trained(), model.plan.fixed)
        assert {key.name for key in trained if key.role is Role.HEAD} == moving
        assert {k.name for k in model.plan.shared(model.first).only({Role.HEAD})} == moving
