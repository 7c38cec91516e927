"""Chains of pairs (COLA, RAC-LoRA) and boosters (XGBLoRA): what a knot does, and what it does not.

Everything is in double precision unless a law says otherwise; alpha/r is 3.
"""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from silotune.adapters import Init, LoRA, inject
from silotune.core import (
    Factors,
    GlobalState,
    Key,
    Phase,
    Role,
    RoundPlan,
    decode_task,
    encode_task,
    unpack,
)
from silotune.engine import federate
from silotune.engine.loop import bytes_to, make_tasks
from silotune.engine.server import server_step
from silotune.federation.method_costs import costs
from silotune.linalg import dense
from silotune.methods import IncompatibleMethodError
from silotune.optim import SGD, AdamW
from silotune.privacy import NoPrivacy
from silotune.runtimes import InProcess
from silotune.schedules import Boost
from toys import (
    CLASSIFY,
    Toy,
    adapter,
    axes,
    begin,
    experiment,
    first_factors,
    heads,
    silos,
    sites,
    trainer,
)

STEP = SGD(lr=0.3)
ADAM = AdamW(lr=0.02)
NEVER = 10**6
CHAINS = {"cola": {"fold_every": 3}, "rac-lora": {"fold_every": 3}}
PAIR = (Role.A, Role.B)

chains = pytest.mark.parametrize("method", sorted(CHAINS))
folding = pytest.mark.parametrize(
    ("method", "options"), [*CHAINS.items(), ("xgblora", {})], ids=lambda v: str(v)[:8]
)


def run(a, rounds, n=3, state=None, **changes):
    """The states after each round."""
    runtime = InProcess(trainer(a), silos(n))
    exp = experiment(a, runtime.clients(), rounds=rounds, **changes)
    return [done.state for done in federate(exp, runtime, state or begin(a))]


def logits(a, state: GlobalState) -> torch.Tensor:
    b = trainer(a)
    b.adapted.load(state.factors, state.folded)
    batch = silos(1)["silo-0"].train.batch(range(6))
    return b.adapted.model(batch["input_ids"], batch["attention_mask"]).logits.detach()


# ---- a knot


@chains
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_a_knot_does_not_change_the_function(method, dtype, close):
    """The same rounds, with a fold after the last of them and without."""
    torch.set_default_dtype(dtype)
    tied = run(axes(method, STEP, fold_every=3), 3)[-1]
    loose = run(axes(method, STEP, fold_every=NEVER), 3)[-1]
    assert tied.folded
    assert not loose.folded
    a = axes(method, STEP)
    torch.testing.assert_close(logits(a, tied), logits(a, loose), atol=close, rtol=close)
    start = logits(a, begin(a))
    assert (logits(a, loose) - start).abs().max() > 0.01, "or nothing was learned"


@folding
def test_after_a_knot_the_pair_is_a_fresh_one(method, options):
    a = axes(method, STEP, **options)
    before, after = run(a, 3)[-2:]
    for site in ("up", "down"):
        assert not after.factors[Key(site, Role.B)].any()
        old, new = (state.factors[Key(site, Role.A)] for state in (before, after))
        assert (old - new).abs().min() > 0.0, "no number is left of the last one"
        assert {Key(site, role) for role in PAIR} <= after.drawn.keys(), "so that a seed travels"
        drawn = first_factors(a.adapter, after.drawn[Key(site, Role.A)])[Key(site, Role.A)]
        assert torch.equal(new, drawn)


@chains
def test_a_link_is_training_of_the_merged_model_from_its_beginning(method):
    """Nothing of the last link's optimiser is left, and it is the sum that goes on learning."""
    a = axes(method, ADAM, fold_every=3)
    states = run(a, 5, n=1)
    knot, later = states[2], states[4]
    toy = Toy().double()
    with torch.no_grad():
        for site in ("up", "down"):
            added = a.adapter.scale * dense(knot.folded[site])
            getattr(toy, site).weight += added.T if site == "down" else added
    b = replace(trainer(a), adapted=inject(toy, sites(toy), heads(toy), a.adapter))
    runtime = InProcess(b, silos(1))
    begun = GlobalState(round=3, factors=knot.factors, drawn=knot.drawn)
    again = list(federate(experiment(a, runtime.clients(), rounds=5), runtime, begun))[-1].state
    for key, tensor in again.factors.items():
        torch.testing.assert_close(later.factors[key], tensor, rtol=1e-9, atol=1e-11)


