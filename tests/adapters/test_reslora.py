"""ResLoRA against its formulas; on linear and transposed layers that are not square."""

import math

import pytest
import torch
from torch import nn

from adapters.deep import (
    BATCH,
    BLOCK,
    INPUT,
    KINDS,
    PAIR,
    Deep,
    build,
    deep_heads,
    deep_sites,
    logits,
    reference,
    somewhere,
)
from covering import every_combination
from silotune.adapters import LoRA, ResLoRA, Shortcut, initial_factors, inject, merge
from silotune.adapters.reslora import links
from silotune.core import Factors, Key, Role, Site
from silotune.engine import GradientCheckError, check_gradients
from silotune.linalg import LowRank
from silotune.privacy import NoPrivacy
from silotune.privacy.mechanisms.clipping import accumulate
from toys import CLASSES, CLASSIFY, INNER, WIDTH, Conv1D, notes

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k.shortcut}{k.pre_num}-r{k.rank}")


pytestmark = pytest.mark.usefixtures("double_precision")


@kinds
def test_the_forward_is_the_papers_formula(kind):
    model = build(kind)
    factors = somewhere(model)
    model.load(factors)
    expected = reference(kind, factors, BATCH)
    torch.testing.assert_close(logits(model.model, BATCH), expected, atol=1e-12, rtol=1e-10)
    model.train_only(set(Role))
    with model.sink.collect(5):
        torch.testing.assert_close(logits(model.model, BATCH), expected, atol=1e-12, rtol=1e-10)
    plain = build(kind.pair)
    plain.load(factors)
    assert (logits(plain.model, BATCH) - expected).abs().max() > 0.01, "the links matter"


@kinds
def test_birth_changes_no_output(kind):
    model = build(kind)
    toy = Deep().double()
    model.load(model.extract().updated(initial_factors(deep_sites(toy), kind, 3)))
    with torch.no_grad():
        for name in ("weight", "bias"):
            key = Key("classifier", Role.HEAD, name)
            model.tensors[key].copy_(toy.classifier.get_parameter(name))
    torch.testing.assert_close(logits(model.model, BATCH), logits(toy, BATCH))
    assert any(t.any() for k, t in model.tensors.items() if k.role is Role.A)


@pytest.mark.parametrize("shortcut", Shortcut)
def test_reaching_no_layer_is_lora_to_the_bit(shortcut):
    model = build(ResLoRA(pair=PAIR, shortcut=shortcut, pre_num=0))
    plain = build(PAIR)
    assert {k: t.shape for k, t in model.tensors.items()} == {
        k: t.shape for k, t in plain.tensors.items()
    }
    factors = somewhere(plain)
    model.load(factors)
    plain.load(factors)
    assert torch.equal(logits(model.model, BATCH), logits(plain.model, BATCH))
    assert torch.equal(model.layers["layers.2.up"].delta(), plain.layers["layers.2.up"].delta())


# ---- which layers are linked


def site(name: str, out: int = 3, into: int = 2) -> Site:
    return Site(name, nn.Linear(into, out), into, out)


def test_links_are_of_the_same_name_in_the_layers_right_before():
    names = [f"encoder.layer.{i}.{part}" for i in range(4) for part in ("query", "mlp.0")]
    found = links([site(n) for n in names], 2)
    assert found["encoder.layer.0.query"] == ()
    assert found["encoder.layer.1.mlp.0"] == ("encoder.layer.0.mlp.0",)
    assert found["encoder.layer.3.query"] == ("encoder.layer.2.query", "encoder.layer.1.query")


def test_there_is_no_link_over_a_gap_another_shape_or_another_stack():
    gap = links([site("layer.0.q"), site("layer.2.q"), site("layer.3.q")], 3)
    assert gap == {"layer.0.q": (), "layer.2.q": (), "layer.3.q": ("layer.2.q",)}
    wide = links([site("layer.0.q"), site("layer.1.q", out=4), site("layer.2.q")], 2)
    assert not any(wide.values())
    turned = links([site("layer.0.q"), site("layer.1.q", out=2, into=3)], 2)
    assert not any(turned.values())
    stacks = links([site("encoder.0.q"), site("decoder.1.q"), site("q"), site("head")], 2)
    assert not any(stacks.values())


