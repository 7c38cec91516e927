"""Runs beside a base in eight or four bits: private, merged without its few bits, and reloaded."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

import silotune
from by_config import export_merged, open_model
from covering import every_method
from federation.results import LABELS, TEXTS, finished, last_state, logits, tokens
from federation.small import PRIVATE, small
from silotune.core.packed_linear import PackedLinear
from silotune.engine.passes import Passes
from silotune.federation.results import adapter_of, model_in, own_adapters
from silotune.methods.registry import built_in
from silotune.models.load import load_model
from silotune.objectives import SequenceClassification

pytest.importorskip("bitsandbytes")
BITS = pytest.mark.parametrize("bits", ["8bit", "4bit"])


def plain(bert, bits):
    """The quantised base with every map dequantised, by transformers' names."""
    loaded = load_model(str(bert), "sequence-classification", labels=LABELS, quantization=bits)
    for name, module in list(loaded.model.named_modules()):
        if isinstance(module, PackedLinear):
            loaded.model.set_submodule(name, module.dense())
    return loaded.model


@pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
@BITS
def test_what_is_learned_beside_it_is_whole_in_every_form(place, bert, tmp_path, bits):
    config = small(place, f"model.quantization={bits}", "train.num_rounds=2", *PRIVATE)
    run, batch = finished(config), tokens(bert)
    model, state = open_model(config, LABELS), last_state(run)
    assert model.coupling.moved < 1e-4
    adapted = model.trainer.adapted
    assert all(isinstance(layer.base, PackedLinear) for layer in adapted.layers.values())
    adapted.load(model.first)
    untrained = logits(adapted.model.eval(), batch)
    adapted.load(state.factors, state.folded)
    expected = logits(adapted.model.eval(), batch)
    assert not torch.allclose(untrained, expected, atol=1e-3)

    with torch.no_grad():
        peft = PeftModel.from_pretrained(plain(bert, bits), run.adapter).eval()
    torch.testing.assert_close(logits(peft, batch), expected, atol=1e-5, rtol=1e-4)

    error = export_merged(run, tmp_path / "merged")
    assert error.number_type == "float32"
    assert error.share < 1e-4
    assert "quantization_config" not in (tmp_path / "merged" / "config.json").read_text()
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(merged, batch), expected, atol=1e-5, rtol=1e-4)

    again = silotune.load(run.path)
    found = [p.probabilities["cat"] for p in again.predict(TEXTS)]
    assert found == pytest.approx(expected.softmax(dim=1)[:, 0].tolist(), abs=1e-5)


@BITS
@pytest.mark.parametrize(
    "chosen",
    [
        "name: fedit, target_modules: all-linear",
        "name: fedit, init_lora_weights: svd",
        "name: dora, target_modules: all-linear",
    ],
)
def test_gradients_of_records_together_are_those_of_each_alone(place, bits, chosen):
    method = f"method={{r: 2, {chosen}}}"
    config = small(place, f"model.quantization={bits}", method, *PRIVATE)
    model = open_model(config, LABELS)
    adapted, objective = model.trainer.adapted, model.trainer.objective
    far = model.first.map(lambda t: t + 0.1 * torch.randn(t.shape))
    adapted.load(far)
    adapted.train_only(model.axes.trained(), model.fixed)
    adapted.model.train()
    records = objective.synthetic(model.loaded.inputs, (5, 9, 3, 12), 0)
    records["input_ids"][3] = 7  # one of another kind than the others
    passes = Passes(adapted, objective, records)
    rows = passes.by_sink([0, 1, 2, 3]).gradients
    for i in range(4):
        alone = passes.by_autograd([i]).gradients
        for key, expected in alone.items():
            torch.testing.assert_close(rows[key][i], expected, atol=1e-6, rtol=1e-4)


@every_method(lambda method: method != "mole")
def test_every_method_trains_beside_four_bits_and_is_merged_or_says_why_not(
    place, bert, tmp_path, method
):
    rate = 2 if method == "xgblora" else 0.01
    chosen = f"method={{name: {method}, r: 2}}"
    moved = "adamw" if built_in()[method].made_of_adamw else "sgd"
    train = (f"train.optimizer={moved}", f"train.learning_rate={rate}")
    config = small(place, "model.quantization=4bit", chosen, *train)
    run, model, batch = finished(config), open_model(config, LABELS), tokens(bert)
    silo = "east" if own_adapters(run) else None
    if model.axes.adapter and not model.axes.adapter.fits_peft:
        with pytest.raises(ValueError, match="format: merged"):
            export_merged(run, tmp_path / "merged", silo)
        return
    adapted, numbers = model.trainer.adapted, model_in(adapter_of(run, silo), model)
    adapted.load(numbers.factors, numbers.folded)
    expected = logits(adapted.model.eval(), batch)
    if silo is None:
        state = last_state(run)
        adapted.load(state.factors, state.folded)
        torch.testing.assert_close(logits(adapted.model, batch), expected, atol=1e-5, rtol=1e-4)
    assert export_merged(run, tmp_path / "merged", silo).share < 1e-3
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(merged, batch), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.full
def test_gates_over_trained_adapters_stand_beside_four_bits_too(place, tmp_path):
    few = ("model.quantization=4bit", "train.num_rounds=1", "method.r=2")
    own = own_adapters(finished(small(place, *few, "method.name=fedsa-lora")))
    experts = f"method={{name: mole, experts: [{', '.join(map(str, own.values()))}]}}"
    mixed = f"output_dir={tmp_path / 'mixed'}"
    run = finished(small(place, *few[:2], experts, mixed, *PRIVATE))
    assert silotune.load(run.path).predict(TEXTS)


def test_a_half_precision_base_in_four_bits_says_what_its_merged_weights_lose(place, tmp_path):
    few = ("train.num_rounds=1", "train.learning_rate=0.02", "model.dtype=bfloat16")
    config = small(place, "model.quantization=4bit", *few)
    error = export_merged(finished(config), tmp_path / "merged")
    assert error.number_type == "bfloat16"
    assert error.is_notable
    assert "bfloat16 weights have too few digits" in (tmp_path / "merged" / "README.md").read_text()


def test_it_is_a_field_of_a_federation_and_a_part_of_its_identity(bert):
    def terms(bits):
        federation = silotune.Federation(
            model=str(bert),
            clients={"a": [{"text": "x", "label": "cat"}]},
            objective=SequenceClassification(text="text", label="label", labels=LABELS),
            privacy=silotune.NoDP(),
            quantization=bits,
        )
        return federation.terms

    assert terms("4bit").quantization == "4bit"
    with pytest.raises(ValueError, match=r"^quantization: "):
        terms("3bit")
