"""Runs of DoRA: rows that are turned and stretched, in PEFT, merged, resumed and in workers."""

import pytest
import torch

import silotune as st
from by_config import evaluate, open_model, opened
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
from silotune.federation.run import rounds
from silotune.federation.workers import SILOTUNE
from silotune.runs.folder import RunFolder

OPTIONS = (
    "method.name=dora",
    "method.lora_alpha=6",
    "method.target_modules=all-linear",
    "train.learning_rate=0.5",
)


@pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
@pytest.mark.parametrize("more", [(), PRIVATE], ids=["open", "private"])
def test_what_a_run_leaves_computes_as_its_model_does(place, bert, tmp_path, more):
    """In PEFT, merged, read again, and by silotune.load."""
    table = write_parts(tmp_path / "parts", "valid")
    config = small(place, *OPTIONS, *more, table, "evaluation=public")
    last = train(config)[-1]
    run = RunFolder(place.parent / "run")
    assert evaluate(run, "valid").metrics == pytest.approx(last.metrics, rel=1e-4)
    model, state, batch = open_model(config, LABELS), last_state(run), tokens(bert)
    for role in (Role.A, Role.B, Role.M):
        assert any(
            not torch.equal(t, model.first[k]) for k, t in state.factors.only({role}).items()
        )
    adapted = model.trainer.adapted
    adapted.load(state.factors, state.folded)
    model.loaded.model.eval()
    expected = logits(adapted.model, batch)
    without = state.factors.map(lambda t: t if t.dim() > 1 else torch.zeros_like(t))
    adapted.load(without)
    assert not torch.allclose(logits(adapted.model, batch), expected, atol=1e-4), "or M is idle"

    assert_the_same_everywhere(run, model, batch, expected, bert, tmp_path / "merged")
    said = st.load(place.parent / "run").predict(["cat ran", "dog"])
    assert {one.label for one in said} <= set(LABELS)


def test_a_run_that_was_cut_ends_in_the_same_tensors(place, tmp_path):
    train(small(place, *OPTIONS, f"output_dir={tmp_path / 'whole'}"))
    config = small(place, *OPTIONS)
    train(config, until=0)
    train(config, resume=True)
    one, two = (last_state(RunFolder(p)) for p in (tmp_path / "whole", place.parent / "run"))
    assert one.factors.digest() == two.factors.digest()


@pytest.mark.full
def test_workers_end_in_the_same_tensors(place, tmp_path):
    options = (*OPTIONS, "train.threads=1")
    train(small(place, *options, f"output_dir={tmp_path / 'whole'}"))
    config = small(place, *options, "runtime=pool", "workers=2")
    with opened(config, [], [*SILOTUNE, "worker"], resume=False) as job:
        list(rounds(job))
    one, two = (last_state(RunFolder(p)) for p in (tmp_path / "whole", place.parent / "run"))
    assert one.factors.digest() == two.factors.digest()