# ---- per-example gradients


@pytest.mark.parametrize("roles", [{Role.B}, {Role.A}, {Role.A, Role.B}, set(Role)])
@kinds
def test_rows_are_those_of_the_naive_loop(kind, roles):
    """One record after another, through the formulas: also what flows through the shortcuts."""
    model = build(kind)
    factors = somewhere(model)
    model.load(factors)
    trained = model.train_only(roles)
    with model.sink.collect(5) as rows:
        model.losses(CLASSIFY.losses, BATCH).sum().backward()
        found = dict(rows)
    assert found.keys() == trained.keys()
    leaves = {k: t.clone().requires_grad_(k in trained) for k, t in factors.items()}
    for i in range(5):
        alone = {name: t[i : i + 1] for name, t in BATCH.items()}
        out = reference(kind, Factors(leaves), alone)
        loss = nn.functional.cross_entropy(out, alone["labels"], reduction="sum")
        grads = torch.autograd.grad(loss, [leaves[k] for k in trained])
        for key, grad in zip(trained, grads, strict=True):
            assert grad.any(), "or nothing is compared"
            torch.testing.assert_close(found[key][i], grad, atol=1e-12, rtol=1e-9)


@kinds
def test_uses_are_summed_before_they_are_clipped(kind):
    """Clipping each use by itself would leave up to as many bounds as there are uses."""
    model = build(kind)
    model.load(somewhere(model))
    trained = model.train_only(set(Role))
    records, bound = notes(7, "clip"), 0.05
    sums = accumulate(
        model.sink,
        lambda batch: model.losses(CLASSIFY.losses, batch),
        (records.batch(part) for part in ([0, 1, 2], [3, 4], [5, 6])),
        bound,
    ).sums
    total = {key: torch.zeros_like(p) for key, p in trained.items()}
    for i in range(7):
        loss = model.losses(CLASSIFY.losses, records.batch([i])).sum()
        grads = torch.autograd.grad(loss, list(trained.values()))
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
        for key, g in zip(trained, grads, strict=True):
            total[key] += g * min(1.0, bound / norm)
    for key, tensor in total.items():
        torch.testing.assert_close(sums[key], tensor, atol=1e-10, rtol=1e-5)


@kinds
def test_the_coverage_guard_passes_and_would_not_if_a_use_were_forgotten(kind, monkeypatch):
    model = build(kind)
    check_gradients(model, CLASSIFY, BATCH, set(Role))
    sink = model.sink
    keep_first = type(sink).add

    def add(self, key, rows):
        if key not in self._rows:
            keep_first(self, key, rows)

    monkeypatch.setattr(type(sink), "add", add)
    with pytest.raises(GradientCheckError, match=r"layers\..*are off by"):
        check_gradients(model, CLASSIFY, BATCH, set(Role))


@kinds
def test_a_step_of_training_without_privacy_is_autograds(kind):
    model = build(kind)
    model.load(somewhere(model))
    trained = model.train_only(set(Role))
    loss = CLASSIFY.losses(model.model, BATCH).mean()
    expected = torch.autograd.grad(loss, list(trained.values()))
    mechanism = NoPrivacy(batch_size=5)
    mechanism.gradients(
        trained,
        model.sink,
        lambda batch: model.losses(CLASSIFY.losses, batch),
        [BATCH],
        mechanism.draws(0, None),
    )
    for (key, p), grad in zip(trained.items(), expected, strict=True):
        torch.testing.assert_close(p.grad, grad, msg=str(key))


# ---- what is left of a forward pass, and what cannot follow it


