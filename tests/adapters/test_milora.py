"""The mixture of LoRA modules, against its formulas written out record by record in float64."""

import math
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from silotune.adapters import LoRA, MiLoRA, initial_factors, inject
from silotune.adapters.milora import CHOICE, DENOMINATOR, GELU, NUMERATOR, POOL, Router
from silotune.core import Factors, Key, Role, Site
from silotune.engine import check_gradients
from silotune.engine.batches import PASS_TOKENS, microbatches
from silotune.objectives import CausalLM
from silotune.privacy.mechanisms.clipping import accumulate
from toys import CLASSES, CLASSIFY, WIDTH, Toy, adapted, heads, notes, random_factors, sites

EXPERT = LoRA(rank=2, alpha=6.0)
MIXED = MiLoRA(expert=EXPERT, kept=1, balance_weight=0.3)
BOTH = MiLoRA(expert=EXPERT, kept=2, balance_weight=0.3)
NAMES = ("up", "down")


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def gate(name: str) -> Key:
    return Key("up", Role.GATE, name)


def loaded(mixture: MiLoRA, seed: int = 1):
    model, factors = adapted(mixture), random_factors(mixture, seed)
    model.load(factors)
    model.train_only(set(Role))
    return model, factors


def losses(model):
    return lambda batch: model.losses(CLASSIFY.losses, batch)


def routed(ids, factors, toy) -> tuple[torch.Tensor, torch.Tensor]:
    """p and the hidden states of one record, as the paper has them."""
    h = toy.embedding(torch.tensor(ids))  # (T, d)
    read = toy.norm(h)
    w = torch.softmax(read @ factors[gate(POOL)][0], dim=0)
    pooled = w @ read
    a = torch.tensor(GELU[0]) + factors[gate(NUMERATOR)] / 100
    b = torch.tensor(GELU[1]) + factors[gate(DENOMINATOR)] / 100
    above = sum(a[j] * pooled**j for j in range(7))
    below = 1 + sum(b[j - 1] * pooled**j for j in range(1, 6)).abs()
    return torch.softmax(factors[gate(CHOICE)] @ (above / below), dim=0), h


def by_hand(ids, label, factors, mixture) -> torch.Tensor:
    """The loss of one record with its balance term, all of it by plain autograd."""
    toy = Toy().double().requires_grad_(False)
    p, h = routed(ids, factors, toy)
    kept = p.argsort(descending=True)[: mixture.kept].tolist()
    g = [2 * p[i] if i in kept else 0.0 for i in range(2)]
    added = [g[i] * mixture.scale * factors.pair(s).dense() for i, s in enumerate(NAMES)]
    inner = torch.tanh(toy.up(toy.norm(h)) + toy.norm(h) @ added[0].T)
    out = (h + toy.down(inner) + inner @ added[1].T).mean(0)
    weight, bias = (factors[Key("classifier", Role.HEAD, n)] for n in ("weight", "bias"))
    task = functional.cross_entropy(weight @ out + bias, torch.tensor(label))
    balance = 2 * sum(p[i] / mixture.kept for i in kept)
    return task + mixture.balance_weight * balance


@pytest.mark.parametrize("mixture", [MIXED, BOTH])
def test_forward_and_every_records_gradient_are_those_of_the_formula(mixture):
    """All tensors, routers included: sink and naive loop agree to 1e-10."""
    records = notes(9)
    model, factors = loaded(mixture)
    with model.sink.collect(9) as rows:
        found = losses(model)(records.batch(range(9)))
        found.sum().backward()
    assert rows.keys() == model.tensors.keys()
    for i, ids in enumerate(records.ids):
        free = Factors({k: t.clone().requires_grad_() for k, t in factors.items()})
        loss = by_hand(ids, ids[0] % CLASSES, free, mixture)
        torch.testing.assert_close(found[i], loss, atol=1e-10, rtol=1e-10)
        wanted = torch.autograd.grad(loss, list(free.values()), allow_unused=True)
        for key, gradient in zip(free, wanted, strict=True):
            expected = torch.zeros_like(free[key]) if gradient is None else gradient
            torch.testing.assert_close(rows[key][i], expected, atol=1e-10, rtol=1e-10)
    gates = [rows[gate(name)] for name in (POOL, CHOICE, NUMERATOR, DENOMINATOR)]
    assert all(g.abs().sum() > 0 for g in gates), "or nothing was compared"


