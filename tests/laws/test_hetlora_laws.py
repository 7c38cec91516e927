"""HetLoRA: padded means and weights by norm, against numpy; ranks of their own, whole rounds."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from silotune.aggregation import Mean, Padded
from silotune.core import ClientId, Factors, Key, Role
from silotune.engine import federate
from silotune.engine.channel import RefusedUpdateError
from silotune.engine.server import SMALLEST_WEIGHT, server_step, statistics_of
from silotune.methods import IncompatibleMethodError
from silotune.methods.axes import refuse_unproved
from silotune.optim import SGD
from silotune.runtimes import InProcess
from toys import adapter, axes, begin, experiment, silos, trainer

RANKS = {ClientId("silo-0"): 1, ClientId("silo-1"): 3, ClientId("silo-2"): 2}
WEIGHTS = (1.0, 2.0, 3.0)  # as in the toy experiment


def method(**options):
    return axes("hetlora", SGD(lr=0.3), adapter(rank=3, alpha=6.0), **options)


def update(state, rank, seed):
    g = torch.Generator().manual_seed(seed)
    own = state.factors.cut(rank)
    return own.map(lambda t: t + torch.randn(t.shape, generator=g, dtype=t.dtype))


def padded(factors, site):
    b, a = (factors[Key(site, role)].numpy() for role in (Role.B, Role.A))
    lacking = 3 - len(a)
    return np.pad(b, ((0, 0), (0, lacking))), np.pad(a, ((0, lacking), (0, 0)))


@pytest.mark.parametrize("norm_weights", [True, False])
def test_it_is_the_weighted_mean_of_pairs_with_zeros(norm_weights):
    a = method(norm_weights=norm_weights)
    exp, state = experiment(a, list(RANKS), ranks=RANKS), begin(a)
    sent = [update(state, rank, seed) for seed, rank in enumerate(RANKS.values())]
    parts = [statistics_of(exp, x, w) for x, w in zip(sent, WEIGHTS, strict=True)]
    after, error = server_step(exp, state, (parts[0] + parts[1] + parts[2]).mean(), ())
    pairs = {site: [padded(x, site) for x in sent] for site in ("up", "down")}
    weights = np.array(WEIGHTS)
    if norm_weights:
        each = [[np.linalg.norm(b @ a) for b, a in pairs[site]] for site in pairs]
        weights = np.sqrt(np.square(each).sum(0))
    weights = weights / weights.sum()
    gap = size = 0.0
    for site, clients in pairs.items():
        b = sum(w * b for w, (b, _) in zip(weights, clients, strict=True))
        a_ = sum(w * a for w, (_, a) in zip(weights, clients, strict=True))
        ideal = sum(w * b @ a for w, (b, a) in zip(weights, clients, strict=True))
        np.testing.assert_allclose(after.factors[Key(site, Role.B)].numpy(), b, atol=1e-12)
        np.testing.assert_allclose(after.factors[Key(site, Role.A)].numpy(), a_, atol=1e-12)
        gap, size = gap + np.linalg.norm(ideal - b @ a_) ** 2, size + np.linalg.norm(ideal) ** 2
    assert error == pytest.approx(np.sqrt(gap / size))


def test_equal_ranks_and_public_weights_are_the_plain_mean():
    plain = axes("fedit", SGD(lr=0.3), adapter(rank=3, alpha=6.0))
    assert replace(method(norm_weights=False), aggregator=Mean()) == plain
    ends = []
    for a in (plain, method(norm_weights=False)):
        runtime = InProcess(trainer(a), silos())
        exp = experiment(a, runtime.clients(), rounds=2)
        ends.append([done.state.factors.digest() for done in federate(exp, runtime, begin(a))])
    assert ends[0] == ends[1]


def test_silos_of_unequal_ranks_train_what_fits_them():
    a = method()
    runtime = InProcess(trainer(a), silos())
    exp = experiment(a, runtime.clients(), rounds=3, ranks=RANKS)
    state = begin(a)
    for done in islice(federate(exp, runtime, state), 3):
        moved = done.state.factors
        assert {len(moved[Key(site, Role.A)]) for site in ("up", "down")} == {3}
        assert all(not torch.equal(moved[key], state.factors[key]) for key in moved)
        state = done.state


def test_clients_without_products_count_alike():
    a = method()
    exp, state = experiment(a, list(RANKS)), begin(a)
    assert not any(t.any() for t in state.factors.only({Role.B}).values())
    part = statistics_of(exp, state.factors, 7.0)
    assert part.weight == SMALLEST_WEIGHT
    mean = (part + part).mean().first
    torch.testing.assert_close(dict(mean), dict(state.factors))


def test_products_larger_than_any_training_makes_are_refused():
    a = method()
    exp, state = experiment(a, list(RANKS)), begin(a)
    wild = state.factors.map(lambda t: torch.full_like(t, 1e5))
    with pytest.raises(RefusedUpdateError, match="too large"):
        statistics_of(exp, wild, 1.0)


def test_padding_undoes_cutting_but_for_what_was_cut():
    factors = Factors({k: torch.ones_like(t) for k, t in begin(method()).factors.items()})
    back = factors.cut(2).padded(3)
    for key, t in factors.items():
        kept = back[key]
        assert kept.shape == t.shape
        if key.role in (Role.A, Role.B):
            assert kept.sum() == t.sum() * 2 / 3


def test_secret_weights_are_refused_where_clients_are_hidden():
    with pytest.raises(IncompatibleMethodError, match="norm_weights"):
        refuse_unproved(method(), "client")
    for unit, options in (("client", {"norm_weights": False}), ("example", {}), ("none", {})):
        refuse_unproved(method(**options), unit)
    assert Padded().rule.weighs_by_norm