@folding
def test_the_base_is_never_written_to(method, options):
    a = axes(method, STEP, **options)
    b = trainer(a)
    before = {site: layer.weight.clone() for site, layer in b.adapted.layers.items()}
    runtime = InProcess(b, silos())
    done = list(federate(experiment(a, runtime.clients(), rounds=4), runtime, begin(a)))
    assert done[-1].state.folded
    assert all(torch.equal(b.adapted.layers[s].weight, w) for s, w in before.items())


@chains
def test_the_change_has_a_rank_of_r_for_each_link_and_no_more(method):
    a = axes(method, STEP, LoRA(rank=1, alpha=3.0), fold_every=2)
    for rounds, links in ((2, 1), (4, 2), (6, 3)):
        change = dense(run(a, rounds)[-1].folded["up"])
        assert torch.linalg.matrix_rank(change, rtol=1e-9) == links


# ---- COLA and RAC-LoRA


@pytest.mark.parametrize(("chain", "plain"), [("cola", "fedit"), ("rac-lora", "ffa-lora")])
def test_a_chain_of_one_link_is_the_method_without_a_chain(chain, plain):
    one = run(axes(chain, ADAM, fold_every=NEVER), 3)[-1]
    other = run(axes(plain, ADAM), 3)[-1]
    assert one.factors.digest() == other.factors.digest()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_cola_is_the_papers_algorithm(optimizer):
    """Tune, W <- W + s B A, begin a new pair with a new optimiser; one silo, its whole data."""
    ours = SGD(lr=0.05) if optimizer is torch.optim.SGD else AdamW(lr=0.05)
    a = axes("cola", ours, fold_every=1)
    silo = silos(1)["silo-0"]
    whole = replace(silo, privacy=NoPrivacy(batch_size=10**6))
    runtime = InProcess(trainer(a), {silo.client: whole})
    exp = experiment(a, runtime.clients(), rounds=3)
    states = [begin(a), *(done.state for done in federate(exp, runtime, begin(a)))]
    batch = silo.train.batch(range(len(silo.train.lengths)))
    toy, scale = Toy().double().requires_grad_(False), a.adapter.scale
    for state in states[:-1]:
        pairs = {k: t.clone().requires_grad_() for k, t in state.factors.items() if k.role in PAIR}
        head = [p.requires_grad_() for p in toy.classifier.parameters()]
        torch_s = optimizer([*pairs.values(), *head], lr=0.05, weight_decay=0.0)

        def added(site, pairs=pairs):
            return scale * pairs[Key(site, Role.B)] @ pairs[Key(site, Role.A)]

        for _ in range(exp.local_steps):
            torch_s.zero_grad()
            weights = {
                "up.weight": toy.up.weight + added("up"),
                "down.weight": toy.down.weight + added("down").T,
            }
            call = torch.func.functional_call(
                toy, weights, (batch["input_ids"], batch["attention_mask"])
            )
            torch.nn.functional.cross_entropy(call.logits, batch["labels"]).backward()
            torch_s.step()
        with torch.no_grad():
            toy.up.weight += added("up")
            toy.down.weight += added("down").T
    found = states[-1]
    base = Toy().double()
    for site, end, start in (
        ("up", toy.up.weight, base.up.weight),
        ("down", toy.down.weight.T, base.down.weight.T),
    ):
        torch.testing.assert_close(
            scale * dense(found.folded[site]), end - start, rtol=1e-7, atol=1e-10
        )
    head = found.factors[Key("classifier", Role.HEAD, "weight")]
    torch.testing.assert_close(head, toy.classifier.weight, rtol=1e-7, atol=1e-10)


def test_rac_lora_is_exact_and_cola_is_not():
    error = {}
    for method in CHAINS:
        a = axes(method, STEP, fold_every=2)
        runtime = InProcess(trainer(a), silos())
        done = list(federate(experiment(a, runtime.clients(), rounds=4), runtime, begin(a)))
        error[method] = [r.aggregation_error for r in done]
    assert max(error["rac-lora"]) == 0.0
    assert min(error["cola"]) > 1e-4


