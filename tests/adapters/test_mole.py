"""Gates over trained adapters, against their formulas written out record by record in float64."""

import json
import math

import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from silotune.adapters import Expert, Experts, LoRA, PeftLayout, inject, load_expert, save_peft
from silotune.adapters.mole_gate import LOG_TEMPERATURE, MIX, first_positions
from silotune.core import Factors, Key, Role, Site
from silotune.engine import check_gradients
from silotune.engine.batches import PASS_TOKENS, microbatches
from silotune.linalg import LowRank
from silotune.privacy.mechanisms.clipping import accumulate
from toys import (
    CLASSES,
    CLASSIFY,
    INNER,
    WIDTH,
    Toy,
    adapted,
    experts,
    heads,
    notes,
    random_factors,
    sites,
)

HEAD = tuple(Key("classifier", Role.HEAD, part) for part in ("weight", "bias"))


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def gate(name: str, site: str = "up") -> Key:
    return Key(site, Role.GATE, name)


def mixture(*masked: str, weight: float = 0.2, **reads) -> Experts:
    return Experts(experts=experts(), masked=masked, balance_weight=weight, **reads)


def loaded(mole: Experts):
    model, factors = adapted(mole), random_factors(mole, 1)
    model.load(factors)
    model.train_only(set(Role))
    return model, factors


def losses(model):
    return lambda batch: model.losses(CLASSIFY.losses, batch)


def read_by_hand(read, deltas, mole) -> torch.Tensor:
    """What the gate at one site is given, of (T, in): normalised, one vector."""
    if mole.gate_input == "mean":
        return torch.cat([(read @ delta.T).mean(0) for delta in deltas])  # pooled afterwards
    padded = torch.zeros(mole.positions, read.shape[1])
    padded[: len(read)] = read[: mole.positions]
    if mole.gate_input == "input":
        return padded.flatten()
    return torch.cat([(padded @ delta.T).flatten() for delta in deltas])


def weigh_by_hand(read, deltas, factors, mole, site) -> torch.Tensor:
    z = read_by_hand(read, deltas, mole)
    logits = factors[gate(MIX, site)] @ (z / z.norm())
    kept = [e.name not in mole.masked for e in mole.experts]
    weights = torch.exp(logits / torch.exp(factors[gate(LOG_TEMPERATURE, site)]))
    weights = torch.stack([w if k else w * 0 for w, k in zip(weights, kept, strict=True)])
    return weights / weights.sum()


def by_hand(ids, label, factors, mole) -> torch.Tensor:
    """The loss of one record with its balance term, all of it by plain autograd."""
    toy = Toy().double().requires_grad_(False)
    h = toy.embedding(torch.tensor(ids))  # (T, d)
    read = toy.norm(h)
    deltas = {s: [e.pairs[s].dense() for e in mole.experts] for s in ("up", "down")}
    g = weigh_by_hand(read, deltas["up"], factors, mole, "up")
    inner = torch.tanh(toy.up(read) + read @ sum(g[i] * deltas["up"][i] for i in range(3)).T)
    q = g
    if mole.granularity == "matrix":
        g = weigh_by_hand(inner, deltas["down"], factors, mole, "down")
        q = (q + g) / 2
    down = sum(g[i] * deltas["down"][i] for i in range(3))
    out = (h + toy.down(inner) + inner @ down.T).mean(0)
    task = functional.cross_entropy(factors[HEAD[0]] @ out + factors[HEAD[1]], torch.tensor(label))
    kept = [e.name not in mole.masked for e in mole.experts]
    return task - mole.balance_weight * sum(q[i].log() for i in range(3) if kept[i])


