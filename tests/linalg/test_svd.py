"""Sums, cuts and norms of products, against the same done densely."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from silotune.core import generator
from silotune.linalg import LowRank, add, compress, dense, inner, norm, sketched_svd, svd, truncate

seeds = st.integers(0, 10_000)
SHAPES = [(40, 24), (24, 40), (30, 30), (7, 5), (3, 9)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def product(shape: tuple[int, int], k: int, seed: int = 0) -> LowRank:
    g = torch.Generator().manual_seed(seed)
    return LowRank(
        torch.randn(shape[0], k, generator=g, dtype=torch.float64),
        torch.randn(k, shape[1], generator=g, dtype=torch.float64),
    )


def tail(matrix: torch.Tensor, rank: int) -> float:
    return float(torch.linalg.svdvals(matrix)[rank:].norm())


@every_shape
@pytest.mark.parametrize("form", [lambda m: m, dense], ids=["product", "dense"])
@given(seed=seeds, k=st.integers(1, 12), rank=st.integers(1, 14))
def test_truncation_is_the_best_of_its_rank(shape, form, seed, k, rank):
    m = product(shape, k, seed)
    cut = truncate(form(m), rank)
    assert cut.rank == min(rank, k, *shape)
    error = torch.linalg.norm(m.dense() - cut.dense())
    assert error == pytest.approx(tail(m.dense(), rank), rel=1e-9, abs=1e-11)


@every_shape
@given(seed=seeds, k=st.integers(1, 12))
def test_the_spectrum_is_that_of_the_dense_matrix(shape, seed, k):
    m = product(shape, k, seed)
    s = svd(m)
    n = len(s.values)
    torch.testing.assert_close(s.values, torch.linalg.svdvals(m.dense())[:n])
    eye = torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(s.left.mT @ s.left, eye)
    torch.testing.assert_close(s.right @ s.right.mT, eye)
    balanced, heavy = s.balanced(), s.heavy_left()
    torch.testing.assert_close(balanced.dense(), m.dense())
    torch.testing.assert_close(heavy.dense(), m.dense())
    torch.testing.assert_close(balanced.left.norm(dim=0), balanced.right.norm(dim=1))
    torch.testing.assert_close(heavy.right.norm(dim=1), torch.ones(n, dtype=torch.float64))


@every_shape
@given(seed=seeds, k=st.integers(1, 4))
def test_compression_drops_what_is_numerically_nothing_and_no_more(shape, seed, k):
    m, n = product(shape, k, seed), product(shape, 1, seed + 1)
    true = min(k + 1, *shape)
    stack = m + n * 1e-9 + m * 2.0 - m * 0.5  # a small term is not nothing
    packed = compress(stack)
    assert packed.rank == true
    torch.testing.assert_close(packed.dense(), stack.dense(), atol=1e-11, rtol=1e-11)
    assert compress(m - m).rank == 0
    assert compress(m, tolerance=1e9).rank == 0


def test_badly_scaled_terms_are_told_from_nothing():
    """A tiny column may stand beside a huge row."""
    m = product((40, 24), 3)
    c = torch.tensor([1e-12, 1.0, 1e12], dtype=torch.float64)
    scaled = LowRank(m.left * c, m.right / c[:, None])
    assert compress(scaled).rank == 3
    torch.testing.assert_close(truncate(scaled, 3).dense(), m.dense())


@every_shape
def test_zero_and_empty_matrices_have_rank_zero(shape):
    zero = product(shape, 2) * 0.0
    empty = compress(zero)
    assert (empty.rank, empty.shape) == (0, shape)
    for m in (zero, empty, zero.dense()):
        assert truncate(m, 3).rank == 0
        assert norm(m) == 0.0
        torch.testing.assert_close(dense(m), torch.zeros(shape, dtype=torch.float64))
    torch.testing.assert_close((empty + product(shape, 1)).dense(), product(shape, 1).dense())
    assert compress(empty).rank == 0


@every_shape
@given(seed=seeds, k=st.integers(1, 12), rank=st.integers(1, 14))
def test_a_sketch_of_full_rank_is_exact(shape, seed, k, rank):
    m = product(shape, k, seed)
    for form in (m, m.dense()):
        s = sketched_svd(form, max(rank, k), generator("sketch", seed))
        torch.testing.assert_close(s.balanced().dense(), m.dense())
    short = sketched_svd(m, rank, generator("sketch", seed))
    assert len(short.values) == min(rank, *shape, max(k, 1))
    error = torch.linalg.norm(m.dense() - short.balanced().dense())
    assert error <= 1.05 * tail(m.dense(), rank) + 1e-10


def test_a_sketch_depends_on_its_generator_alone():
    m = product((40, 24), 12)
    one, two = (sketched_svd(m, 2, generator("s")).left for _ in range(2))
    assert torch.equal(one, two)


@every_shape
@given(seed=seeds, k=st.integers(1, 12))
def test_inner_products_in_any_form(shape, seed, k):
    m, n = product(shape, k, seed), product(shape, 2, seed + 1)
    truth = (m.dense() * n.dense()).sum()
    for a in (m, m.dense()):
        for b in (n, n.dense()):
            torch.testing.assert_close(inner(a, b), truth)


@pytest.mark.parametrize("difference", [1.0, 1e-4, 1e-8, 1e-12])
def test_norms_of_near_nothing_are_not_rounding(difference):
    """Squares of the terms cancel to 1e-8 of their norm; what is asked for may be far below."""
    m, n = product((40, 24), 5), product((40, 24), 1, 1)
    gap = m + n * difference - m
    torch.testing.assert_close(gap.norm(), n.norm() * difference, rtol=1e-3, atol=1e-14)
    assert (m - m).norm() < 1e-12


def test_products_apply_to_tensors():
    m, x = product((7, 5), 2), torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(m @ x, m.dense() @ x)
    torch.testing.assert_close(m.mT.dense(), m.dense().mT)
    assert m.to(torch.float32).dense().dtype is torch.float32


@every_shape
@given(seed=seeds, clients=st.integers(2, 40))
def test_streaming_sums_are_exact_and_never_larger_than_the_matrix(shape, seed, clients):
    total, truth = product(shape, 2, seed), product(shape, 2, seed).dense()
    for k in range(1, clients):
        part = product(shape, 2, seed + k)
        total, truth = add(total, part), truth + part.dense()
        if isinstance(total, LowRank):
            assert total.rank * sum(shape) < shape[0] * shape[1]
    torch.testing.assert_close(dense(total), truth)


def test_a_stream_that_repeats_itself_stays_a_product():
    """Exact recompression: many clients in one subspace, as under a frozen A."""
    basis = product((40, 24), 2)
    total, truth = basis, basis.dense()
    for k in range(1, 60):
        g = torch.Generator().manual_seed(k)
        left = torch.randn(40, 2, generator=g, dtype=torch.float64)
        total, truth = add(total, LowRank(left, basis.right)), truth + left @ basis.right
    assert isinstance(total, LowRank)
    torch.testing.assert_close(total.dense(), truth)


def test_single_precision_stays_so_through_a_crossover():
    m = product((40, 24), 8).to(torch.float32)
    assert dense(add(m, m)).dtype is torch.float32
    far = add(m, product((40, 24), 12, 1).to(torch.float32))
    assert isinstance(far, torch.Tensor)
    assert far.dtype is torch.float32
