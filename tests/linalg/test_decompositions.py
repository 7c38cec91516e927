"""Decompositions and norms mean the same at every magnitude, and say in words what they refuse."""

import ast
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import silotune
from silotune.core import generator
from silotune.linalg import (
    LowRank,
    NumericalError,
    add,
    compress,
    dense_svd,
    eigh,
    eigvalsh,
    norm,
    pinv,
    qr,
    sketched_svd,
    svd,
    triangle,
    vector_norm,
)

EXPONENTS = st.integers(-1000, 1000)
"""Powers of two that leave a matrix of ordinary size finite, and none of it denormal."""

SHAPES = st.sampled_from([(9, 4), (4, 9), (5, 5), (7, 1), (1, 7)])
close = {"rtol": 1e-12, "atol": 0.0}


def matrix(shape, seed=0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


def power(exponent: int) -> float:
    return math.ldexp(1.0, exponent)


@given(shape=SHAPES, exponent=EXPONENTS, seed=st.integers(0, 999))
def test_a_power_of_two_passes_through_bit_for_bit(shape, exponent, seed):
    """So no matrix of ordinary size is another one for having been scaled."""
    x, c = matrix(shape, seed), power(exponent)
    u, s, v = dense_svd(x)
    for one, other in zip(dense_svd(x * c), (u, s * c, v), strict=True):
        torch.testing.assert_close(one, other, **close)
    q, r = qr(x)
    for one, other in zip(qr(x * c), (q, r * c), strict=True):
        torch.testing.assert_close(one, other, **close)
    torch.testing.assert_close(triangle(x * c), triangle(x) * c, **close)
    torch.testing.assert_close(vector_norm(x * c), vector_norm(x) * c, **close)
    square = x.mT @ x
    torch.testing.assert_close(eigvalsh(square * c), eigvalsh(square) * c, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(eigh(square * c)[0], eigh(square)[0] * c, rtol=1e-12, atol=0.0)


@given(shape=SHAPES, exponent=EXPONENTS)
def test_an_inverse_is_divided_by_it(shape, exponent):
    x, c = matrix(shape), power(exponent)
    torch.testing.assert_close(pinv(x * c), pinv(x) / c, **close)


@given(k=st.integers(1, 6), e=st.integers(-500, 500), f=st.integers(-500, 500))
def test_products_have_the_spectrum_and_norm_of_any_magnitude(k, e, f):
    left, right = matrix((9, k), 1), matrix((k, 5), 2)
    plain, far = LowRank(left, right), LowRank(left * power(e), right * power(f))
    whole = power(e + f)
    torch.testing.assert_close(far.norm(), plain.norm() * whole, **close)
    torch.testing.assert_close(norm(far), plain.norm() * whole, **close)
    torch.testing.assert_close(svd(far).values, svd(plain).values * whole, **close)
    sketch = sketched_svd(far, k, generator("s"))
    torch.testing.assert_close(
        sketch.values, sketched_svd(plain, k, generator("s")).values * whole, rtol=1e-9, atol=0.0
    )
    torch.testing.assert_close(compress(far).dense(), plain.dense() * whole, rtol=1e-9, atol=0.0)
    stack = far
    for _ in range(9):  # past the crossover, where a sum is compressed
        stack = add(stack, far)
    dense = stack.dense() if isinstance(stack, LowRank) else stack
    torch.testing.assert_close(dense, plain.dense() * (10 * whole), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("size", [0.0, 5e-324, 1e-310, 1e300, 1.7e308])
def test_the_ends_of_the_range_are_no_error(size):
    x = torch.zeros(4, 3, dtype=torch.float64)
    x[0, 0] = size
    assert vector_norm(x) == size
    assert float(dense_svd(x)[1][0]) == size
    torch.testing.assert_close(qr(x)[1].abs().max().item(), size)
    torch.testing.assert_close(eigvalsh(x[:3])[-1].item(), size)


@pytest.mark.parametrize("wild", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(
    "decompose", [qr, triangle, dense_svd, eigh, eigvalsh, pinv, vector_norm, svd]
)
def test_what_is_not_finite_is_refused_in_words(decompose, wild):
    x = matrix((4, 4))
    x[2, 1] = wild
    with pytest.raises(NumericalError, match="not finite"):
        decompose(x)


def test_a_product_that_float64_cannot_hold_is_refused_in_words():
    huge = LowRank(matrix((5, 2)) * 1e200, matrix((2, 5)) * 1e200)
    assert norm(huge) == math.inf
    with pytest.raises(NumericalError, match=r"too large for torch\.float64"):
        svd(huge)
    with pytest.raises(NumericalError, match=r"too large for torch\.float64"):
        compress(huge)


def test_stacks_are_scaled_matrix_by_matrix():
    stack = torch.stack([matrix((6, 3), 1), matrix((6, 3), 2)])
    sizes = torch.tensor([1e-250, 1e250], dtype=torch.float64)[:, None, None]
    q, r = qr(stack * sizes)
    torch.testing.assert_close(q, qr(stack)[0], rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(r / sizes, qr(stack)[1], rtol=1e-12, atol=1e-15)


def test_float32_keeps_its_type_and_its_range():
    x = matrix((6, 3)).float() * 1e30  # its square is no float32
    u, s, vh = dense_svd(x)
    assert s.dtype == torch.float32
    torch.testing.assert_close((u * s) @ vh, x, rtol=1e-4, atol=1e25)


DECOMPOSITIONS = {
    *("qr", "svd", "svdvals", "eigh", "eigvalsh", "eig", "eigvals", "pinv", "inv", "cholesky"),
    *("lstsq", "solve", "matrix_rank", "cond"),
}


def test_no_other_file_decomposes_anything():
    """Whatever meets LAPACK has gone through the one door that scales it and speaks in words."""
    root = Path(silotune.__file__).parent
    found = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in sorted(root.rglob("*.py"))
        if path.name != "decompositions.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in DECOMPOSITIONS
        and ast.unparse(node.value) in ("torch", "torch.linalg", "linalg")
    ]
    assert found == []