@pytest.mark.parametrize("masked", [(), ("e1",)])
@pytest.mark.parametrize("granularity", ["layer", "matrix"])
@pytest.mark.parametrize(
    "reads",
    [{}, {"positions": 3}, {"gate_input": "input", "positions": 4}, {"gate_input": "mean"}],
    ids=["outputs", "cut", "input", "mean"],
)
def test_forward_and_every_records_gradient_are_those_of_the_formula(masked, granularity, reads):
    """Records have one to seven positions."""
    records, mole = notes(9), mixture(*masked, granularity=granularity, **reads)
    model, factors = loaded(mole)
    at = ["up", "down"] if granularity == "matrix" else ["up"]
    gates = {gate(name, site) for site in at for name in (MIX, LOG_TEMPERATURE)}
    assert factors.keys() == gates | {*HEAD}, "experts are not among them"
    with model.sink.collect(9) as rows:
        found = losses(model)(records.batch(range(9)))
        found.sum().backward()
    assert rows.keys() == factors.keys()
    for i, ids in enumerate(records.ids):
        free = Factors({k: t.clone().requires_grad_() for k, t in factors.items()})
        loss = by_hand(ids, ids[0] % CLASSES, free, mole)
        torch.testing.assert_close(found[i], loss, atol=1e-10, rtol=1e-10)
        wanted = torch.autograd.grad(loss, list(free.values()))
        for key, gradient in zip(free, wanted, strict=True):
            torch.testing.assert_close(rows[key][i], gradient, atol=1e-10, rtol=1e-10)
            assert gradient.abs().sum() > 0, "or nothing was compared"


