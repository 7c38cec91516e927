"""ResLoRA against its formulas; on linear and transposed layers that are not square."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from covering import every_combination
from silotune.adapters import LoRA, ResLoRA, Shortcut, initial_factors, inject, merge
from silotune.adapters.reslora import links, straighten
from silotune.core import Factors, Key, Role, Site, generator
from silotune.engine import GradientCheckError, check_gradients
from silotune.linalg import LowRank
from silotune.privacy import NoPrivacy
from silotune.privacy.mechanisms.clipping import accumulate
from toys import CLASSES, CLASSIFY, INNER, VOCABULARY, WIDTH, Conv1D, notes

DEPTH = 4
INPUT, BLOCK, MIDDLE = Shortcut
PAIR = LoRA(rank=2, alpha=6.0)
KINDS = [
    ResLoRA(pair=PAIR, shortcut=INPUT),
    ResLoRA(pair=PAIR, shortcut=BLOCK),
    ResLoRA(pair=PAIR, shortcut=BLOCK, pre_num=2),
    ResLoRA(pair=LoRA(rank=3, alpha=2.0, rslora=True), shortcut=BLOCK, pre_num=9),
    ResLoRA(pair=PAIR, shortcut=MIDDLE),
    ResLoRA(pair=PAIR, shortcut=MIDDLE, pre_num=3),
]

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k.shortcut}{k.pre_num}-r{k.rank}")


pytestmark = pytest.mark.usefixtures("double_precision")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, INNER)
        self.down = Conv1D(WIDTH, INNER)

    def forward(self, h):
        return h + self.down(torch.tanh(self.up(self.norm(h))))


class Deep(nn.Module):
    """As the toy of the laws, with several layers."""

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(11)
            self.embedding = nn.Embedding(VOCABULARY, WIDTH)
            self.layers = nn.ModuleList(Block() for _ in range(depth))
            self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids, attention_mask):
        h = self.embedding(input_ids)
        for layer in self.layers:
            h = self.run(layer, h)
        mask = attention_mask.unsqueeze(-1).to(h.dtype)
        return SimpleNamespace(logits=self.classifier((h * mask).sum(1) / mask.sum(1)))

    def run(self, layer, h):
        return layer(h)


def deep_sites(model) -> list[Site]:
    found = []
    for i, layer in enumerate(model.layers):
        found.append(Site(f"layers.{i}.up", layer.up, WIDTH, INNER))
        found.append(Site(f"layers.{i}.down", layer.down, INNER, WIDTH, transposed=True))
    return found


def deep_heads(model) -> list[Site]:
    return [Site("classifier", model.classifier, WIDTH, CLASSES)]


def build(kind, model=None):
    model = (model or Deep()).to(torch.get_default_dtype())
    return inject(model, deep_sites(model), deep_heads(model), kind)


def somewhere(adapted, seed: int = 1) -> Factors:
    """Factors with no zeros among them."""
    return Factors(
        {
            k: torch.randn(t.shape, generator=generator("deep", seed, k), dtype=t.dtype) * 0.4
            for k, t in adapted.extract().items()
        }
    )


def logits(model, batch):
    return model(batch["input_ids"], batch["attention_mask"]).logits


BATCH = notes(5, "deep").batch(range(5))


def reference(kind: ResLoRA, factors: Factors, batch) -> torch.Tensor:
    """The formulas of the paper, one layer after another."""
    toy, s = Deep().to(torch.get_default_dtype()), kind.scale
    a = {k.site: t for k, t in factors.items() if k.role is Role.A}
    b = {k.site: t for k, t in factors.items() if k.role is Role.B}
    read: dict[str, torch.Tensor] = {}

    def linear(i, part, x):
        base, own = getattr(toy.layers[i], part), f"layers.{i}.{part}"
        read[own] = x
        back = [f"layers.{i - k}.{part}" for k in range(1, kind.pre_num + 1) if i - k >= 0]
        y = base(x)
        if kind.shortcut is INPUT:
            return y + s * (x + sum(read[n] for n in back)) @ a[own].T @ b[own].T
        if kind.shortcut is BLOCK:
            return y + s * sum(x @ a[n].T @ b[n].T for n in [own, *back])
        return y + s * sum(read[n] @ a[n].T for n in [own, *back]) @ b[own].T

    h = toy.embedding(batch["input_ids"])
    for i, layer in enumerate(toy.layers):
        h = h + linear(i, "down", torch.tanh(linear(i, "up", layer.norm(h))))
    mask = batch["attention_mask"].unsqueeze(-1)
    weight, bias = (factors[Key("classifier", Role.HEAD, n)] for n in ("weight", "bias"))
    return (h * mask).sum(1) / mask.sum(1) @ weight.T + bias


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


@pytest.mark.parametrize("kind", [k for k in KINDS if not k.fits_peft])
def test_the_others_are_not_merged_in_silence(kind):
    model = build(kind)
    model.load(somewhere(model))
    model.layers["layers.0.up"].delta()  # reads nothing of others
    with pytest.raises(ValueError, match=r"layers\.1\.up reads what other layers read"):
        merge(model, [])


def test_the_estimate_by_weight_norms_is_the_papers_formula():
    kind = KINDS[0]
    model = build(kind)
    factors = somewhere(model)
    model.load(factors)
    toy, weights = Deep().double(), {}
    for i in range(DEPTH):
        for part in ("up", "down"):
            name = f"layers.{i}.{part}"
            plain = getattr(toy.layers[i], part).weight.detach()
            plain = plain.T if part == "down" else plain
            one, two = (weights.get(f"layers.{i - k}.{part}") for k in (1, 2))
            a = 0.0 if one is None else 1.0 if two is None else two.norm() / one.norm()
            weights[name] = plain + (1 + a) * kind.scale * factors.pair(name).dense()
    straighten(model.layers)
    for name, layer in model.layers.items():
        base = layer.weight.T if layer.transposed else layer.weight
        torch.testing.assert_close(base + layer.delta(), weights[name])
    expected = logits(model.model, BATCH)
    merged = merge(model, [Site("classifier", nn.Linear(WIDTH, CLASSES), WIDTH, CLASSES)])
    torch.testing.assert_close(logits(merged, BATCH), expected, atol=1e-12, rtol=1e-10)


def test_straightening_leaves_what_is_exact_alone_and_refuses_middle():
    model = build(KINDS[1])
    model.load(somewhere(model))
    before = logits(model.model, BATCH)
    straighten(model.layers)
    assert torch.equal(logits(model.model, BATCH), before)
    middle = build(KINDS[4])
    with pytest.raises(ValueError, match="private records, which would leak them"):
        straighten(middle.layers)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"pre_num: the input shortcut reaches one"):
        ResLoRA(pair=PAIR, shortcut=INPUT, pre_num=2)
    with pytest.raises(ValueError, match=r"pre_num: must be at least 0"):
        ResLoRA(pair=PAIR, pre_num=-1)
