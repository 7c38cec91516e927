"""What the private step must obey: exact per-example gradients, the bound, the noise."""

import math
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from silotune.core import Key, PerExampleGradients, Role
from silotune.core.outer import Outer
from silotune.engine.batches import PASS_TOKENS, microbatches
from silotune.privacy import (
    Correlated,
    Discrete,
    ExampleLevel,
    Gaussian,
    NoiseState,
    NoPrivacy,
    Poisson,
    Rotation,
)
from silotune.privacy.mechanisms.clipping import accumulate, clipped_sum, clipped_sums
from toys import CLASSIFY, adapted, adapter, notes, random_factors

pytestmark = pytest.mark.usefixtures("same_secrets")

ROLES = [{Role.B}, {Role.A}, {Role.A, Role.B}, {Role.HEAD}, {Role.B, Role.HEAD}, set(Role)]
BOUND = 0.05


STILL = frozenset({Key("classifier", Role.HEAD, "bias")})


def truth(roles, bound: float, records, indices, head_scale: float = 1.0, fixed=frozenset()):
    """One record after another, by ordinary autograd, all tensors clipped together."""
    model = adapted(adapter(), head_scale)
    model.load(random_factors(adapter(), 1))
    trained = model.train_only(roles, fixed)
    total = {key: torch.zeros_like(p) for key, p in trained.items()}
    for i in indices:
        loss = CLASSIFY.losses(model.model, records.batch([i])).sum()
        grads = torch.autograd.grad(loss, list(trained.values()))
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
        for key, g in zip(trained, grads, strict=True):
            total[key] += g * min(1.0, bound / norm)
    return total


def ours(
    roles,
    bound: float,
    records,
    indices,
    *,
    micro_batch=3,
    head_scale=1.0,
    unmerged=False,
    fixed=frozenset(),
):
    model = adapted(adapter(), head_scale)
    if unmerged:
        for layer in (model.model.up, model.model.down):
            layer.forward = lambda x, own=layer: own._beside(x, 0.0)
    model.load(random_factors(adapter(), 1))
    model.train_only(roles, fixed)
    parts = microbatches(indices, records.lengths, micro_batch, PASS_TOKENS["cpu"])
    return accumulate(
        model.sink,
        lambda batch: CLASSIFY.losses(model.model, batch),
        (records.batch(part) for part in parts),
        bound,
    )


@pytest.mark.parametrize("unmerged", [False, True], ids=["merged", "unmerged"])
@pytest.mark.parametrize("bound", [BOUND, 0.5, math.inf])
@pytest.mark.parametrize("roles", ROLES, ids=lambda r: "+".join(sorted(r)))
def test_the_clipped_sum_is_that_of_the_naive_loop(roles, bound, unmerged):
    records = notes(9)
    expected = truth(roles, bound, records, range(9), head_scale=0.5)
    sums = ours(roles, bound, records, range(9), unmerged=unmerged, head_scale=0.5).sums
    assert sums.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(sums[key], tensor, atol=1e-10, rtol=1e-5)


@pytest.mark.parametrize("roles", [{Role.HEAD}, {Role.B, Role.HEAD}], ids=["head", "both"])
def test_a_bias_that_stays_is_no_part_of_the_norm(roles):
    records = notes(9)
    expected = truth(roles, BOUND, records, range(9), fixed=STILL)
    sums = ours(roles, BOUND, records, range(9), fixed=STILL).sums
    assert sums.keys() == expected.keys()
    assert not STILL & sums.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(sums[key], tensor, atol=1e-10, rtol=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 2, 5, 9, 100])
