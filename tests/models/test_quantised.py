"""A quantised base computes with bitsandbytes' codes, and no record of a batch rounds another."""

import json
import shutil

import pytest
import torch
import transformers

from silotune.core.packed_linear import PackedLinear
from silotune.models import quantised
from silotune.models.load import GivenModel, load_model, prepare_model

bnb = pytest.importorskip("bitsandbytes")
TEXT = "sequence-classification"
BITS = ("8bit", "4bit")
EXACT = {"rtol": 3e-7, "atol": 0}  # of float32: a scale may be multiplied in another order
KINDS = {
    "8bit": {"load_in_8bit": True},
    "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nested": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "fp4",
        "bnb_4bit_use_double_quant": True,
    },
}


def theirs(folder, kind, auto=transformers.AutoModelForCausalLM, **more):
    method = transformers.BitsAndBytesConfig(**KINDS[kind], **more)
    return auto.from_pretrained(folder, quantization_config=method, device_map={"": "cpu"})


def packed(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}


def dequantised(module):
    if isinstance(module, bnb.nn.Linear8bitLt):
        return bnb.functional.int8_vectorwise_dequant(module.weight.CB, module.weight.SCB)
    return bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)


@pytest.fixture(scope="module")
def reader(folders):
    return transformers.AutoTokenizer.from_pretrained(folders["llama"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_that_was_saved_quantised_has_the_same_weights(folders, tmp_path, kind):
    other = theirs(folders["llama"], kind)
    expected = {n: dequantised(m) for n, m in other.named_modules() if _is_bnb(m)}
    other.save_pretrained(tmp_path)
    shutil.copy(folders["llama"] / "tokenizer.json", tmp_path)
    shutil.copy(folders["llama"] / "tokenizer_config.json", tmp_path)
    found = packed(load_model(str(tmp_path), "causal-lm").model)
    assert len(found) == len(expected) == 14
    for name, weight in expected.items():
        torch.testing.assert_close(found[name].weight, weight, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_is_quantised_is_taken_as_it_is(folders, reader, kind):
    other = theirs(folders["llama"], kind)
    expected = {n: dequantised(m).clone() for n, m in other.named_modules() if _is_bnb(m)}
    found = packed(prepare_model(GivenModel(other, reader), "causal-lm").model)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name].weight, weight, **EXACT)
    assert all(_is_bnb(other.get_submodule(name)) for name in expected), "it was copied"


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_scoring_has_changed_is_refused_and_any_other_is_the_same(
    tmp_path, reader, kind
):
    """Scoring on some CPUs rearranges 4-bit weights, and rounds their scales to bfloat16."""
    config = transformers.LlamaConfig(
        vocab_size=260,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    other = theirs(tmp_path, kind).eval()
    expected = {n: dequantised(m).clone() for n, m in other.named_modules() if _is_bnb(m)}
    with torch.no_grad():
        other(input_ids=torch.tensor([[5, 6, 7]]))
    states = [getattr(p, "quant_state", None) for p in other.parameters()]
    given = GivenModel(other, reader)
    if any(getattr(state, "packing_format_for_cpu", False) for state in states):
        with pytest.raises(ValueError, match=r"^model: .*q_proj was rearranged .*load the model"):
            prepare_model(given, "causal-lm")
        return
    found = packed(prepare_model(given, "causal-lm").model)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name].weight, weight, **EXACT)


@pytest.mark.parametrize("bits", BITS)
def test_a_base_that_is_quantised_here_is_as_transformers_would_have_it(folders, bits):
    loaded = load_model(str(folders["llama"]), "causal-lm", quantization=bits)
    other = theirs(folders["llama"], bits, llm_int8_skip_modules=["lm_head"])
    for name, layer in packed(loaded.model).items():
        torch.testing.assert_close(layer.weight, dequantised(other.get_submodule(name)), **EXACT)
    assert not isinstance(loaded.model.lm_head, PackedLinear)
    again = load_model(str(folders["llama"]), "causal-lm", quantization=bits)
    assert again.digest == loaded.digest
    plain = load_model(str(folders["llama"]), "causal-lm")
    assert plain.digest != loaded.digest
    layers = packed(loaded.model).values()
    held = sum(b.nbytes for layer in layers for b in layer.buffers())
    assert held < (0.3 if bits == "8bit" else 0.15) * sum(layer.weight.nbytes for layer in layers)


