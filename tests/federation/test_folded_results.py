"""What methods that add to the frozen base give to their user: scores and adapters of all of it."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from by_config import evaluate, export_merged, open_federation, open_model
from covering import every_combination, some
from federation.results import LABELS, finished, last_state, logits, tokens, write_parts
from federation.small import small, train
from silotune.core import Change, Factors, GlobalState, Key, Role
from silotune.core.files import read_json, read_lines
from silotune.federation.results import model_in
from silotune.federation.run import update_norm
from silotune.federation.scoring import measured, score
from silotune.federation.trained_models import ModelState, TrainedModels
from silotune.linalg import LowRank
from silotune.runs.folder import RunFolder

FAST = "train.learning_rate=2"
FOLDING = pytest.mark.parametrize("method", ["fedex-lora", "flora"])


@pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
@pytest.mark.parametrize(
    "method",
    some(["fedex-lora", "flora", "fedftg-seeded", "fedftg", "xgblora"], "fedex-lora", "fedftg"),
)
def test_everything_that_a_run_gives_computes_what_it_has_learned(place, bert, tmp_path, method):
    own = ("train.optimizer=null", "train.learning_rate=0.01")
    moved = own if method == "fedftg" else (FAST,)
    config = small(place, f"method.name={method}", *moved, "model.head_scale=0.5")
    run = finished(config)
    state, model = last_state(run), open_model(config, LABELS)
    adapted, batch = model.trainer.adapted, tokens(bert)
    adapted.load(model.first.updated(state.factors.only({Role.HEAD})))
    without = logits(adapted.model.eval(), batch)
    adapted.load(state.factors, state.folded)
    expected = logits(adapted.model.eval(), batch)
    assert not torch.allclose(without, expected, atol=1e-4)  # what was learned matters
    assert bool(state.folded) == (method != "fedftg")

    base = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)
    peft = PeftModel.from_pretrained(base, run.adapter).eval()
    torch.testing.assert_close(logits(peft, batch), expected, atol=2e-6, rtol=1e-5)

    numbers = model_in(run.adapter, model)
    adapted.load(numbers.factors, numbers.folded)
    read_back = logits(adapted.model.eval(), batch)
    torch.testing.assert_close(read_back, expected, atol=2e-6, rtol=1e-5)

    export_merged(run, tmp_path / "merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(merged, batch), expected, atol=2e-6, rtol=1e-5)


def test_a_run_under_another_methods_rule_folds_as_that_one_and_says_so(place):
    chosen = ("method.name=lora-plus", "method.aggregation=fedex-lora", "train.optimizer=adamw")
    run = finished(small(place, *chosen, "train.learning_rate=0.05"))
    assert last_state(run).folded
    assert all(done.aggregation_error < 1e-5 for done in run.read_rounds())
    card = (run.adapter / "README.md").read_text()
    assert "LoRA+, combined as in FedEx-LoRA" in card
    assert "adapters are combined as in FedEx-LoRA: Both factors" in card
    assert "LoRA+, combined as in FedEx-LoRA" in run.report.read_text()


@every_combination(method=["fedex-lora", "flora"], evaluation=["simulation", "public"])
def test_scores_are_those_of_the_whole(place, tmp_path, method, evaluation):
    parts = [write_parts(tmp_path / "parts", "valid", "test")] if evaluation == "public" else []
    chosen = (f"method.name={method}", FAST, f"evaluation={evaluation}")
    config = small(place, *parts, *chosen)
    last = train(config)[-1]
    run = RunFolder(Path(config.output_dir))
    state = last_state(run)
    part = TrainedModels(shared=ModelState(factors=state.factors))
    assert score(open_federation(config), part).overall["loss"] != pytest.approx(
        last.metrics["loss"], rel=1e-4
    )
    found = evaluate(run, "valid")
    assert found.metrics == pytest.approx(last.metrics, rel=1e-4)
    assert found.silos.keys() == last.silos.keys()
    for silo, metrics in found.silos.items():
        assert metrics == pytest.approx(last.silos[silo], rel=1e-4)
    if parts:
        assert evaluate(run, "test").metrics == pytest.approx(read_json(run.run)["final"], rel=1e-4)


@FOLDING
def test_scores_at_home_are_those_of_the_whole(place, method):
    config = small(place, f"method.name={method}", FAST, "evaluation=site")
    run = finished(config)
    state, workshop = last_state(run), open_federation(config)
    whole = ModelState(factors=state.factors, folded=state.folded)
    for silo, examples in workshop.data.silos.items():
        at_home = read_lines(run.site(silo) / "metrics.jsonl")
        expected = measured(workshop, [whole], examples.held_out).metrics()
        assert len(at_home) == 3
        assert at_home[-1]["metrics"] == pytest.approx(expected, rel=1e-4)


def test_the_norm_of_an_update_counts_what_was_folded_and_no_fresh_pair():
    b, a, head = Key("x", Role.B), Key("x", Role.A), Key("head", Role.HEAD, "weight")
    before = Factors({a: torch.ones(1, 3), b: torch.zeros(2, 1), head: torch.zeros(2)})
    fresh = before.updated({a: torch.full((1, 3), 50.0), head: torch.tensor([3.0, 0.0])})
    fold = {"x": LowRank(torch.tensor([[2.0], [0.0]]), torch.tensor([[2.0, 0.0, 0.0]]))}
    after = GlobalState(
        round=1, factors=fresh, folded=fold, drawn={a: 1, b: 1}, latest=Change(folded=fold)
    )
    assert update_norm(GlobalState(round=0, factors=before), after) == pytest.approx(5.0)


def test_the_norm_of_an_update_counts_a_link_once_though_it_is_learned_before_it_is_folded():
    b, a = Key("x", Role.B), Key("x", Role.A)
    learned = Factors({a: torch.ones(1, 3), b: torch.tensor([[2.0], [0.0]])})
    before = GlobalState(round=1, factors=learned, drawn={a: 1})
    fold = {"x": LowRank(torch.tensor([[2.0], [1.0]]), torch.ones(1, 3))}
    fresh = Factors({a: torch.full((1, 3), 9.0), b: torch.zeros(2, 1)})
    after = GlobalState(
        round=2, factors=fresh, folded=fold, drawn={a: 2, b: 2}, latest=Change(folded=fold)
    )
    assert update_norm(before, after) == pytest.approx(3**0.5)