def test_a_link_of_rac_lora_is_a_step_in_a_random_subspace():
    """W' = W - eta s^2 G A^T A, for one SGD step; with A A^T = I the map is a projection."""
    lora = LoRA(rank=2, alpha=3.0, init=Init.ORTHONORMAL)
    a = axes("rac-lora", STEP, lora, fold_every=1)
    silo = silos(1)["silo-0"]
    whole = replace(silo, privacy=NoPrivacy(batch_size=10**6))
    runtime = InProcess(trainer(a), {silo.client: whole})
    exp = experiment(a, runtime.clients(), rounds=4, local_steps=1)
    batch = silo.train.batch(range(len(silo.train.lengths)))
    state = begin(a)
    for done in federate(exp, runtime, state):
        toy = Toy().double()
        with torch.no_grad():
            for site, matrix in state.folded.items():
                added = lora.scale * dense(matrix)
                getattr(toy, site).weight += added.T if site == "down" else added
            toy.classifier.weight.copy_(state.factors[Key("classifier", Role.HEAD, "weight")])
            toy.classifier.bias.copy_(state.factors[Key("classifier", Role.HEAD, "bias")])
        CLASSIFY.losses(toy, batch).mean().backward()
        for site, grad in (("up", toy.up.weight.grad), ("down", toy.down.weight.grad.T)):
            rows = state.factors[Key(site, Role.A)]
            torch.testing.assert_close(rows @ rows.T, torch.eye(2), atol=1e-6, rtol=0)
            step = -0.3 * lora.scale**2 * grad @ rows.T @ rows
            found = lora.scale * dense(done.state.latest.folded[site])
            torch.testing.assert_close(found, step, rtol=1e-9, atol=1e-12)
        state = done.state


# ---- XGBLoRA

LAYERS = [f"encoder.layer.{i}.{part}" for i in range(12) for part in ("query", "mlp.0", "mlp.2")]
LINK = RoundPlan(phases=(Phase(roles=frozenset(PAIR)),), share=frozenset(PAIR))


def layer(site: str) -> int:
    return int(site.split(".")[2])


@pytest.mark.parametrize(("layers", "number"), [(None, 4), (1, 1), (5, 5), (12, 12)])
def test_all_sites_of_so_many_layers_are_drawn(layers, number):
    boost = Boost(link=LINK, layers=layers)
    for r in range(20):
        drawn = boost.drawn(r, LAYERS)
        chosen = {layer(site) for site in drawn}
        assert len(chosen) == number
        assert drawn == tuple(site for site in LAYERS if layer(site) in chosen)
        still = {key.site for key in boost.plan(r, LAYERS).fixed}
        assert still == set(LAYERS) - set(drawn)


def test_every_layer_is_drawn_as_often_as_any_other():
    """Without replacement, uniformly: 4 of 12 in 1200 rounds; six standard deviations are 98."""
    boost = Boost(link=LINK)
    found = Counter(layer(site) for r in range(1200) for site in set(boost.drawn(r, LAYERS)))
    assert set(found) == set(range(12))
    assert all(abs(n / 3 - 400) < 98 for n in found.values())


def test_the_seed_and_the_round_decide_and_nothing_else():
    one, same, other = (Boost(link=LINK, seed=seed) for seed in (3, 3, 4))
    assert all(one.plan(r, LAYERS) == same.plan(r, LAYERS) for r in range(20))
    assert any(one.drawn(r, LAYERS) != other.drawn(r, LAYERS) for r in range(20))
    assert len({one.drawn(r, LAYERS) for r in range(20)}) > 10


def test_stacks_are_told_apart_and_a_site_in_no_layer_is_one_by_itself():
    boost = Boost(link=LINK, layers=3)
    assert set(boost.drawn(0, ["a.0.q", "b.0.q", "out"])) == {"a.0.q", "b.0.q", "out"}
    with pytest.raises(ValueError, match=r"booster_layers: 3 layers .* only 2"):
        boost.plan(0, ["a.0.q", "a.1.q"])
    with pytest.raises(ValueError, match=r"booster_layers: must be at least 1, not 0"):
        Boost(link=LINK, layers=0)


def boosting(optimizer=STEP, lora=None, **options):
    return axes("xgblora", optimizer, lora or LoRA(rank=1, alpha=3.0), **options)


def test_every_client_is_given_the_same_orders():
    a = boosting()
    exp = experiment(a, list(silos()))
    for r in range(6):
        state = replace(begin(a), round=r)
        tasks = [decode_task(encode_task(t)) for t in make_tasks(exp, exp.clients, state)]
        assert len({frozenset(task.plan.fixed) for task in tasks}) == 1
        assert tasks[0].plan.fixed == exp.plan(r).fixed != frozenset()


def test_only_drawn_sites_have_gradients_travel_and_are_folded():
    a = boosting()
    runtime = InProcess(trainer(a), silos())
    exp = experiment(a, runtime.clients(), rounds=9)
    seen = set()
    for r, done in enumerate(federate(exp, runtime, begin(a))):
        (drawn,) = a.schedule.drawn(r, exp.sites)
        seen.add(drawn)
        plan, adapted = exp.plan(r), runtime.trainer.adapted
        trained = adapted.train_only(plan.phases[0].roles, plan.fixed)
        assert {key.site for key in trained} == {drawn, "classifier"}
        pooled = done.pooled.statistics
        assert {key.site for key in pooled.first} == {drawn, "classifier"}
        assert pooled.product.keys() == {drawn} == done.state.latest.folded.keys()
    assert seen == {"up", "down"}, "or this test shows half of it"