def test_micro_batches_do_not_change_the_sum(micro_batch):
    records = notes(9)
    whole = ours(set(Role), BOUND, records, range(9), micro_batch=9).sums
    cut = ours(set(Role), BOUND, records, range(9), micro_batch=micro_batch).sums
    for key, tensor in whole.items():
        torch.testing.assert_close(cut[key], tensor, atol=1e-13, rtol=1e-9)


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), bound=st.floats(1e-3, 10.0))
def test_no_record_moves_the_sum_by_more_than_the_bound(seed, scale, bound):
    g = torch.Generator().manual_seed(seed)
    rows = {
        Key("q", role): (torch.randn(1, *shape, generator=g) * scale).float()
        for role, shape in [(Role.A, (2, 5)), (Role.B, (7, 2)), (Role.HEAD, (3,))]
    }
    sums, _ = clipped_sum(rows, bound)
    norm = math.sqrt(sum(float((t.double() ** 2).sum()) for t in sums.values()))
    assert norm <= bound
    original = math.sqrt(sum(float((t.double() ** 2).sum()) for t in rows.values()))
    assert norm >= min(original, bound) * 0.9999


@pytest.mark.parametrize("grid", [0.0, 2.0**-20])
def test_how_rows_lie_in_memory_does_not_matter(grid):
    keys, owners = (Key("q", Role.B), Key("q", Role.A)), torch.tensor([0, 1, 0, 1, 1])
    upright = {keys[0]: torch.randn(5, 7, 2), keys[1]: torch.randn(5, 2, 3)}
    lying = {key: r.mT.contiguous().mT for key, r in upright.items()}
    bounds, grids = torch.tensor([0.5, 2.0]), torch.tensor([grid, grid])
    for sums in (
        lambda rows: clipped_sum(rows, 0.5, grid)[0],
        lambda rows: clipped_sums(rows, owners, bounds, grids)[0],
    ):
        for key, tensor in sums(upright).items():
            found = sums(lying)[key]
            assert found.is_contiguous()
            torch.testing.assert_close(found, tensor)


LONG = {
    "equal": lambda p: torch.full((1, p), 1.5),
    "gaussian": lambda p: 9 * torch.randn(1, p, generator=torch.Generator().manual_seed(p)),
    "small": lambda p: torch.full((1, p), 3e-20),
}


@pytest.mark.parametrize("numbers", [1, 1023, 1024, 49_152, 1_000_000, 12_345_678])
@pytest.mark.parametrize("kind", LONG)
def test_however_long_a_record_is_it_is_not_let_through_longer_than_the_bound(kind, numbers):
    """In float32: sums of many equal numbers come out too small there."""
    row = LONG[kind](numbers).float()
    bound = 1e-30 if kind == "small" else 1.0
    [total] = clipped_sum({Key("q", Role.B): row}, bound)[0].values()
    length = float(torch.linalg.vector_norm(total.double()))
    assert 0.99999 * bound < length <= bound