def test_a_gate_reads_the_first_positions_in_order_and_no_padding():
    x = torch.arange(1.0, 11.0).reshape(2, 5, 1)
    seen = torch.tensor([[False, True, False, True, True], [True, False, False, False, False]])
    assert first_positions(x, seen, 2).flatten(1).tolist() == [[2.0, 4.0], [6.0, 0.0]]
    assert first_positions(x, seen, 6).flatten(1).tolist() == [
        [2.0, 4.0, 5.0, 0.0, 0.0, 0.0],
        [6.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ]


def test_a_gate_serves_a_layer_or_a_block_of_it_or_a_matrix():
    names = ["h.0.attn.q", "h.0.attn.o", "h.0.mlp.up", "h.1.attn.q", "h.1.mlp.up", "pooler"]
    places = [Site(name, torch.nn.Linear(4, 3), 4, 3) for name in names]
    firsts = {
        kind: [key.site for key in mixture(granularity=kind).gates(places, 0) if key.name == MIX]
        for kind in ("layer", "block", "matrix")
    }
    assert firsts["layer"] == ["h.0.attn.q", "h.1.attn.q", "pooler"]
    assert firsts["block"] == ["h.0.attn.q", "h.0.mlp.up", "h.1.attn.q", "h.1.mlp.up", "pooler"]
    assert firsts["matrix"] == names


@pytest.mark.parametrize("bound", [0.05, math.inf])
def test_the_clipped_sum_is_that_of_one_record_after_another(bound):
    records, (model, factors) = notes(9), loaded(mixture())
    parts = [
        records.batch(p) for p in microbatches(range(9), records.lengths, 4, PASS_TOKENS["cpu"])
    ]
    found = accumulate(model.sink, losses(model), parts, bound).sums
    alone, _ = loaded(mixture())
    total = {key: torch.zeros_like(t) for key, t in factors.items()}
    for i in range(9):
        loss = losses(alone)(records.batch([i])).sum()
        got = torch.autograd.grad(loss, list(alone.tensors.values()))
        norm = torch.stack([g.norm() for g in got]).norm()
        for key, g in zip(alone.tensors, got, strict=True):
            total[key] += g * min(1.0, bound / norm.item())
    for key, tensor in total.items():
        torch.testing.assert_close(found[key], tensor, atol=1e-10, rtol=1e-5)


@pytest.mark.parametrize("masked", [(), ("e0", "e2")])
def test_the_coverage_guard_accepts_it(masked):
    own = mixture(*masked)
    check_gradients(
        adapted(own),
        CLASSIFY,
        notes(4).batch(range(4)),
        set(Role),
        idle=own.idle(sites(Toy())),
    )


def gates_of(model, batch) -> torch.Tensor:
    losses(model)(batch)
    return model.context.lasting["gates", ""]


def test_masking_rescales_what_is_left_and_trains_nothing():
    batch = notes(6).batch(range(6))
    whole, factors = loaded(mixture())
    masked, _ = loaded(mixture("e1"))
    assert masked.extract().digest() == factors.digest()
    g = gates_of(whole, batch)
    left = g * torch.tensor([1.0, 0.0, 1.0])
    expected = left / left.sum(dim=1, keepdim=True)
    torch.testing.assert_close(gates_of(masked, batch), expected, atol=1e-12, rtol=1e-12)
    one, _ = loaded(mixture("e0", "e1"))
    alone = Toy().double()
    pairs = experts()[2].pairs
    with torch.no_grad():
        alone.up.weight += pairs["up"].dense()
        alone.down.weight += pairs["down"].dense().T
    alone.classifier.load_state_dict({k.name: factors[k] for k in HEAD})
    same = {k: t for k, t in batch.items() if k != "labels"}
    torch.testing.assert_close(one.model(**same).logits, alone(**same).logits)


def test_balance_is_least_where_all_experts_are_used_alike():
    """N log N there, as in the paper; and it has a gradient."""
    model, factors = loaded(mixture(weight=1.0))
    batch = notes(5).batch(range(5))
    model.load(factors.updated({gate(MIX): torch.zeros_like(factors[gate(MIX)])}))
    g = gates_of(model, batch)
    torch.testing.assert_close(g, torch.full_like(g, 1 / 3))
    least = torch.full((5,), 3 * math.log(3))
    torch.testing.assert_close(next(iter(model.context.penalties.values()))(), least)
    model.load(factors)
    losses(model)(batch)
    (penalty,) = (give() for give in model.context.penalties.values())
    assert (penalty > least).all()
    (slope,) = torch.autograd.grad(penalty.sum(), [model.tensors[gate(MIX)]])
    assert slope.abs().sum() > 0


def test_a_higher_temperature_evens_the_gates_out():
    model, factors = loaded(mixture())
    batch, spreads = notes(5).batch(range(5)), []
    for theta in (-2.0, 0.0, 2.0):
        model.load(factors.updated({gate(LOG_TEMPERATURE): torch.tensor([theta])}))
        spreads.append(gates_of(model, batch).std(dim=1))
    assert (spreads[0] > spreads[1]).all()
    assert (spreads[1] > spreads[2]).all()


@pytest.mark.parametrize("reads", ["outputs", "input", "mean"])
def test_padding_plays_no_part(reads):
    model, _ = loaded(mixture(gate_input=reads))
    batch = notes(4).batch(range(4))
    wide = {k: functional.pad(t, (0, 3)) if t.dim() == 2 else t for k, t in batch.items()}
    wide["input_ids"][:, -3:] = 7
    torch.testing.assert_close(losses(model)(wide), losses(model)(batch), atol=1e-12, rtol=1e-12)


class Two(torch.nn.Module):
    """Two layers of one map each, or the same one twice."""

    def __init__(self, order=(0, 1), again: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.order, self.again = order, again

    def forward(self, x, attention_mask):
        for i in self.order:
            layer = self.layer[i]
            read = torch.tanh(x)
            x = checkpoint(layer, read, use_reentrant=False) if self.again else layer(read)
        return x


def two_layers(**kind):
    torch.manual_seed(0)
    whole = Two(**kind).double()
    places = [Site(f"layer.{i}", whole.layer[i], WIDTH, WIDTH) for i in range(2)]
    g = torch.Generator().manual_seed(1)
    three = tuple(
        Expert(
            str(i),
            {
                s.name: LowRank(
                    torch.randn(WIDTH, 2, generator=g), torch.randn(2, WIDTH, generator=g)
                )
                for s in places
            },
        )
        for i in range(3)
    )
    mole = Experts(experts=three, balance_weight=0.5)
    model = inject(whole, places, [], mole)
    model.load(Factors({k: torch.randn(p.shape, generator=g) for k, p in model.tensors.items()}))
    return model


def test_a_gate_for_each_layer_and_one_balance_term_for_all():
    model = two_layers()
    x, mask = torch.randn(4, 3, WIDTH), torch.ones(4, 3)
    model.model(x=x, attention_mask=mask)
    gates = [model.context.lasting["gates", f"layer.{i}"] for i in range(2)]
    assert not torch.allclose(*gates)
    (penalty,) = (give() for give in model.context.penalties.values())
    q = torch.stack(gates).mean(dim=0)
    torch.testing.assert_close(penalty, -0.5 * q.log().sum(dim=1))


def test_layers_that_are_computed_again_decide_as_before():
    x, mask = torch.randn(4, 3, WIDTH), torch.ones(4, 3)
    rows = []
    for again in (False, True):
        model = two_layers(again=again)
        model.train_only({Role.GATE})
        with model.sink.collect(4) as found:
            out = model.model(x=x, attention_mask=mask)
            (out.square().sum((1, 2)) + model.context.penalty()).sum().backward()
            rows.append(dict(found))
    assert rows[0].keys() == rows[1].keys() == model.tensors.keys()
    for key, tensor in rows[0].items():
        torch.testing.assert_close(tensor, rows[1][key])


def test_a_layer_that_is_used_again_is_weighed_for_each_use_in_one_term():
    model = two_layers(order=(0, 0, 0))
    x, mask = torch.randn(4, 3, WIDTH), torch.ones(4, 3)
    decided = []
    gate = model.layers["layer.0"].gate
    gate.register_forward_hook(lambda _, __, gates: decided.append(gates))
    model.model(x=x, attention_mask=mask)
    assert len(decided) == 3
    q = torch.stack(decided).mean(dim=0)
    torch.testing.assert_close(model.context.penalty(), -0.5 * q.log().sum(dim=1))


def write_expert(folder, lora: LoRA, seed: int = 3):
    """As a run leaves it; gives its pairs."""
    factors = random_factors(lora, seed).map(lambda t: t.float())
    toy = Toy()
    layout = PeftLayout(
        base_model="toy",
        task_type=None,
        target_modules=["up", "down"],
        modules_to_save=["classifier"],
        head_scale=1.0,
    )
    save_peft(folder, factors, lora, sites(toy), layout)
    return factors


def test_an_adapter_folder_is_an_expert_with_its_own_scale(tmp_path):
    for rslora in (False, True):
        lora = LoRA(rank=4, alpha=6.0, rslora=rslora)
        factors = write_expert(tmp_path / str(rslora), lora)
        expert = load_expert(str(tmp_path / str(rslora)), "toy")
        assert expert.pairs.keys() == {"up", "down"}, "no heads"
        for site, pair in expert.pairs.items():
            torch.testing.assert_close(pair.dense(), lora.scale * factors.pair(site).dense())
    assert load_expert(str(tmp_path / "True"), "toy").digest() == expert.digest()
    assert load_expert(str(tmp_path / "False"), "toy").digest() != expert.digest()


def test_an_expert_of_another_base_is_refused_and_a_base_in_another_folder_is_the_same(tmp_path):
    folder = str(tmp_path / "expert")
    write_expert(tmp_path / "expert", LoRA(rank=4))
    assert load_expert(folder, "/models/toy").pairs
    with pytest.raises(ValueError, match=r"made for toy, .* beside toy-large; .*adapter_config"):
        load_expert(folder, "toy-large")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"bias": "lora_only"}, "its biases are trained"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4 also changes the base"),
        ({"init_lora_weights": "olora"}, "olora also changes the base"),
        ({"use_dora": True}, "DoRA scales"),
        ({"trainable_token_indices": [3]}, "its tokens are trained"),
    ],
)
def test_what_peft_adds_beside_a_pair_is_not_left_out_without_a_word(tmp_path, more, words):
    write_expert(tmp_path, LoRA(rank=4))
    file = tmp_path / "adapter_config.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps({**written, "init_lora_weights": "gaussian", "bias": "none"}))
    assert load_expert(str(tmp_path), "toy").pairs
    file.write_text(json.dumps({**written, **more}))
    with pytest.raises(ValueError, match=rf"experts: .*{words}"):
        load_expert(str(tmp_path), "toy")


