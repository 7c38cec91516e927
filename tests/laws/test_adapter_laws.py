"""What every adapter must obey: birth, merging, orientation, loading."""

import pytest
import torch
from torch import nn

from silotune.adapters import Init, LoRA, initial_factors, inject, merge
from silotune.core import Factors, Key, Role, Site, accumulated
from silotune.linalg import LowRank, dense
from toys import (
    INNER,
    WIDTH,
    Toy,
    adapted,
    adapter,
    first_factors,
    heads,
    notes,
    random_factors,
    sites,
)

ADAPTERS = [
    LoRA(rank=2, alpha=6.0),
    LoRA(rank=3, alpha=2.0, rslora=True),
    LoRA(rank=3, alpha=5.0, init=Init.ORTHONORMAL),
    LoRA(rank=2, alpha=5.0, init=Init.SVD),
]


def name(lora: LoRA) -> str:
    return f"{lora.init}-r{lora.rank}-rs{lora.rslora}"


def logits(model: nn.Module, batch) -> torch.Tensor:
    return model(batch["input_ids"], batch["attention_mask"]).logits


@pytest.mark.parametrize("lora", ADAPTERS, ids=name)
def test_birth_changes_no_output(lora):
    batch = notes(5).batch(range(5))
    before = logits(Toy().double(), batch)
    model = adapted(lora)
    model.load(first_factors(lora))
    torch.testing.assert_close(logits(model.model, batch), before)


@pytest.mark.parametrize("lora", ADAPTERS, ids=name)
def test_the_forward_is_the_formula(lora):
    """W + scale B A on both orientations, with alpha/r other than 1."""
    factors, batch = random_factors(lora, 1), notes(5).batch(range(5))
    toy = Toy().double()
    scale = lora.alpha / (lora.rank**0.5 if lora.rslora else lora.rank)
    with torch.no_grad():
        delta_up, delta_down = (factors.pair(s).dense() * scale for s in ("up", "down"))
        toy.up.weight += delta_up
        toy.down.weight += delta_down.T
        toy.classifier.weight.copy_(factors[Key("classifier", Role.HEAD, "weight")])
        toy.classifier.bias.copy_(factors[Key("classifier", Role.HEAD, "bias")])
    model = adapted(lora)
    model.load(factors)
    torch.testing.assert_close(logits(model.model, batch), logits(toy, batch))


@pytest.mark.parametrize("lora", ADAPTERS, ids=name)
def test_open_and_closed_forward_agree(lora):
    model, batch = adapted(lora), notes(4).batch(range(4))
    model.load(random_factors(lora, 2))
    model.train_only({Role.A, Role.B, Role.HEAD})
    closed = logits(model.model, batch)
    with model.sink.collect(4):
        torch.testing.assert_close(logits(model.model, batch), closed)


def test_merged_and_unmerged_forward_agree():
    lora, batch = adapter(), notes(4).batch(range(4))
    model = adapted(lora)
    model.load(random_factors(lora, 3))
    merged = logits(model.model, batch)
    for layer in (model.model.up, model.model.down):
        layer.forward = lambda x, own=layer: own._beside(x, 0.0)
    torch.testing.assert_close(logits(model.model, batch), merged)


FOLDS = {
    "product": {
        "up": LowRank(torch.randn(INNER, 2).double(), torch.randn(2, WIDTH).double()),
    },
    "whole": {"up": torch.randn(INNER, WIDTH).double(), "down": torch.randn(WIDTH, INNER).double()},
}


@pytest.mark.parametrize("fold", FOLDS.values(), ids=list(FOLDS))
@pytest.mark.parametrize("lora", ADAPTERS, ids=name)
def test_a_fold_is_part_of_the_function(lora, fold):
    """W + scale (F + B A): open, closed, beside the base, and merged."""
    factors, batch = random_factors(lora, 6), notes(5).batch(range(5))
    scale = lora.alpha / (lora.rank**0.5 if lora.rslora else lora.rank)
    toy = Toy().double()
    with torch.no_grad():
        for site, module in (("up", toy.up), ("down", toy.down)):
            added = factors.pair(site).dense() + (dense(fold[site]) if site in fold else 0.0)
            module.weight += scale * (added.T if site == "down" else added)
        toy.classifier.weight.copy_(factors[Key("classifier", Role.HEAD, "weight")])
        toy.classifier.bias.copy_(factors[Key("classifier", Role.HEAD, "bias")])
    expected = logits(toy, batch)
    model = adapted(lora)
    model.load(factors, fold)
    torch.testing.assert_close(logits(model.model, batch), expected)
    model.train_only({Role.A, Role.B, Role.HEAD})
    with model.sink.collect(5):
        torch.testing.assert_close(logits(model.model, batch), expected)
    forwards = [(layer, layer.forward) for layer in model.layers.values()]
    for layer, _ in forwards:
        layer.forward = lambda x, own=layer: own._beside(x, 0.0)
    torch.testing.assert_close(logits(model.model, batch), expected)
    for layer, forward in forwards:
        layer.forward = forward
    torch.testing.assert_close(logits(merge(model, heads(Toy().double())), batch), expected)