def test_a_record_of_rank_one_is_as_long_as_its_factors_say():
    for left, right in (
        (torch.full((1, 32_000), 1.5), torch.full((1, 4096), 1.25)),
        (torch.full((1, 3), 1e-23), torch.full((1, 5), 1e18)),
    ):
        rows = Outer(left.float(), right.float())
        expected = left.double().norm() * right.double().norm()
        assert float(rows.norms()) == pytest.approx(float(expected), rel=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_a_record_that_is_not_finite_contributes_zero(bad):
    rows = {Key("q", Role.B): torch.ones(3, 2, 2), Key("q", Role.A): torch.ones(3, 2)}
    rows[Key("q", Role.B)][1, 0, 0] = bad
    sums, dropped = clipped_sum(rows, 1.0)
    without = {key: r[[0, 2]] for key, r in rows.items()}
    expected, none = clipped_sum(without, 1.0)
    assert (dropped, none) == (1, 0)
    for key, tensor in expected.items():
        torch.testing.assert_close(sums[key], tensor)


def test_a_zero_gradient_stays_zero():
    sums, dropped = clipped_sum({Key("q", Role.B): torch.zeros(2, 3)}, 1.0)
    assert dropped == 0
    assert sums[Key("q", Role.B)].abs().sum() == 0.0


def step(mechanism, indices, micro_batch: int = 3):
    model = adapted(adapter())
    model.load(random_factors(adapter(), 1))
    tensors = model.train_only(set(Role))
    records = notes(9)
    mechanism.gradients(
        tensors,
        model.sink,
        lambda batch: CLASSIFY.losses(model.model, batch),
        (
            records.batch(p)
            for p in microbatches(indices, records.lengths, micro_batch, PASS_TOKENS["cpu"])
        ),
        mechanism.draws(0, None),
    )
    return {key: p.grad for key, p in tensors.items()}


def private(noise: float, bound: float = math.inf, size: float = 9.0) -> ExampleLevel:
    return ExampleLevel(
        sampling=Poisson(0.5),
        noise=Gaussian(noise),
        max_grad_norm=bound,
        expected_batch_size=size,
    )


def test_without_noise_and_bound_it_is_training_without_privacy():
    plain, silent = step(NoPrivacy(batch_size=9), range(9)), step(private(0.0), range(9))
    torch.testing.assert_close(plain, silent)


def test_the_denominator_is_the_public_constant():
    few, many = step(private(0.0, size=10.0), range(4)), step(private(0.0, size=20.0), range(4))
    for key in few:
        torch.testing.assert_close(few[key], 2 * many[key])


def test_an_empty_batch_takes_a_noised_step():
    grads = step(private(1.0, bound=2.0, size=4.0), [])
    flat = torch.cat([g.flatten() for g in grads.values()])
    assert flat.std().item() == pytest.approx(2.0 / 4.0, rel=0.35)


def test_noise_is_added_once_for_all_micro_batches_and_to_every_tensor():
    """Standard deviation sigma C / b, whatever the micro-batches; a wrong one is rejected."""
    draws = [step(private(3.0, bound=0.1, size=9.0), range(9), micro_batch=1) for _ in range(60)]
    for key in draws[0]:
        stack = torch.stack([d[key].flatten() for d in draws])
        spread = (stack - stack.mean(0)).pow(2).sum() / (stack.numel() - stack.shape[1])
        expected = 3.0 * 0.1 / 9.0
        tolerance = 5.0 / math.sqrt(2 * stack.numel())
        assert spread.sqrt().item() == pytest.approx(expected, rel=tolerance)
        assert tolerance < 0.5, "the test could not tell sigma from sigma / 2"


def test_a_layer_that_sees_no_example_dimension_is_refused():
    sink = PerExampleGradients()
    with sink.collect(3), pytest.raises(ValueError, match="first dimension counts examples"):
        sink.add(Key("q", Role.B), torch.zeros(6, 2))


def test_the_sink_is_closed_after_an_error():
    sink = PerExampleGradients()
    with pytest.raises(RuntimeError), sink.collect(3):
        raise RuntimeError
    assert not sink.is_open


DISCRETE = ExampleLevel(
    sampling=Poisson(0.5), noise=Discrete(0.7), max_grad_norm=0.1, expected_batch_size=8.0
)


def test_on_a_grid_the_sum_has_no_rounding_at_all():
    """Any cut into micro-batches and any order of records: the same bits."""
    grid = DISCRETE.noise.grid(0.1)
    assert grid == 2.0 ** round(math.log2(grid)), "a power of two, so that scaling is exact"
    sums = []
    for micro_batch in (1, 3, 9):
        model = adapted(adapter())
        model.load(random_factors(adapter(), 1))
        model.train_only(set(Role))
        records = notes(9)
        with model.sink.collect(9) as collected:
            CLASSIFY.losses(model.model, records.batch(range(9))).sum().backward()
            rows = {key: r.clone() for key, r in collected.items()}
        order = torch.randperm(9, generator=torch.Generator().manual_seed(micro_batch))
        parts = [order[i : i + micro_batch] for i in range(0, 9, micro_batch)]
        pieces = [clipped_sum({k: r[p] for k, r in rows.items()}, 0.1, grid)[0] for p in parts]
        sums.append({key: sum(piece[key] for piece in pieces) for key in rows})
    for key, first in sums[0].items():
        assert first.dtype == torch.float64
        assert torch.equal(first / grid, (first / grid).round())
        assert all(torch.equal(first, other[key]) for other in sums[1:])


def test_rounding_to_the_grid_moves_a_record_by_no_more_than_the_noise_is_made_for():
    rows = {Key("q", Role.B): torch.randn(1, 40, 25, generator=torch.Generator().manual_seed(0))}
    for grid in (2.0**-3, 2.0**-7, 2.0**-20):
        moved = clipped_sum(rows, 1.0, grid)[0][Key("q", Role.B)]
        assert moved.norm().item() <= 1.0 + math.sqrt(1000) * grid / 2


def test_discrete_noise_is_on_the_grid_and_has_the_right_std():
    silent = ExampleLevel(
        sampling=Poisson(0.5), noise=Gaussian(0.0), max_grad_norm=0.1, expected_batch_size=8.0
    )
    exact, draws = step(silent, range(9)), [step(DISCRETE, range(9)) for _ in range(40)]
    gaps = torch.stack(
        [torch.cat([(d[k] - exact[k]).flatten() for k in exact]).double() for d in draws]
    )
    spread, tolerance = gaps.square().mean().sqrt().item(), 5 / math.sqrt(2 * gaps.numel())
    assert spread == pytest.approx(0.7 * 0.1 / 8.0, rel=tolerance)
    assert tolerance < 0.1


def test_correlated_noise_goes_on_from_round_to_round():
    mechanism = ExampleLevel(
        sampling=Rotation(3), noise=Correlated(1.0, 3), max_grad_norm=0.5, expected_batch_size=2.0
    )
    key = bytes(range(32))
    whole = mechanism.draws(0, NoiseState(key, 0)).noise
    together = [whole.draw(0.5, 6) for _ in range(5)]
    later = mechanism.draws(99, NoiseState(key, 3)).noise
    assert all(torch.equal(later.draw(0.5, 6), z) for z in together[3:])
    with pytest.raises(ValueError, match="remembers its past"):
        mechanism.draws(0, None)


@pytest.mark.parametrize("noise", [Gaussian(1.0), Discrete(1.0), Correlated(1.0, 2)])
def test_only_an_insecure_seed_makes_draws_reproducible(noise):
    sampling = Rotation(4) if isinstance(noise, Correlated) else Poisson(0.5)

    def drawn(insecure_seed, past=None, seed=5):
        mechanism = ExampleLevel(
            sampling=sampling,
            noise=noise,
            max_grad_norm=1.0,
            expected_batch_size=4.0,
            insecure_seed=insecure_seed,
        )
        draws = mechanism.draws(seed, past or NoiseState(os.urandom(32), 0))
        return draws.noise.draw(1.0, 50).tolist(), list(mechanism.batches(200, 3, draws))

    assert drawn(7) == drawn(7)
    assert drawn(7)[0] != drawn(8)[0]
    noises, batches = zip(*(drawn(None) for _ in range(2)), strict=True)
    assert noises[0] != noises[1]
    assert batches[0] != batches[1]


REFUSED = [
    (Poisson(0.5), Correlated(1.0, 2), "belong together"),
    (Rotation(4), Gaussian(1.0), "belong together"),
    (Poisson(0.5), Discrete(0.0), "some spread"),
    (Poisson(0.5), Gaussian(-1.0), "must not be negative"),
]


@pytest.mark.parametrize(("sampling", "noise", "why"), REFUSED)
def test_what_is_not_proved_is_refused(sampling, noise, why):
    with pytest.raises(ValueError, match=why):
        ExampleLevel(sampling=sampling, noise=noise, max_grad_norm=1.0, expected_batch_size=4.0)
