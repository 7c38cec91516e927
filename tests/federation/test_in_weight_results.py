"""Runs whose pairs begin as a part of the base weight: results that compute on the whole base."""

import pytest
import torch

from by_config import evaluate, open_model
from federation.results import (
    LABELS,
    assert_the_same_everywhere,
    last_state,
    logits,
    tokens,
    write_parts,
)
from federation.small import PRIVATE, small, train
from silotune.core import Role
from silotune.runs.folder import RunFolder

OPTIONS = ("method.lora_alpha=6", "method.target_modules=all-linear", "train.learning_rate=0.5")


@pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
@pytest.mark.parametrize(
    ("name", "init", "more"),
    [("fedit", "pissa", ()), ("ffa-lora", "olora", PRIVATE)],
)
def test_what_a_run_leaves_computes_as_its_model_does(place, bert, tmp_path, name, init, more):
    """In PEFT beside the unchanged base, merged, and read again."""
    table = write_parts(tmp_path / "parts", "valid")
    chosen = (*OPTIONS, f"method.name={name}", f"method.init_lora_weights={init}", *more)
    config = small(place, *chosen, table, "evaluation=public")
    last = train(config)[-1]
    run = RunFolder(place.parent / "run")
    assert evaluate(run, "valid").metrics == pytest.approx(last.metrics, rel=1e-4)
    model, state, batch = open_model(config, LABELS), last_state(run), tokens(bert)
    moved = [k for k, t in state.factors.items() if k.role is Role.B]
    assert any(not torch.equal(state.factors[k], model.first[k]) for k in moved)
    adapted = model.trainer.adapted
    adapted.load(state.factors, state.folded)
    model.loaded.model.eval()
    expected = logits(adapted.model, batch)

    assert_the_same_everywhere(run, model, batch, expected, bert, tmp_path / "merged")


def test_a_run_that_was_cut_ends_in_the_same_pair(place, tmp_path):
    options = ("method.name=fedit", "method.init_lora_weights=pissa")
    train(small(place, *options, f"output_dir={tmp_path / 'whole'}"))
    config = small(place, *options)
    train(config, until=0)
    train(config, resume=True)
    one, two = (last_state(RunFolder(p)) for p in (tmp_path / "whole", place.parent / "run"))
    assert one.factors.digest() == two.factors.digest()