@pytest.mark.parametrize("clients", [1, 2])
def test_the_change_has_a_rank_of_its_draws_for_each_client(clients):
    a = boosting(lora=LoRA(rank=1, alpha=3.0))
    state = run(a, 9, n=clients)[-1]
    draws = Counter(a.schedule.drawn(r, ("up", "down"))[0] for r in range(9))
    for site, times in draws.items():
        most = min(6, times * clients)  # the sites are 10 x 6 and 6 x 10
        assert torch.linalg.matrix_rank(dense(state.folded[site]), rtol=1e-9) <= most
    assert min(draws.values()) < 6, "or any matrix would do"
    assert torch.linalg.matrix_rank(dense(state.folded["up"]), rtol=1e-9) > 1


def test_boosters_of_all_layers_are_flora():
    lora = LoRA(rank=1, alpha=3.0)
    every = run(boosting(lora=lora, booster_layers=2), 3)[-1]
    flora = run(axes("flora", STEP, lora, initial_a="shared"), 3)[-1]
    for site in ("up", "down"):
        torch.testing.assert_close(dense(every.folded[site]), dense(flora.folded[site]))
    heads_ = [s.factors.only({Role.HEAD}).digest() for s in (every, flora)]
    assert heads_[0] == heads_[1]


def test_clients_may_have_ranks_of_their_own():
    a = boosting(lora=adapter(rank=2, alpha=6.0))
    ranks = {"silo-0": 1, "silo-1": 2, "silo-2": 1}
    state = run(a, 1, ranks=ranks)[-1]
    (site,) = state.folded
    assert torch.linalg.matrix_rank(dense(state.folded[site])) == 1 + 2 + 1


def test_what_is_not_drawn_costs_no_number_either_way():
    """Its fresh pair is the seed's; only names travel."""
    a = boosting(lora=adapter(rank=3, alpha=9.0), booster_layers=1)
    exp = experiment(a, list(silos()), rounds=9)
    state, sizes = begin(a), {}
    for _ in range(9):
        tasks = make_tasks(exp, exp.clients, state)
        task = tasks[0]
        sent = task.plan.shared(state.factors)
        mean = _moments(sent)
        state, _ = server_step(exp, state, mean, exp.clients)
        assert not state.drawn.keys() & {k for k in state.factors if k.role is Role.HEAD}
        following = make_tasks(exp, exp.clients, state)[0]
        assert {k.role for k in following.factors} == {Role.HEAD}, "all pairs are the seed's"
        folds = state.latest.folded, state.folded  # what is new, or all of it where that is less
        numbers = min(sum(m.left.numel() + m.right.numel() for m in f.values()) for f in folds)
        numbers += state.factors.only({Role.HEAD}).num_elements()
        tensors, _ = unpack(encode_task(following, leaning_on="0" * 64))
        assert tensors.num_elements() == numbers
        sizes[state.round] = bytes_to(following, state) - 8 * numbers
    assert max(sizes.values()) < 2500


def _moments(sent: Factors):
    from silotune.core import Statistics

    moved = Factors({k: t + 0.1 * (i + 1) for i, (k, t) in enumerate(sent.items())})
    return Statistics.of(moved, 1.0).mean()


def test_costs_are_of_the_layers_that_are_drawn():
    from silotune.core import Site

    module = torch.nn.Linear(64, 64, device="meta")
    names = [f"layer.{i}.{part}" for i in range(6) for part in ("query", "value")]
    told = {c.method: c for c in costs([Site(n, module, 64, 64) for n in names], 64, 3, 4).methods}
    number = 4 * 4 * (64 + 64)  # bytes of one pair of rank 4
    assert 4 * number < told["xgblora"].usual.up < 4 * number + 2500, "2 of 6 layers, 2 sites each"
    assert 12 * number < told["flora"].usual.up < 12 * number + 5000


def test_noise_that_hangs_together_over_rounds_needs_the_same_tensors():
    from silotune.privacy import ClientLevel, Correlated, Rotation

    central = ClientLevel(
        clients=3, sampling=Rotation(1), noise=Correlated(1.0, 2), max_update_norm=0.1
    )
    changes = {"weights": dict.fromkeys(silos(), 1.0), "private": True, "central": central}
    with pytest.raises(IncompatibleMethodError, match=r"noise: correlated"):
        experiment(boosting(), list(silos()), rounds=9, **changes)
    experiment(axes("flora", STEP), list(silos()), rounds=9, **changes)