def test_a_fold_beside_a_half_precision_base_is_not_rounded_into_it():
    """Twenty small additions to a bfloat16 weight would nearly all be lost."""
    toy = Toy().to(torch.bfloat16)
    model = inject(toy, sites(toy), [], adapter(alpha=2.0))
    small = torch.full((INNER, WIDTH), 2e-4, dtype=torch.float32)
    factors = model.extract()
    folded = {"up": small}
    for _ in range(19):
        folded = dict(accumulated(folded, {"up": small}))
    model.load(factors, folded)
    x = torch.ones(1, 1, WIDTH, dtype=torch.float32)
    added = model.layers["up"].delta()
    torch.testing.assert_close(added, 20 * small)
    rounded = toy.up.base.weight.clone()
    for _ in range(20):
        rounded += small.to(rounded.dtype)
    lost = 1 - (rounded.float() - toy.up.base.weight.float()).sum() / added.sum()
    assert lost > 0.2, "or this test shows nothing"
    with_fold = model.layers["up"](x.bfloat16()).float()
    model.load(factors, {})
    without = model.layers["up"](x.bfloat16()).float()
    torch.testing.assert_close(with_fold - without, (x @ added.T), rtol=0.2, atol=0.02)


def test_a_fold_that_does_not_fit_names_its_site():
    model, factors = adapted(adapter()), first_factors(adapter())
    with pytest.raises(ValueError, match=r"up: a fold of shape \(2, 2\)"):
        model.load(factors, {"up": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="does not fit the model: elsewhere"):
        model.load(factors, {"elsewhere": torch.zeros(2, 2)})


def test_a_client_may_have_a_rank_of_its_own():
    model, batch = adapted(adapter(rank=4)), notes(4).batch(range(4))
    factors = random_factors(adapter(rank=4), 8)
    tail = dict(factors.items())
    for site in ("up", "down"):
        tail[Key(site, Role.B)] = factors[Key(site, Role.B)].clone()
        tail[Key(site, Role.B)][:, 2:] = 0.0
    model.load(Factors(tail))
    expected = logits(model.model, batch)
    model.load(factors.cut(2))
    torch.testing.assert_close(logits(model.model, batch), expected)
    uneven = factors.updated(factors.cut(2).only({Role.B}))
    with pytest.raises(ValueError, match="unequal ranks"):
        model.load(uneven)


def test_load_after_extract_is_the_identity():
    model = adapted(adapter())
    factors = random_factors(adapter(), 4)
    model.load(factors)
    assert model.extract().digest() == factors.digest()


def test_loading_leaves_nothing_of_an_earlier_client():
    model = adapted(adapter())
    model.load(random_factors(adapter(), 5))
    partial = first_factors(adapter()).only({Role.B})
    with pytest.raises(ValueError, match="do not fit the model"):
        model.load(partial)


def test_a_wrong_shape_names_the_tensor():
    model = adapted(adapter())
    wrong = first_factors(adapter()).updated({Key("up", Role.B): torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"up\.B: shape \(2, 2\)"):
        model.load(wrong)


def test_a_head_scale_multiplies_weight_and_bias():
    batch = notes(4).batch(range(4))
    plain, scaled = adapted(adapter()), adapted(adapter(), head_scale=0.25)
    plain.load(first_factors(adapter()))
    scaled.load(first_factors(adapter()))
    torch.testing.assert_close(logits(scaled.model, batch), 0.25 * logits(plain.model, batch))


def test_orthonormal_rows_are_orthonormal_and_kaiming_rows_are_bounded():
    toy = Toy()
    orthonormal = initial_factors(sites(toy), LoRA(rank=3, init=Init.ORTHONORMAL), 0)[
        Key("up", Role.A)
    ]
    torch.testing.assert_close(orthonormal @ orthonormal.T, torch.eye(3, dtype=torch.float32))
    kaiming = initial_factors(sites(toy), LoRA(rank=3), 0)[Key("down", Role.A)]
    assert kaiming.abs().max() <= INNER**-0.5
    assert kaiming.std() == pytest.approx(INNER**-0.5 / 3**0.5, rel=0.5)


def test_svd_rows_span_the_leading_right_singular_vectors():
    toy = Toy()
    a = initial_factors(sites(toy), LoRA(rank=2, init=Init.SVD), 0)[Key("down", Role.A)].double()
    v = torch.linalg.svd(toy.down.weight.T.double()).Vh[:2]
    torch.testing.assert_close(a.T @ a, v.T @ v, atol=1e-6, rtol=1e-6)


def test_the_seed_and_the_site_decide_a_and_nothing_else():
    toy = Toy()
    one, two = (
        initial_factors(sites(toy), adapter(), 0),
        initial_factors(sites(toy)[::-1], adapter(), 0),
    )
    assert one.digest() == two.digest()
    assert one.digest() != initial_factors(sites(toy), adapter(), 1).digest()


def test_half_precision_bases_keep_float32_factors():
    toy = Toy().to(torch.bfloat16)
    model = inject(toy, sites(toy), [], adapter())
    assert {t.dtype for t in model.tensors.values()} == {torch.float32}


@pytest.mark.parametrize("lora", ADAPTERS, ids=name)
@pytest.mark.parametrize("transposed", [False, True])
def test_pefts_forward_agrees(lora, transposed):
    """On a linear and a GPT-2 layer that are not square."""
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    base = transformers.pytorch_utils.Conv1D(9, 5) if transposed else nn.Linear(5, 9)
    base = nn.ModuleDict({"q": base}).double()
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        use_rslora=lora.rslora,
        target_modules=["q"],
        fan_in_fan_out=transposed,
    )
    theirs = peft.LoraModel(base, config, "default").double()
    layer = theirs.model["q"]
    x = torch.randn(2, 4, 5)
    a, b = torch.randn(lora.rank, 5), torch.randn(9, lora.rank)
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(a)
        layer.lora_B["default"].weight.copy_(b)
    expected = layer(x)
    holder = nn.ModuleDict({"q": layer.base_layer})
    ours = inject(holder, [Site("q", layer.base_layer, 5, 9, transposed)], [], lora)
    ours.load(Factors({Key("q", Role.A): a, Key("q", Role.B): b}))
    torch.testing.assert_close(ours.model["q"](x), expected)
