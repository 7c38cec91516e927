"""ResLoRA's estimates against their formulas, in float64, on layers that are not square."""

import pytest
import torch
from torch import nn

from adapters.deep import (
    BATCH,
    DEPTH,
    INPUT,
    KINDS,
    MIDDLE,
    Deep,
    build,
    logits,
    reference,
    somewhere,
)
from covering import every_combination
from silotune.adapters import Estimate, LoRA, ResLoRA, merge, straighten
from silotune.adapters.straightening import input_norms
from silotune.core import Role, Site
from toys import CLASSES, CLASSIFY, WIDTH, notes

ESTIMATED = [
    *(kind for kind in KINDS if not kind.fits_peft),
    ResLoRA(pair=LoRA(rank=3, alpha=2.0, rslora=True), shortcut=MIDDLE, pre_num=9),
]
BATCHES = [BATCH, notes(3, "more").batch(range(3)), notes(7, "last").batch(range(7))]

estimated = pytest.mark.parametrize(
    "kind", ESTIMATED, ids=lambda k: f"{k.shortcut}{k.pre_num}-r{k.rank}"
)
pytestmark = pytest.mark.usefixtures("double_precision")


def mean_norms(kind, factors) -> dict[str, float]:
    """f_n of the formulas, of a model that is written down by itself."""
    found = []
    for batch in BATCHES:
        read = {}
        reference(kind, factors, batch, read)
        found.append({name: x.detach().square().sum().sqrt() for name, x in read.items()})
    return {name: float(sum(norms[name] for norms in found) / len(found)) for name in found[0]}


def by_formula(kind, factors, estimate) -> dict[str, torch.Tensor]:
    """The merged weights (out, in), one layer after another."""
    toy, f, merged = Deep().double(), mean_norms(kind, factors), {}
    a = {k.site: t for k, t in factors.items() if k.role is Role.A}
    b = {k.site: t for k, t in factors.items() if k.role is Role.B}
    for n in range(DEPTH):
        for part in ("up", "down"):
            stored = getattr(toy.layers[n], part).weight.detach()
            whole = a[f"layers.{n}.{part}"].clone()
            for k in range(1, min(kind.pre_num, n) + 1):
                back = f"layers.{n - k}.{part}"
                if estimate is Estimate.INPUTS:
                    ratio = f[back] / f[f"layers.{n}.{part}"]
                else:  # all steps between are one quotient; the first layer's own step is 1
                    far = merged[f"layers.{max(n - k - 1, 0)}.{part}"].norm()
                    ratio = far / merged[f"layers.{n - 1}.{part}"].norm()
                read = back if kind.shortcut is MIDDLE else f"layers.{n}.{part}"
                whole += ratio * a[read]
            change = kind.scale * b[f"layers.{n}.{part}"] @ whole
            merged[f"layers.{n}.{part}"] = (stored.T if part == "down" else stored) + change
    return merged


def straightened(kind, factors, estimate):
    model = build(kind)
    model.load(factors)
    norms = None
    if estimate is Estimate.INPUTS:
        norms = input_norms(
            model.layers, lambda batch: model.measure(CLASSIFY.measure, batch), BATCHES
        )
    straighten(model.layers, norms)
    return model


@every_combination(kind=ESTIMATED, estimate=list(Estimate))
def test_the_estimate_is_its_formula_and_what_is_merged_computes_it(kind, estimate):
    factors = somewhere(build(kind))
    expected = by_formula(kind, factors, estimate)
    model = straightened(kind, factors, estimate)
    for name, layer in model.layers.items():
        base = layer.weight.T if layer.transposed else layer.weight
        torch.testing.assert_close(base + layer.delta(), expected[name], atol=1e-12, rtol=1e-9)
    said = logits(model.model, BATCH)
    merged = merge(model, [Site("classifier", nn.Linear(WIDTH, CLASSES), WIDTH, CLASSES)])
    torch.testing.assert_close(logits(merged, BATCH), said, atol=1e-12, rtol=1e-10)
    assert not torch.allclose(said, reference(kind, factors, BATCH), atol=1e-3), "an estimate"


@estimated
def test_nothing_is_merged_in_silence(kind):
    model = build(kind)
    model.load(somewhere(model))
    model.layers["layers.0.up"].delta()  # reads nothing of others
    with pytest.raises(ValueError, match=r"layers\.1\.up reads what other layers read"):
        merge(model, [])


@pytest.mark.parametrize("norms", [None, {}])
def test_straightening_leaves_what_is_exact_alone(norms):
    [block, *_] = [kind for kind in KINDS if kind.fits_peft]
    model = build(block)
    model.load(somewhere(model))
    before = logits(model.model, BATCH)
    straighten(model.layers, norms)
    assert torch.equal(logits(model.model, BATCH), before)


@estimated
def test_norms_are_exact_where_inputs_are_parallel(kind):
    """All layers read c x, with c their own: the estimate by inputs then loses nothing."""
    model = build(kind)
    model.load(somewhere(model))
    x = torch.randn(2, 3, WIDTH)
    sizes = {f"layers.{n}.up": 1.7**n for n in range(DEPTH)}
    layers = {name: model.layers[name] for name in sizes}

    def run(read):
        model.context.begin(None)
        return [layer(sizes[name] * read) for name, layer in layers.items()]

    expected = run(x)
    straighten(layers, input_norms(layers, run, [x]))
    for found, was in zip(run(x), expected, strict=True):
        torch.testing.assert_close(found, was, atol=1e-10, rtol=1e-10)


def test_what_is_unknown_or_zero_counts_as_equally_long():
    [kind] = [kind for kind in KINDS if kind.shortcut is INPUT]
    factors = somewhere(build(kind))
    zero = dict.fromkeys(build(kind).layers, 0.0)
    deltas = []
    for norms in ({}, zero, dict.fromkeys(zero, 2.0)):
        model = build(kind)
        model.load(factors)
        straighten(model.layers, norms)
        deltas.append(model.layers["layers.2.up"].delta())
    assert torch.equal(deltas[0], deltas[1])
    torch.testing.assert_close(deltas[0], 2 * kind.scale * factors.pair("layers.2.up").dense())
    torch.testing.assert_close(deltas[2], deltas[0])