def test_what_does_not_fit_is_refused_in_words(tmp_path):
    toy = Toy().double()
    one, two, _ = experts()
    wide = LowRank(torch.zeros(INNER + 1, 1), torch.zeros(1, WIDTH))
    cases = [
        ((one,), "list two adapter folders or more"),
        ((one, Expert("x", {"up": two.pairs["up"]})), r"x has nothing at down; adapt only"),
        ((one, Expert("x", {**two.pairs, "more": wide})), r"x also adapts more"),
        ((one, Expert("x", {**two.pairs, "up": wide})), r"x has a pair of shape \(11, 6\) at up"),
    ]
    for given, words in cases:
        with pytest.raises(ValueError, match=rf"experts: .*{words}|{words}"):
            inject(toy, sites(toy), heads(toy), Experts(experts=given))
    with pytest.raises(ValueError, match=r"masked_experts: e9 is none of the experts"):
        mixture("e9")
    with pytest.raises(ValueError, match=r"masked_experts: one expert at least"):
        mixture("e0", "e1", "e2")
    with pytest.raises(ValueError, match=r"experts: .*cannot be read"):
        load_expert(str(tmp_path / "nothing"), "toy")
    model, _ = loaded(mixture())
    with pytest.raises(ValueError, match="cannot be merged"):
        model.layers["up"].delta()
    with pytest.raises(ValueError, match="folded nowhere"):
        model.layers["up"].fold(torch.zeros(10, 6))