@pytest.mark.parametrize("bound", [0.05, math.inf])
@pytest.mark.parametrize("micro_batch", [1, 4])
def test_the_clipped_sum_is_that_of_one_record_after_another(bound, micro_batch):
    records, (model, factors) = notes(9), loaded(MIXED)
    parts = [
        records.batch(p)
        for p in microbatches(range(9), records.lengths, micro_batch, PASS_TOKENS["cpu"])
    ]
    found = accumulate(model.sink, losses(model), parts, bound).sums
    alone, _ = loaded(MIXED)
    total = {key: torch.zeros_like(t) for key, t in factors.items()}
    for i in range(9):
        loss = losses(alone)(records.batch([i])).sum()
        got = torch.autograd.grad(loss, list(alone.tensors.values()))
        norm = torch.stack([g.norm() for g in got]).norm()
        for key, g in zip(alone.tensors, got, strict=True):
            total[key] += g * min(1.0, bound / norm.item())
    for key, tensor in total.items():
        torch.testing.assert_close(found[key], tensor, atol=1e-10, rtol=1e-5)


@pytest.mark.parametrize("mixture", [MIXED, BOTH])
def test_the_coverage_guard_accepts_it(mixture):
    model = adapted(mixture)
    check_gradients(
        model,
        CLASSIFY,
        notes(4).batch(range(4)),
        set(Role),
        unit="client",
    )


