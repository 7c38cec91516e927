"""Products in bfloat16: what they round, which maps have them, and who is refused."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

import silotune as st
import toys
from covering import every_method, fitting
from silotune.adapters import merge
from silotune.core import half_products
from silotune.core.half_products import halve, is_halved
from silotune.core.packed_linear import PackedLinear
from silotune.engine import is_coarse
from silotune.models.load import GivenModel
from silotune.models.quantised import EightBit
from silotune.terms import Machine, Terms, open_model, open_unproved
from silotune.testing.tiny_models import byte_tokenizer, draw_weights

LABELS = ("a", "b")
ROUNDED = 2.0**-8
"""What rounding to bfloat16 does to a number, relative to it."""


@pytest.fixture
def fast(monkeypatch):
    """This machine has such products, whatever it is."""
    monkeypatch.setattr(half_products, "speed_up", lambda device: 2.0)


def given(kind="bert"):
    sizes = {"vocab_size": 260, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng():
        if kind == "gpt2":
            config = GPT2Config(
                vocab_size=260,
                n_embd=12,
                n_inner=20,
                n_layer=2,
                n_head=2,
                n_positions=64,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
            )
            model = GPT2LMHeadModel(config)
        else:
            config = BertConfig(**sizes, hidden_size=12, intermediate_size=20)
            model = BertForSequenceClassification(config)
    return GivenModel(draw_weights(model).eval(), byte_tokenizer())


def terms(kind="bert", **changes):
    objective = (
        st.CausalLM(text="text", max_length=16)
        if kind == "gpt2"
        else st.SequenceClassification(text="t", label="l", labels=LABELS, max_length=16)
    )
    choices = {
        "method": st.methods.FedIT(r=2, lora_alpha=6),
        "optimizer": st.optim.SGD(lr=0.3),
        "privacy": st.NoDP(),
        "products": "bfloat16",
    }
    return Terms(model=kind, objective=objective, **{**choices, **changes})


def built(asked, kind="bert", opening=open_unproved, machine=None):
    labels = () if kind == "gpt2" else LABELS
    machine = machine or Machine(device="cpu", micro_batch_size=4)
    return opening(asked, labels, machine, given(kind))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_is_that_of_rounded_numbers_summed_exactly(transposed, bias):
    g = torch.Generator().manual_seed(3)
    plain = Conv1D(7, 40) if transposed else nn.Linear(40, 7, bias=bias)
    plain.requires_grad_(False)
    plain.weight.copy_(torch.randn(plain.weight.shape, generator=g))
    x = torch.randn(3, 5, 40, generator=g, requires_grad=True)
    up = torch.randn(3, 5, 7, generator=g)
    kept = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    halve(plain, transposed=transposed)
    y = plain(x)
    (y * up).sum().backward()
    weight = (plain.weight.T if transposed else plain.weight).bfloat16().double()
    shift = 0.0 if plain.bias is None else plain.bias.double()
    exact = F.linear(x.detach().bfloat16().double(), weight)
    size = F.linear(x.detach().bfloat16().double().abs(), weight.abs())
    error = (y.detach().double() - shift - exact).abs()
    assert (error <= ROUNDED * exact.abs() + 1e-5 * size).all()
    back = up.bfloat16().double() @ weight
    size = up.bfloat16().double().abs() @ weight.abs()
    assert ((x.grad.double() - back).abs() <= ROUNDED * back.abs() + 1e-5 * size).all()
    assert y.dtype == x.grad.dtype == torch.float32
    assert all(torch.equal(kept[name], tensor) for name, tensor in plain.state_dict().items())
    assert (y.detach() - F.linear(x.detach(), weight.float(), plain.bias)).abs().max() > 0


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_every_frozen_map_has_them_and_nothing_that_is_adapted(kind):
    model = built(terms(kind), kind)
    adapted, others = set(model.trainer.adapted.layers), set()
    for name, module in model.loaded.model.named_modules():
        if type(module) in (nn.Linear, Conv1D) and not name.endswith(".base"):
            others.add(name)
            assert is_halved(module), name
    assert others
    assert not others & adapted
    heads = {site.name for site in model.loaded.heads}
    halved = {n for n, m in model.loaded.model.named_modules() if is_halved(m)}
    assert halved == others
    assert not heads & halved
    assert is_coarse(model.trainer.adapted)
    assert not is_coarse(built(terms(kind, products="float32"), kind).trainer.adapted)


@every_method(lambda name: name != "mole")
def test_every_method_passes_the_gradient_check_beside_them(method, fast):
    asked = terms(method=toys.method(method), optimizer=fitting(method)[0])
    assert built(asked, opening=open_model).trainer.micro_batch == 4


def test_it_is_another_base():
    half, whole = (built(terms(products=kind)) for kind in ("bfloat16", "float32"))
    assert half.loaded.digest == whole.loaded.digest == whole.digest
    assert half.digest != whole.digest


def test_a_merged_model_has_all_its_digits():
    half, whole = (built(terms(products=kind)) for kind in ("bfloat16", "float32"))
    for model in (half, whole):
        model.trainer.adapted.load(model.first)
    one, other = (merge(m.trainer.adapted, m.loaded.heads).state_dict() for m in (half, whole))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_where_single_records_are_hidden_they_go_one_by_one_whatever_was_measured(fast):
    """Few made-up records meet no number that is rounded the other way; real ones will."""
    asked = terms(privacy=st.ExampleDP(noise_multiplier=1.0, target_delta=1e-3))
    model = built(asked, opening=open_model)
    assert (model.trainer.micro_batch, model.coupling.together, model.coupling.moved) == (1, 1, 0)
    assert model.coupling.moved_if_together > 0
    assert any(n.startswith("products: in half precision") for n in model.loaded.notices)
    alone = built(asked, opening=open_model, machine=Machine(device="cpu", micro_batch_size=1))
    assert (alone.trainer.micro_batch, alone.coupling.moved_if_together) == (1, 0)
    assert not any(n.startswith("products: in half") for n in alone.loaded.notices)


def test_a_machine_without_fast_ones_is_refused_before_the_model_is_opened(monkeypatch):
    monkeypatch.setattr(half_products, "speed_up", lambda device: 0.4)
    with pytest.raises(ValueError, match=r"^products: this machine \(cpu\) .* 0.4 times .*float32"):
        open_model(terms(), LABELS, Machine(device="cpu"), None)


def test_what_was_trained_can_be_used_on_any_machine(monkeypatch):
    monkeypatch.setattr(half_products, "speed_up", lambda device: 0.4)
    assert built(terms()).products == "bfloat16"


def test_a_base_that_has_fewer_digits_already_is_refused():
    with pytest.raises(ValueError, match=r"^products: bfloat16 is for a base in float32"):
        built(terms(dtype="bfloat16"))


def test_a_quantised_map_is_refused():
    codes, scale = torch.zeros(3, 4), torch.ones(3)
    packed = PackedLinear((3, 4), codes, scale, None, EightBit(), torch.float32)
    with pytest.raises(ValueError, match=r"^products: .* beside dtype and quantization"):
        halve(packed)


def test_the_speed_is_measured():
    assert half_products.speed_up(torch.device("cpu")) > 0
