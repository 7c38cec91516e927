"""A bias that stays as it began neither moves nor travels, and is exported all the same."""

from pathlib import Path

import pytest
import torch

from by_config import evaluate, open_model
from federation.results import LABELS
from federation.small import PRIVATE, small, train
from silotune.core import Key, Role
from silotune.federation.results import model_in
from silotune.runs.folder import RunFolder

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