@pytest.mark.parametrize("name", ["bert", "gpt2", "roberta", "vit"])
@pytest.mark.parametrize("bits", BITS)
def test_every_kind_of_linear_map_is_quantised_and_heads_are_not(folders, name, bits):
    task = {"gpt2": "causal-lm", "vit": "image-classification"}.get(name, TEXT)
    labels = () if name == "gpt2" else ("a", "b")
    plain = load_model(str(folders[name]), task, labels=labels)
    loaded = load_model(str(folders[name]), task, labels=labels, quantization=bits)
    assert [site.name for site in loaded.heads] == [site.name for site in plain.heads]
    assert loaded.absent == plain.absent
    rough = 0.02 if bits == "8bit" else 0.2
    for path, layer in packed(loaded.model).items():
        own = plain.model.get_submodule(path).weight
        own = own.T if name == "gpt2" else own
        assert (layer.weight - own).norm() < rough * own.norm(), path
        assert layer.weight.shape == own.shape
    heads = [loaded.model.get_submodule(site.name) for site in loaded.heads]
    assert not any(isinstance(head, PackedLinear) for head in heads)


def test_bitsandbytes_own_layer_lets_one_record_round_another_and_ours_does_not():
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 32, generator=g)
    own = bnb.nn.Linear8bitLt(32, 24, bias=False, has_fp16_weights=False, threshold=6.0)
    own.load_state_dict({"weight": weight})
    own = own.to("cpu").eval()
    small, large = torch.randn(2, 32, generator=g), torch.zeros(1, 32)
    large[0, 3] = 50.0
    both = torch.cat([small, large])

    def moved(layer):
        with torch.no_grad():
            return float((layer(both)[:2] - layer(small)).abs().max())

    ours = quantised._packed("own", own, torch.float32)
    assert moved(own) > 1e-2
    assert moved(ours) < 1e-5


@pytest.mark.parametrize("bits", BITS)
def test_a_packed_map_is_linear_and_differentiable(folders, bits):
    model = load_model(str(folders["bert"]), TEXT, labels=("a", "b"), quantization=bits).model
    layer = next(iter(packed(model).values()))
    x = torch.randn(3, 5, layer.in_features, requires_grad=True)
    g = torch.randn(3, 5, layer.out_features)
    y = layer(x)
    y.backward(g)
    plain = layer.dense()
    torch.testing.assert_close(y, plain(x))
    torch.testing.assert_close(x.grad, g @ plain.weight)
    held = layer.to(torch.bfloat16).weight
    assert torch.equal(held, plain.weight), "no cast of a model rounds its scales"


def test_a_classifier_that_was_saved_quantised_becomes_a_plain_head(folders, tmp_path):
    whole = transformers.AutoModelForSequenceClassification
    plain = whole.from_pretrained(folders["bert"], num_labels=2)
    plain.save_pretrained(tmp_path / "plain")
    other = theirs(tmp_path / "plain", "8bit", whole, llm_int8_skip_modules=[])
    assert _is_bnb(other.classifier)
    expected = dequantised(other.classifier)
    other.save_pretrained(tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folders["bert"] / name, tmp_path / "m")
    loaded = load_model(str(tmp_path / "m"), TEXT, labels=("a", "b"))
    [head] = [site for site in loaded.heads if site.name == "classifier"]
    assert type(head.module) is torch.nn.Linear
    torch.testing.assert_close(head.module.weight.data, expected, **EXACT)


def test_what_is_quantised_otherwise_or_twice_is_refused_in_words(folders, tmp_path, monkeypatch):
    folder = shutil.copytree(folders["llama"], tmp_path / "m")
    file = folder / "config.json"
    plain = json.loads(file.read_text())

    def says(method, asked="none"):
        file.write_text(json.dumps(plain | {"quantization_config": method}))
        with pytest.raises(ValueError) as refused:
            load_model(str(folder), "causal-lm", quantization=asked)
        return str(refused.value)

    gptq = says({"quant_method": "gptq", "bits": 4})
    assert "quantised by gptq" in gptq
    assert "only bitsandbytes" in gptq
    twice = says({"quant_method": "bitsandbytes", "load_in_8bit": True}, "4bit")
    assert "kept in 8bit already; leave it out" in twice
    given = GivenModel(
        transformers.AutoModelForCausalLM.from_pretrained(folders["llama"]), object()
    )
    with pytest.raises(ValueError, match=r"^quantization: is for a model that is a name"):
        prepare_model(given, "causal-lm", quantization="4bit")
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"quantization: needs .*bitsandbytes: pip install 'silo"):
        load_model(str(folders["llama"]), "causal-lm", quantization="4bit")


def _is_bnb(module):
    return isinstance(module, (bnb.nn.Linear8bitLt, bnb.nn.Linear4bit))
