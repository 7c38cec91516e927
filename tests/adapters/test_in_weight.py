"""Pairs that begin as a part of the base weight (PiSSA, OLoRA), against PEFT's own."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from silotune.adapters import LoRA, LoRASB, MiLoRA, ResLoRA, initial_factors, inject
from silotune.adapters.lora import Init
from silotune.core import Factors, Key, Role, Site
from silotune.linalg import LowRank, decompositions
from silotune.methods import built_in
from silotune.methods.axes import IncompatibleMethodError
from silotune.optim import SGD, AdamW
from toys import Toy, heads, notes, sites

RANK, ALPHA = 3, 7.5
STARTS = [Init.PISSA, Init.OLORA]
every_start = pytest.mark.parametrize("init", STARTS)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.wide, self.narrow = nn.Linear(6, 11), nn.Linear(11, 5)

    def forward(self, x):
        return self.narrow(torch.tanh(self.wide(x)))


def places(model: Two) -> list[Site]:
    return [Site("wide", model.wide, 6, 11), Site("narrow", model.narrow, 11, 5)]


def lora(init: Init, **changes) -> LoRA:
    return LoRA(**({"rank": RANK, "alpha": ALPHA, "init": init} | changes))


def ours(init: Init, **changes):
    model = Two()
    found = places(model)
    own = lora(init, **changes)
    first = initial_factors(found, own, 0)
    adapted = inject(model, found, [], own)
    adapted.load(first)
    return adapted, first


@every_start
@pytest.mark.parametrize("rslora", [False, True])
def test_it_begins_and_moves_as_pefts_own(init, rslora):
    """Same pair up to signs, same residual base, and the same model after steps of SGD."""
    adapted, first = ours(init, rslora=rslora)
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        use_rslora=rslora,
        target_modules=["wide", "narrow"],
        init_lora_weights=init.value,
    )
    peft = get_peft_model(Two(), config)
    for site in ("wide", "narrow"):
        theirs = getattr(peft.base_model.model, site)
        product = theirs.lora_B["default"].weight @ theirs.lora_A["default"].weight
        torch.testing.assert_close(first.pair(site).dense(), product.detach(), rtol=1e-5, atol=1e-6)
        layer = adapted.layers[site]
        left = layer.weight + layer.scale * layer.folded.dense()
        torch.testing.assert_close(left, theirs.base_layer.weight.data, rtol=1e-5, atol=1e-6)
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(5))
    adapted.train_only({Role.A, Role.B})
    ends = []
    for model, free in (
        (adapted.model, list(adapted.tensors.values())),
        (peft, [p for p in peft.parameters() if p.requires_grad]),
    ):
        sgd = torch.optim.SGD(free, lr=0.05)
        for _ in range(4):
            sgd.zero_grad()
            model(x).square().mean().backward()
            sgd.step()
        ends.append(model(x).detach())
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)
    assert (ends[0] - Two()(x)).abs().max() > 1e-2, "or nothing was learned"


@every_start
def test_a_weight_is_decomposed_once_for_its_pair_and_for_what_is_left(init, monkeypatch):
    asked = []
    for name in ("dense_svd", "qr"):
        place = "principal" if name == "dense_svd" else "lora"
        real = getattr(decompositions, name)
        monkeypatch.setattr(
            f"silotune.adapters.{place}.{name}", lambda x, real=real: asked.append(x) or real(x)
        )
    model, own = Two(), lora(init)
    found = places(model)
    first = initial_factors(found, own, 0)
    inject(model, found, [], own).load(first)
    kept = own.into_base(found, first, {})
    assert len(asked) == len(found)
    own.into_base(places(Two()), first, {})
    assert len(asked) == 2 * len(found), "those of another model are other weights"
    first[Key("wide", Role.A)].add_(1.0)
    assert kept["wide"].dense().equal(own.into_base(found, first, {})["wide"].dense())


@every_start
def test_the_first_model_is_the_base_and_folds_are_added(init, double_precision):
    """Of a linear layer and of a Conv1D, whose weight lies the other way round."""
    batch = {k: t for k, t in notes(5).batch(range(5)).items() if k != "labels"}
    base, toy = Toy().double(), Toy().double()
    own = lora(init)
    found = sites(toy)
    first = initial_factors(found, own, 0)
    adapted = inject(toy, found, heads(toy), own)
    head = {
        Key("classifier", Role.HEAD, name): tensor.detach()
        for name, tensor in base.classifier.named_parameters()
    }
    start = first.map(lambda t: t.double()).updated(Factors(head))
    adapted.load(start)
    torch.testing.assert_close(adapted.model(**batch).logits, base(**batch).logits)
    moved = start.map(lambda t: t + 0.1)
    fold = LowRank(torch.ones(10, 1).double(), torch.ones(1, 6).double())
    adapted.load(moved, {"up": fold})
    learned = moved.pair("up").dense() - start.pair("up").dense() + fold.dense()
    torch.testing.assert_close(adapted.layers["up"].delta(), own.scale * learned)
    adapted.load(start)
    assert adapted.layers["up"].delta().abs().max() < 1e-12
    assert own.out_of_base(found, own.into_base(found, start, {})).keys() == {"up", "down"}


def test_what_would_take_it_out_twice_is_refused():
    methods = built_in()
    for name in ("reslora", "milora"):
        with pytest.raises(ValueError, match="init_lora_weights: pissa takes a pair out"):
            methods[name](init_lora_weights="pissa").axes(SGD(lr=0.1), head=True)
    with pytest.raises(IncompatibleMethodError, match="init_lora_weights: olora takes a pair out"):
        methods["fedftg"](init_lora_weights="olora").axes(AdamW(lr=0.1), head=True)
    for name in ("cola", "flora"):
        with pytest.raises(IncompatibleMethodError, match="to kaiming or orthonormal"):
            methods[name](init_lora_weights="pissa").axes(SGD(lr=0.1), head=True)
    with pytest.raises(IncompatibleMethodError, match="lack a part of the weight"):
        methods["flexlora"](init_lora_weights="pissa", ranks={"a": 2}).axes(SGD(lr=0.1), head=True)
    with pytest.raises(ValueError, match="takes a pair out"):
        ResLoRA(pair=lora(Init.OLORA))
    with pytest.raises(ValueError, match="takes a pair out"):
        MiLoRA(expert=lora(Init.OLORA))
    with pytest.raises(ValueError, match="takes a pair out"):
        LoRASB(init=Init.PISSA)
    site = Site("q", nn.Linear(3, 5), 3, 5)
    for init in STARTS:
        with pytest.raises(ValueError, match="r: q has only 3"):
            lora(init, rank=4).initial_factors(site, 0)
