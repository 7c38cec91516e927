"""DP-FedAvg: bounds, noise and denominator of the released mean; what it costs."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from covering import full
from silotune.core import ClientId, Factors, Key, Role, Statistics
from silotune.linalg import dense
from silotune.privacy import Correlated, CorrelatedCharge, Gaussian, NoiseState, Poisson, Rotation
from silotune.privacy.accounting.accountant import COARSE, epsilon
from silotune.privacy.accounting.calibration import calibrate
from silotune.privacy.accounting.charges import Charge
from silotune.privacy.mechanisms.dp_fedavg import CLIPPING_NORM, WITHIN, ClientLevel
from silotune.privacy.mechanisms.matrix_factorization import CorrelatedStream, sensitivity
from silotune.privacy.mechanisms.secure_rng import Randomness
from silotune.privacy.mechanisms.server import FullParticipation, RoundStart

pytestmark = pytest.mark.usefixtures("same_secrets")

OUT, IN, RANK = 7, 5, 2
A, B, HEAD = Key("q", Role.A), Key("q", Role.B), Key("head", Role.HEAD, "bias")
EVERYBODY = {"clients": 4, "sampling": Poisson(1.0)}
PAST = NoiseState(b"k" * 32, 5)


def tensors(seed: int, scale: float = 1.0) -> Factors:
    g = torch.Generator().manual_seed(seed)
    shapes = {A: (RANK, IN), B: (OUT, RANK), HEAD: (3,)}
    return Factors({k: torch.randn(s, generator=g) * scale for k, s in shapes.items()})


def before(start: Factors, memory=None, *, product: bool = False) -> RoundStart:
    shared = Statistics.of(start, 1.0)
    return RoundStart(5, shared if product else replace(shared, product={}), memory or {})


def flat(statistics) -> torch.Tensor:
    """Every number that is clipped together, in float64."""
    parts = [t for k, t in statistics.first.items() if k != WITHIN]
    parts += [dense(m) for m in statistics.product.values()]
    return torch.cat([t.double().flatten() for t in parts])


def true_change(start: Factors, sent: Factors, *, product: bool) -> torch.Tensor:
    """The same by hand, dense."""
    old, new = start.map(lambda t: t.double()), sent.map(lambda t: t.double())
    parts = [(new[k] - old[k]).flatten() for k in new]
    if product:
        parts.append((new[B] @ new[A] - old[B] @ old[A]).flatten())
    return torch.cat(parts)


def silent(bound: float = math.inf, **changes) -> ClientLevel:
    return noised(0.0, bound, **changes)


def noised(z: float, bound: float = 1.0, **changes) -> ClientLevel:
    return ClientLevel(**(EVERYBODY | changes), noise=Gaussian(z), max_update_norm=bound)


def turning(z: float, bands: int, turns: int = 1, bound: float = 1.0, **changes) -> ClientLevel:
    kinds = {"sampling": Rotation(turns), "noise": Correlated(z, bands)}
    return ClientLevel(**(EVERYBODY | kinds | changes), max_update_norm=bound)


def released(mechanism, updates, start, *, product=False, memory=None):
    place = before(start, memory, product=product)
    total = None
    for update in updates:
        part = mechanism.bound(Statistics.of(update, 1.0), place)
        total = part if total is None else total + part
    return averaged(mechanism, total, place)


def averaged(mechanism, total, place, past=PAST):
    return mechanism.mean(total, place, mechanism.draws(place.round, past))


def cohort(mechanism, n, round, past=None):
    return mechanism.cohort(names(n), mechanism.draws(round, past))


# ---- bounding


@given(
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e15]),
    bound=st.sampled_from([1e-9, 1e-3, 0.5, 10.0]),
    weight=st.floats(0.1, 50.0),
    product=st.booleans(),
)
def test_no_client_moves_the_sum_by_more_than_the_bound(seed, scale, bound, weight, product):
    """Also on the lifted vector, against the dense (out, in) matrix in float64."""
    start = tensors(seed)
    sent = start.zip(tensors(seed + 1, scale), lambda a, b: a + b)
    mechanism, place = silent(bound), before(start, product=product)
    part = mechanism.bound(Statistics.of(sent, weight), place)
    assert set(part.product) == ({"q"} if product else set())
    norm = flat(part).norm().item()
    true = true_change(start, sent, product=product)
    assert norm <= bound * (1 + 1e-9)
    if scale >= 1e-3:  # below, float32 and the guard against cancellation take their part
        assert norm >= min(true.norm().item(), bound) * (1 - 1e-6)
        torch.testing.assert_close(
            flat(part), true * min(1.0, bound / true.norm().item()), rtol=1e-6, atol=bound * 1e-6
        )


def test_the_lifted_vector_is_clipped_with_one_factor():
    """The product alone would pass, and the factors alone would pass, but not both together."""
    start, sent = tensors(0), tensors(1)
    first, whole = (true_change(start, sent, product=p).norm().item() for p in (False, True))
    bound = (first + whole) / 2
    mechanism = silent(bound)
    assert flat(mechanism.bound(Statistics.of(sent, 1.0), before(start))).norm() == pytest.approx(
        first
    )
    together = mechanism.bound(Statistics.of(sent, 1.0), before(start, product=True))
    assert flat(together).norm() == pytest.approx(bound)


def test_what_is_clipped_is_the_change_and_not_the_state():
    start = tensors(0, 100.0)
    part = silent(1.0).bound(Statistics.of(start, 1.0), before(start, product=True))
    assert flat(part).norm() <= 1e-9


def test_a_change_whose_norm_overflows_gives_nothing():
    start = tensors(0).map(lambda t: t.double())
    sent = start.map(lambda t: t * 1e200)
    for product in (False, True):
        part = silent(1.0).bound(Statistics.of(sent, 1.0), before(start, product=product))
        assert torch.equal(flat(part), torch.zeros_like(flat(part)))


# ---- the mean


@pytest.mark.parametrize("product", [False, True])
def test_without_noise_and_bound_it_is_the_mean_over_everyone(product):
    """Bit for bit in float32. In float64, x_t + mean(x_k - x_t) rounds once more than mean(x_k)."""
    start, updates = tensors(0), [tensors(i) for i in range(1, 5)]
    ours = released(silent(), updates, start, product=product).mean
    theirs = released(FullParticipation(), updates, start, product=True).mean
    for key, tensor in theirs.first.items():
        assert torch.equal(ours.first[key].float(), tensor.float())
    for site, matrix in ours.product.items():
        torch.testing.assert_close(matrix, dense(theirs.product[site]), rtol=1e-12, atol=1e-12)
    assert len(ours.product) == int(product)


@pytest.mark.parametrize("product", [False, True])
def test_the_denominator_is_the_expected_cohort_whoever_is_missing(product):
    start, updates = tensors(0), [tensors(i) for i in range(1, 5)]
    parts = [released(silent(), [u], start, product=product).mean for u in updates]
    whole = released(silent(), updates, start, product=product).mean
    for key in start:
        alone = [p.first[key] - start[key].double() for p in parts]
        torch.testing.assert_close(whole.first[key], start[key].double() + sum(alone))
    halved = released(silent(sampling=Poisson(0.5)), updates[:1], start).mean
    torch.testing.assert_close(
        halved.first[B] - start[B].double(), 2 * (parts[0].first[B] - start[B].double())
    )


def test_the_order_of_clients_is_irrelevant():
    start, updates = tensors(0), [tensors(i) for i in range(1, 5)]
    one = released(silent(1.0), updates, start, product=True).mean
    two = released(silent(1.0), updates[::-1], start, product=True).mean
    for key, tensor in one.first.items():
        torch.testing.assert_close(two.first[key], tensor, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(two.product["q"], one.product["q"], rtol=1e-12, atol=1e-12)


def spread_is(draws: torch.Tensor, std: float) -> bool:
    """Whether the standard deviation is ``std``, at five standard errors."""
    return abs(draws.std().item() / std - 1) < 5 / math.sqrt(2 * draws.numel())


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("quantile", [None, 0.5])
def test_the_noise_of_the_mean_is_what_the_accountant_thinks(quantile, product):
    """Accepted at update_noise S / q N in every coordinate, rejected a tenth beside it."""
    mechanism = noised(
        2.0, bound=0.3, clients=100, sampling=Poisson(0.25), target_quantile=quantile
    )
    start, changed = tensors(0), tensors(1)
    place = before(start, product=product)
    quiet = replace(mechanism, noise=Gaussian(0.0))
    part = mechanism.bound(Statistics.of(changed, 1.0), place)

    def mean(m):
        m = averaged(m, part, place).mean
        return torch.cat([t.flatten() for t in (*m.first.values(), *m.product.values())])

    draws = torch.cat([mean(mechanism) - mean(quiet) for _ in range(400)])
    expected = mechanism.update_noise * 0.3 / 25.0
    assert spread_is(draws, expected)
    assert not spread_is(draws, expected * 1.1)
    assert not spread_is(draws, expected / 1.1)
    if quantile:
        assert mechanism.update_noise == pytest.approx((2.0**-2 - 2.5**-2) ** -0.5)
    else:
        assert mechanism.update_noise == 2.0


def test_noise_is_fresh_in_every_draw_unless_it_is_seeded():
    start = tensors(0)
    secret, seeded = noised(1.0), noised(1.0, insecure_seed=3)
    one, two = (released(secret, [], start).mean.first[B] for _ in range(2))
    assert not torch.equal(one, two)
    one, two = (released(seeded, [], start).mean.first[B] for _ in range(2))
    assert torch.equal(one, two)
    later = before(start)._replace(round=6)
    assert not torch.equal(averaged(seeded, None, later).mean.first[B], one)


@pytest.mark.parametrize("product", [False, True])
def test_an_empty_cohort_moves_the_state_by_pure_noise(product):
    start = tensors(0)
    mean = released(noised(1.0, bound=2.0), [], start, product=product).mean
    moved = torch.cat([(mean.first[k] - start[k]).flatten() for k in start])
    assert 0.15 < moved.std().item() < 1.2  # 2 / 4 over 27 numbers
    assert set(mean.product) == ({"q"} if product else set())


# ---- the cohort


def names(n: int) -> list[ClientId]:
    return [ClientId(f"{i:04d}") for i in range(n)]


def test_all_clients_are_asked_at_rate_one_and_few_otherwise():
    assert cohort(noised(1.0), 9, 0) == names(9)
    mechanism = noised(1.0, clients=400, sampling=Poisson(0.1))
    sizes = [len(cohort(mechanism, 400, 0)) for _ in range(200)]
    assert sum(sizes) / 200 == pytest.approx(40, abs=5 * math.sqrt(36 / 200))
    assert len(set(sizes)) > 5, "a cohort of fixed size is not a Poisson sample"
    assert cohort(mechanism, 400, 0) != cohort(mechanism, 400, 0), "secret coins"


def test_seeded_cohorts_differ_between_rounds_only():
    mechanism = noised(1.0, clients=400, sampling=Poisson(0.1), insecure_seed=1)
    assert cohort(mechanism, 400, 2) == cohort(mechanism, 400, 2)
    assert cohort(mechanism, 400, 2) != cohort(mechanism, 400, 3)


# ---- adaptive clipping


@pytest.mark.parametrize(
    ("first", "quantile", "steps"),
    [full(0.01, 0.5, 120), full(100.0, 0.5, 120), (1.0, 0.8, 50)],
)
def test_adaptive_clipping_finds_the_quantile(first, quantile, steps):
    mechanism = noised(
        0.8,
        bound=first,
        clients=50,
        target_quantile=quantile,
        insecure_seed=7,
        sampling=Poisson(0.8),
    )
    start, memory = tensors(0).map(torch.zeros_like), {}
    g = torch.Generator().manual_seed(0)
    norms = torch.rand(50, generator=g).add(0.5).tolist()  # of the clients' changes
    directions = [tensors(i) for i in range(50)]
    lengths = [true_change(start, d, product=False).norm().item() for d in directions]
    found = []
    for step in range(steps):
        place = RoundStart(step, replace(Statistics.of(start, 1.0), product={}), memory)
        asked = [int(c) for c in cohort(mechanism, 50, step)]
        total = None
        for i in asked:
            sent = directions[i].map(lambda t, c=norms[i] / lengths[i]: t * c)
            part = mechanism.bound(Statistics.of(sent, 1.0), place)
            total = part if total is None else total + part
        memory = averaged(mechanism, total, place).memory
        found.append(mechanism.clipping_norm(memory))
    settled = sum(found[-40:]) / 40
    assert settled == pytest.approx(torch.tensor(norms).quantile(quantile).item(), rel=0.1)


def test_the_share_within_the_bound_is_what_was_measured():
    """Two of four are within S = 1: S stays at the median, and leaves it otherwise."""
    start = tensors(0).map(torch.zeros_like)
    unit = tensors(1).map(lambda t: t / true_change(start, tensors(1), product=False).norm())
    sent = [unit.map(lambda t, c=c: t * c) for c in (0.5, 0.9, 2.0, 3.0)]
    for quantile in (0.25, 0.5, 0.75):
        memory = released(silent(1.0, target_quantile=quantile), sent, start).memory
        expected = math.exp(-0.2 * (0.5 - quantile))
        assert memory[CLIPPING_NORM].item() == pytest.approx(expected)


def test_a_client_moves_count_and_change_together_by_no_more_than_z_says():
    """|d|^2 / std_d^2 + (1/2)^2 / std_b^2 <= 1 / z^2 at the bound."""
    m = noised(1.3, bound=0.7, clients=60, target_quantile=0.5)
    start = tensors(0)
    part = m.bound(Statistics.of(tensors(1, 100.0), 1.0), before(start))
    loss = (flat(part).norm() / (m.update_noise * 0.7)) ** 2
    loss += (part.first[WITHIN].abs() / m.count_noise) ** 2
    assert loss.item() == pytest.approx(1 / 1.3**2)


def test_adapting_costs_nothing_more():
    fixed = noised(1.3, clients=60, sampling=Poisson(0.5))
    assert fixed.charge() == replace(fixed, target_quantile=0.5).charge() == Charge(0.5, 1.3, 1)


def test_the_adapted_bound_is_the_one_that_clips_and_scales_the_noise():
    start = tensors(0)
    memory = {CLIPPING_NORM: torch.tensor(0.01, dtype=torch.float64)}
    mechanism = noised(1.0, bound=5.0, clients=60, target_quantile=0.5)
    place = before(start, memory)
    part = mechanism.bound(Statistics.of(tensors(1), 1.0), place)
    assert flat(part).norm().item() == pytest.approx(0.01)
    means = [averaged(mechanism, None, place).mean.first[B] for _ in range(200)]
    draws = [mean - start[B].double() for mean in means]
    assert spread_is(torch.stack(draws), mechanism.update_noise * 0.01 / 60)


# ---- turns, and noise that is correlated over rounds

KEY = b"a secret of thirty-two bytes ..."


@pytest.mark.parametrize("turns", [1, 3])
def test_every_client_takes_part_every_so_many_rounds_and_in_no_other(turns):
    mechanism = turning(1.0, 2, turns, clients=60)
    rounds = [cohort(mechanism, 60, i, NoiseState(KEY, i)) for i in range(4 * turns)]
    for client in names(60):
        asked = [i for i, chosen in enumerate(rounds) if client in chosen]
        assert asked == list(range(asked[0], 4 * turns, turns))
        assert asked[0] < turns
    assert all(chosen == sorted(chosen) for chosen in rounds)
    sizes = [len(chosen) for chosen in rounds[:turns]]
    assert all(abs(size - 60 / turns) < 5 * math.sqrt(60 / turns) for size in sizes)


def test_turns_are_drawn_from_the_key_and_by_place():
    mechanism = turning(1.0, 2, 3, clients=60)
    own = cohort(mechanism, 60, 0, NoiseState(KEY, 0))
    assert cohort(mechanism, 60, 3, NoiseState(KEY, 3)) == own
    assert cohort(mechanism, 60, 0, NoiseState(bytes(32), 0)) != own
    fewer = cohort(mechanism, 40, 0, NoiseState(KEY, 0))
    assert fewer == [client for client in own if client in names(40)]
    seeded = replace(mechanism, insecure_seed=1)
    assert (
        cohort(seeded, 60, 0, NoiseState(KEY, 0))
        == cohort(seeded, 60, 0, NoiseState(bytes(32), 0))
        != own
    )


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("from_the_key", [True, False])
def test_the_noise_of_a_round_is_its_row_of_the_stream(product, from_the_key):
    """Bit for bit, products among it, and also where another process goes on."""
    seed = None if from_the_key else 8
    mechanism = turning(2.0, 3, 2, bound=0.25, insecure_seed=seed)
    start = tensors(0).map(torch.zeros_like)
    g = Randomness(KEY) if from_the_key else Randomness.insecure(8)
    numbers = 2 * 5 + 7 * 2 + 3 + (7 * 5 if product else 0)
    stream = CorrelatedStream(g.fork("noise"), 3, 2.0, 0)
    for i in range(5):
        place = before(start, product=product)._replace(round=i)
        mean = averaged(mechanism, None, place, NoiseState(KEY, i)).mean
        flat = torch.cat([t.flatten() for t in (*mean.first.values(), *mean.product.values())])
        assert torch.equal(flat * 2.0, stream.draw(0.25, numbers)), "4 clients in 2 turns"


def sums(mechanism, rounds, times):
    """Of the noise over so many rounds, (times * 2 * numbers,)."""
    start = tensors(0).map(torch.zeros_like)

    def one(key):
        place = before(start)
        means = [
            averaged(mechanism, None, place._replace(round=i), NoiseState(key, i)).mean
            for i in range(rounds)
        ]
        return torch.cat([sum(mean.first[k] for mean in means).flatten() for k in start])

    return torch.cat([one(i.to_bytes(32, "big")) for i in range(times)])


@pytest.mark.parametrize(("bands", "turns", "rounds"), [(8, 1, 8), full(4, 4, 12)])
def test_noise_cancels_in_the_sum_over_rounds_as_much_as_it_should(bands, turns, rounds):
    """Accepted at |e^T C^-1| z S / q N, rejected at the sqrt(rounds) of independent noise."""
    mechanism = turning(1.5, bands, turns, bound=0.5)
    c = [1.0]
    for k in range(1, bands):
        c.append(c[-1] * (2 * k - 1) / (2 * k))
    matrix = sum(torch.diag(torch.full((rounds - k,), v), -k) for k, v in enumerate(c)).double()
    weights = torch.linalg.solve(matrix.T, torch.ones(rounds, dtype=torch.float64))
    scale = 1.5 * 0.5 / (4 / turns)
    drawn = sums(mechanism, rounds, 120)
    assert spread_is(drawn, weights.norm().item() * scale)
    assert not spread_is(drawn, math.sqrt(rounds) * scale)


@pytest.mark.parametrize("turns", [1, 2])
def test_without_noise_turns_give_the_mean_of_those_whose_turn_it_is(turns):
    start, updates = tensors(0), [tensors(i) for i in range(1, 5)]
    mechanism = turning(0.0, 2, turns, bound=math.inf)
    ours = released(mechanism, updates[: 4 // turns], start).mean
    theirs = released(FullParticipation(), updates[: 4 // turns], start).mean
    for key, tensor in theirs.first.items():
        torch.testing.assert_close(ours.first[key], tensor, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("bands", "turns"), [(5, 1), (3, 4)])
def test_all_rounds_together_cost_one_gaussian(bands, turns):
    charge = turning(4.0, bands, turns, clients=100).charge()
    assert charge == CorrelatedCharge(4.0, 1, bands, turns)
    one = Charge(1.0, 4.0 / sensitivity(bands, turns, 12), 1)
    assert epsilon([charge] * 12, 1e-4) == pytest.approx(epsilon([one], 1e-4), rel=1e-9)


@pytest.mark.parametrize("steps", [4, 6, 0])
def test_a_stream_that_stands_elsewhere_than_the_run_is_refused(steps):
    mechanism = turning(1.0, 2)
    with pytest.raises(ValueError, match=r"would be round 6: .* begin a new run"):
        mechanism.draws(5, NoiseState(KEY, steps))
    mechanism.draws(5, NoiseState(KEY, 5))
    with pytest.raises(ValueError, match="remembers"):
        mechanism.draws(5, None)
    noised(1.0).draws(5, NoiseState(KEY, steps))


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noise": Gaussian(-1.0)}, "noise_multiplier"),
        ({"noise": Gaussian(math.inf)}, "noise_multiplier"),
        ({"noise": Correlated(1.0, 2)}, "belong together"),
        ({"sampling": Rotation(2)}, "belong together"),
        (
            {"sampling": Rotation(2), "noise": Correlated(1.0, 2), "target_quantile": 0.5},
            "adaptive_clipping: correlated noise needs the same clipping norm",
        ),
        ({"max_update_norm": 0.0}, "max_update_norm"),
        ({"max_update_norm": math.inf}, "max_update_norm.*finite"),
        ({"target_quantile": 1.0}, "target_quantile"),
        ({"target_quantile": 0.5, "clients": 10}, r"adaptive_clipping: with 10 clients .* below 1"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, words):
    good = {
        "clients": 100,
        "sampling": Poisson(1.0),
        "noise": Gaussian(1.0),
        "max_update_norm": 1.0,
    }
    ClientLevel(**good)
    with pytest.raises(ValueError, match=words):
        ClientLevel(**(good | changes))


# ---- published noise multipliers

PUBLISHED = [
    (1000, 0.05, 100, (1.64, 0.90, 0.68)),
    (10_000, 0.01, 200, (0.91, 0.65, 0.52)),
    (100, 1.0, 50, (14.3, 6.2, 3.7)),
]
"""Clients, rate, rounds, z for epsilon 1, 3 and 6. They hold for delta = N^-1.1; at 1e-5 the first
row would be 2.14, 1.08, 0.79, and at 1/N 1.55, 0.87, 0.65."""


def price_of(clients, rate, rounds):
    """What a noise multiplier costs."""

    def price(z):
        mechanism = noised(z, clients=clients, sampling=Poisson(rate))
        return replace(mechanism.charge(), steps=rounds)

    return price


@pytest.mark.parametrize(("clients", "rate", "rounds", "sigmas"), PUBLISHED)
def test_published_noise_multipliers_cost_what_they_should(clients, rate, rounds, sigmas):
    """The one that costs so much lies within 1 % of what is published."""
    price = price_of(clients, rate, rounds)

    def cost(z):
        return epsilon([price(z)], clients**-1.1, grid=COARSE)

    for target, sigma in zip((1.0, 3.0, 6.0), sigmas, strict=True):
        assert cost(1.01 * sigma) < target < cost(0.99 * sigma)


@pytest.mark.full
@pytest.mark.parametrize(("clients", "rate", "rounds", "sigmas"), PUBLISHED)
def test_published_noise_multipliers(clients, rate, rounds, sigmas):
    price = price_of(clients, rate, rounds)
    for target, sigma in zip((1.0, 3.0, 6.0), sigmas, strict=True):
        assert calibrate(target, clients**-1.1, price) == pytest.approx(sigma, rel=0.01)