@kinds
def test_nothing_of_an_earlier_pass_is_used(kind):
    model = build(kind)
    model.load(somewhere(model))
    expected = logits(model.model, BATCH)
    other = notes(9, "another").batch(range(9))
    logits(model.model, other)
    torch.testing.assert_close(logits(model.model, BATCH), expected, rtol=0, atol=0)
    model.context.begin(None)
    assert not model.context.notes
    if kind.shortcut is BLOCK:
        logits(model.model, BATCH)
        assert not model.context.notes, "the block shortcut keeps nothing"


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[4]], ids=["input", "middle"])
def test_a_layer_without_what_came_before_it_says_so(kind):
    model = build(kind)
    model.context.begin(None)
    with pytest.raises(ValueError, match=r"layers\.1\.up is used before layers\.0\.up"):
        model.layers["layers.1.up"](torch.zeros(1, 2, WIDTH))


class Checkpointed(Deep):
    reentrant = False

    def run(self, layer, h):
        if self.reentrant:
            h = h.requires_grad_()
        return torch.utils.checkpoint.checkpoint(layer, h, use_reentrant=self.reentrant)


@every_combination(kind=KINDS, reentrant=[False, True])
def test_checkpointing_is_right_or_refused_before_a_record_is_read(kind, reentrant):
    toy = Checkpointed()
    toy.reentrant = reentrant
    model = build(kind, toy)
    if kind.shortcut is BLOCK:
        check_gradients(model, CLASSIFY, BATCH, set(Role))
        model.load(somewhere(model))
        same = build(kind)
        same.load(somewhere(model))
        grads = []
        for each in (model, same):
            trained = each.train_only(set(Role))
            each.model.train()
            loss = CLASSIFY.losses(each.model, BATCH).sum()
            loss.backward()
            grads.append({k: p.grad for k, p in trained.items()})
        for key, grad in grads[1].items():
            torch.testing.assert_close(grads[0][key], grad)
        return
    with pytest.raises(GradientCheckError, match="computed twice in one forward pass"):
        check_gradients(model, CLASSIFY, BATCH, set(Role))


def test_half_precision_bases_are_covered_within_their_precision():
    torch.set_default_dtype(torch.float32)
    for kind in KINDS:
        toy = Deep().to(torch.bfloat16)
        model = inject(toy, deep_sites(toy), deep_heads(toy), kind)
        assert {t.dtype for t in model.tensors.values()} == {torch.float32}
        batch = dict(BATCH) | {"attention_mask": BATCH["attention_mask"].bfloat16()}
        check_gradients(
            model,
            CLASSIFY,
            batch,
            set(Role),
            micro_batch=1,
        )


def test_dropout_is_of_training_alone_and_of_every_use():
    kind = ResLoRA(pair=LoRA(rank=2, alpha=6.0, dropout=0.5), shortcut=BLOCK)
    model = build(kind)
    model.load(somewhere(model))
    closed = logits(model.model, BATCH)
    model.model.train()
    with model.sink.collect(5):
        assert not torch.allclose(logits(model.model, BATCH), closed)
    model.model.eval()
    torch.testing.assert_close(logits(model.model, BATCH), closed, rtol=0, atol=0)


# ---- merging


FOLD = {"layers.1.up": LowRank(torch.full((INNER, 1), 0.1), torch.full((1, WIDTH), 0.2))}


@pytest.mark.parametrize("kind", [k for k in KINDS if k.fits_peft])
def test_block_shortcuts_merge_exactly(kind):
    model = build(kind)
    fold = {s: m.to(torch.float64) for s, m in FOLD.items()}
    model.load(somewhere(model), fold)
    expected = logits(model.model, BATCH)
    heads = [Site("classifier", nn.Linear(WIDTH, CLASSES), WIDTH, CLASSES)]
    merged = merge(model, heads)
    assert isinstance(merged.layers[1].down, Conv1D)
    torch.testing.assert_close(logits(merged, BATCH), expected, atol=1e-12, rtol=1e-10)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"pre_num: the input shortcut reaches one"):
        ResLoRA(pair=PAIR, shortcut=INPUT, pre_num=2)
    with pytest.raises(ValueError, match=r"pre_num: must be at least 0"):
        ResLoRA(pair=PAIR, pre_num=-1)