def test_all_modules_kept_by_a_router_that_knows_nothing_are_lora():
    lora, (model, factors) = adapted(EXPERT), loaded(BOTH)
    even = factors.updated({gate(CHOICE): torch.zeros_like(factors[gate(CHOICE)])})
    model.load(even)
    lora.load(factors.without([k for k in factors if k.role is Role.GATE]))
    batch = notes(6).batch(range(6))
    plain, mixed = (CLASSIFY.losses(m.model, batch) for m in (lora, model))
    torch.testing.assert_close(mixed, plain, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(
        next(iter(model.context.penalties.values()))(), torch.full((6,), 0.3)
    )  # L_lb = 1
    model.load(factors)
    assert not torch.allclose(CLASSIFY.losses(model.model, batch), plain)


def test_birth_changes_no_output_and_depends_on_the_seed_alone():
    born = initial_factors(sites(Toy()), MIXED, 3).map(lambda t: t.double())
    model = adapted(MIXED)
    head = {k: t for k, t in random_factors(MIXED, 0).items() if k.role is Role.HEAD}
    model.load(born.updated(head))
    plain = Toy().double()
    plain.classifier.load_state_dict({k.name: t for k, t in head.items()})
    batch = {k: t for k, t in notes(5).batch(range(5)).items() if k != "labels"}
    torch.testing.assert_close(model.model(**batch).logits, plain(**batch).logits)
    again = initial_factors(sites(Toy()), MIXED, 3).map(lambda t: t.double())
    assert again.digest() == born.digest() != initial_factors(sites(Toy()), MIXED, 4).digest()


def test_padding_plays_no_part():
    model, _ = loaded(MIXED)
    batch = notes(4).batch(range(4))
    wide = {k: functional.pad(t, (0, 3)) if t.dim() == 2 else t for k, t in batch.items()}
    wide["input_ids"][:, -3:] = 7  # what stands there does not matter
    torch.testing.assert_close(losses(model)(wide), losses(model)(batch), atol=1e-12, rtol=1e-12)


def gates_of(model) -> torch.Tensor:
    return model.context.lasting["gates", ""]


@pytest.mark.parametrize(("modules", "kept"), [(7, 3), (7, 1), (4, None), (3, None)])
def test_a_prompt_goes_through_exactly_k_modules(modules, kept):
    model, router = stack(modules, kept)
    model.model(**SOME)
    k = kept or modules // 2
    for layer in (0, 1):
        gates = model.context.lasting["gates", f"layer.{layer}"]
        assert gates.shape == (5, modules)
        assert ((gates > 0).sum(dim=1) == k).all()
        p = router[layer].probabilities(SOME_HIDDEN)
        torch.testing.assert_close(gates, modules * p.where(gates > 0, 0.0))
        share = (gates > 0).double() / k
        balance = modules * (share * p).sum(dim=1)
        torch.testing.assert_close(list(model.context.penalties.values())[layer](), 0.01 * balance)
        assert (balance >= 1 - 1e-12).all()


class Stack(torch.nn.Module):
    """Two layers of linear maps side by side, whose outputs add up; it passes its input on."""

    def __init__(self, modules: int) -> None:
        super().__init__()
        own = lambda: torch.nn.ModuleList(  # noqa: E731
            torch.nn.Linear(WIDTH, WIDTH) for _ in range(modules)
        )
        self.layer = torch.nn.ModuleList([own(), own()])

    def forward(self, x, attention_mask=None, past_key_values=None):
        for layer in self.layer:
            for module in layer:
                module(x)
        if past_key_values is not None:
            past_key_values.length += x.shape[1]
        return SimpleNamespace(past_key_values=past_key_values)


class Cache:
    """As far as routers look at one."""

    length = 0

    def get_seq_length(self) -> int:
        return self.length


SOME_HIDDEN = torch.randn(5, 4, WIDTH, generator=torch.Generator().manual_seed(0)).double()
SOME = {"x": SOME_HIDDEN, "attention_mask": torch.ones(5, 4)}


def stack(modules: int, kept: int | None):
    whole = Stack(modules).double()
    places = [
        Site(f"layer.{i}.{j}", m, WIDTH, WIDTH)
        for i, layer in enumerate(whole.layer)
        for j, m in enumerate(layer)
    ]
    mixture = MiLoRA(kept=kept)
    model = inject(whole, places, [], mixture)
    model.load(initial_factors(places, mixture, 0).map(lambda t: t.double()))
    return model, [m for m in whole.modules() if isinstance(m, Router)]


def test_later_tokens_follow_their_own_prompt():
    """Whatever was read in between, and whatever the mask looks like then."""
    model, router = stack(4, 2)
    model.model.eval()

    def decided(x, mask, cache):
        model.model(x=x, attention_mask=mask, past_key_values=cache)
        return model.context.lasting["gates", "layer.0"]

    prompts = [torch.randn(5, 4, WIDTH), torch.randn(5, 3, WIDTH), torch.randn(5, 1, WIDTH)]
    caches = [Cache() for _ in prompts]
    first = [decided(x, torch.ones(x.shape[:2]), c) for x, c in zip(prompts, caches, strict=True)]
    for one, other in combinations(first, 2):
        assert not torch.allclose(one, other)
    later = torch.randn(5, 1, WIDTH) * 9
    for mask in (torch.ones(5, 5), None, torch.ones(5, 1, 1, 9), torch.ones(5, 1)):
        for cache, gates in zip(caches, first, strict=True):
            assert torch.equal(decided(later, mask, cache), gates)
    assert not torch.allclose(decided(later, torch.ones(5, 1), None), first[0])
    for stranger in (Cache(), ((later,),)):
        if isinstance(stranger, Cache):
            stranger.length = 4
        with pytest.raises(ValueError, match="before the prompt is"):
            decided(later, None, stranger)
    with pytest.raises(ValueError, match="before the prompt is"):
        decided(later[:2], None, caches[0])
    with pytest.raises(ValueError, match=r"an attention_mask \(n, T\)"):
        decided(prompts[0], torch.ones(5, 1, 4, 4), Cache())
    assert len(router) == 2


def test_whichever_site_is_used_first_brings_the_prompt_and_a_layer_used_again_decides_again():
    model, _ = stack(4, 2)
    plain, read = model.model, SOME_HIDDEN
    plain(**SOME)
    expected = model.context.lasting["gates", "layer.0"]
    calls = []
    model.layers["layer.0.0"].router.register_forward_hook(lambda *_: calls.append(1))

    class Backwards(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = plain.layer

        def forward(self, x):
            for module in list(self.inner[0])[::-1]:
                module(x)

    model.context.begin()
    Backwards()(read)
    assert torch.equal(model.context.lasting["gates", "layer.0"], expected)
    Backwards()(read + 1)
    assert not torch.equal(model.context.lasting["gates", "layer.0"], expected)
    assert len(calls) == 2, "once for each use"
    assert len(model.context.penalties) == 2


def test_what_is_to_be_predicted_decides_nothing():
    """The prompt alone does; or the first token, if all are learned."""
    model, _ = stack(4, 2)

    def decided(hidden, labels):
        model.context.expect({"labels": torch.tensor(labels).expand(5, 4)})
        model.model(x=hidden, attention_mask=torch.ones(5, 4))
        return model.context.lasting["gates", "layer.0"]

    for labels, prompt in (([-100, -100, 3, 4], 2), ([1, 2, 3, 4], 1), ([-100, 3, -100, 4], 1)):
        other = SOME_HIDDEN.clone()
        other[:, prompt:] = 5 * torch.randn(5, 4 - prompt, WIDTH)
        torch.testing.assert_close(decided(other, labels), decided(SOME_HIDDEN, labels))
        other[:, prompt - 1] += 5 * torch.randn(5, WIDTH)
        assert not torch.allclose(decided(other, labels), decided(SOME_HIDDEN, labels))
    model.model(**SOME)  # nobody said what comes: all of it is the prompt
    whole = model.context.lasting["gates", "layer.0"]
    assert not torch.allclose(whole, decided(SOME_HIDDEN, [1, 2, 3, 4]))
    for numbers in (torch.ones(5, 1), torch.zeros(5, 3), torch.arange(5)):  # of records, no tokens
        model.context.expect({"labels": numbers})
        model.model(x=SOME_HIDDEN, attention_mask=torch.ones(5, 4))
        assert torch.equal(model.context.lasting["gates", "layer.0"], whole)


def test_the_losses_of_a_language_model_mark_the_prompt():
    class Language(Toy):
        def forward(self, input_ids, attention_mask):
            h = self.embedding(input_ids)
            h = h + self.down(torch.tanh(self.up(self.norm(h))))
            return type("Output", (), {"logits": self.classifier(h)})()

    toy = Language().double()
    model = inject(toy, sites(toy), heads(toy), MIXED)
    model.load(random_factors(MIXED, 1))
    ids = torch.tensor([[1, 2, 0, 1, 2], [2, 1, 1, 0, 2]])
    labels = torch.tensor([[-100, -100, 0, 1, 2], [-100, -100, 1, 0, 2]])
    batch = {"input_ids": ids, "attention_mask": torch.ones(2, 5), "labels": labels}
    for use in (model.losses, model.measure):
        use(
            CausalLM(text="text").losses if use == model.losses else CausalLM(text="text").measure,
            batch,
        )
        decided = gates_of(model)
        changed = {**batch, "input_ids": ids.index_fill(1, torch.tensor([3, 4]), 7)}
        use(
            CausalLM(text="text").losses if use == model.losses else CausalLM(text="text").measure,
            changed,
        )
        torch.testing.assert_close(gates_of(model), decided)
    check_gradients(model, CausalLM(text="text"), batch, set(Role), unit="client")


@pytest.mark.parametrize("reentrant", [False])
def test_recomputed_activations_give_the_same_gradients(reentrant):
    class Checkpointed(Toy):
        def forward(self, input_ids, attention_mask):
            h = self.embedding(input_ids)
            block = lambda x: x + self.down(torch.tanh(self.up(self.norm(x))))  # noqa: E731
            h = torch.utils.checkpoint.checkpoint(block, h, use_reentrant=reentrant)
            mask = attention_mask.unsqueeze(-1)
            pooled = (h * mask).sum(1) / mask.sum(1)
            return type("Output", (), {"logits": self.classifier(pooled)})()

    toy = Checkpointed().double()
    model = inject(toy, sites(toy), heads(toy), MIXED)
    model.load(random_factors(MIXED, 1))
    model.train_only(set(Role))
    plain, _ = loaded(MIXED)
    batch = notes(5).batch(range(5))
    with model.sink.collect(5) as rows, plain.sink.collect(5) as expected:
        for each in (model, plain):
            losses(each)(batch).sum().backward()
    for key, tensor in expected.items():
        torch.testing.assert_close(rows[key], tensor, atol=1e-12, rtol=1e-9)


def test_the_activation_begins_near_gelu():
    a, b = (torch.tensor(part) for part in GELU)
    x = torch.linspace(-5, 5, 1001)
    above = sum(a[j] * x**j for j in range(7))
    below = 1 + sum(b[j - 1] * x**j for j in range(1, 6)).abs()
    assert (above / below - functional.gelu(x)).abs().max() < 0.004


def test_a_module_that_is_alone_in_its_layer_is_plain_lora():
    whole = Stack(2).double()
    whole.alone = torch.nn.Linear(WIDTH, WIDTH).double()
    names = ["layer.0.0", "layer.0.1", "alone"]
    places = [Site(n, whole.get_submodule(n), WIDTH, WIDTH) for n in names]
    base = whole.alone
    model = inject(whole, places, [], MIXED)
    factors = Factors({k: torch.randn(p.shape) for k, p in sorted(model.tensors.items())})
    model.load(factors)
    expected = base(SOME_HIDDEN) + 3.0 * SOME_HIDDEN @ factors.pair("alone").dense().T
    torch.testing.assert_close(whole.alone(SOME_HIDDEN), expected)
    assert {k.site for k in factors.only({Role.GATE})} == {"layer.0.0"}
    assert initial_factors(places, MIXED, 0).keys() == factors.keys()


def test_what_cannot_be_is_refused_in_words():
    toy = Toy().double()
    with pytest.raises(ValueError, match=r"target_modules: milora chooses.*each one is alone"):
        inject(toy, sites(toy)[:1], [], MIXED)
    with pytest.raises(ValueError, match=r"experts_per_prompt: 3 of 2 modules"):
        adapted(MiLoRA(kept=3))
    with pytest.raises(ValueError, match=r"experts_per_prompt: must be at least 1"):
        MiLoRA(kept=0)
    with pytest.raises(ValueError, match=r"balance_weight: must not be negative"):
        MiLoRA(balance_weight=-1.0)
    model, _ = loaded(MIXED)
    with pytest.raises(ValueError, match="cannot be merged"):
        model.layers["up"].delta()
    with pytest.raises(ValueError, match="folded nowhere"):
        model.layers["up"].fold(torch.zeros(10, 6))
    toy = Toy().double()
    swapped = inject(toy, sites(toy)[::-1], [], MIXED)
    batch = {k: t for k, t in notes(5).batch(range(5)).items() if k != "labels"}
    with pytest.raises(ValueError, match=r"reads 10 features, and up, which is used first, has 6"):
        swapped.model(**batch)
