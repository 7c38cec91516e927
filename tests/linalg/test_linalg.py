import hashlib

import pytest
import torch

from silotune.core import generator, seed_of
from silotune.linalg import LowRank, add, dense, norm, orthonormal_rows


def product(seed: int, k: int) -> LowRank:
    g = torch.Generator().manual_seed(seed)
    return LowRank(
        torch.randn(7, k, generator=g, dtype=torch.float64),
        torch.randn(k, 5, generator=g, dtype=torch.float64),
    )


def test_sums_differences_and_multiples_are_exact():
    a, b = product(0, 2), product(1, 1)
    torch.testing.assert_close((a + b).dense(), a.dense() + b.dense())
    torch.testing.assert_close((a - b * 2.5).dense(), a.dense() - 2.5 * b.dense())
    assert (a + b).rank == 3


def test_a_sum_turns_dense_where_the_product_would_be_larger():
    assert isinstance(add(product(0, 1), product(1, 1)), LowRank)
    full = add(product(0, 1), product(1, 2))  # 3 x (7 + 5) numbers are more than 7 x 5
    assert isinstance(full, torch.Tensor)
    torch.testing.assert_close(full, product(0, 1).dense() + product(1, 2).dense())
    torch.testing.assert_close(add(full, product(0, 1)), full + product(0, 1).dense())


def test_the_norm_needs_no_dense_matrix():
    a = product(3, 3)
    torch.testing.assert_close(a.norm(), torch.linalg.norm(a.dense()))
    torch.testing.assert_close(norm(dense(a)), norm(a))


def test_seeds_depend_on_the_address_alone():
    assert seed_of("run", 1) == seed_of("run", 1)
    assert len({seed_of("run", 1), seed_of("run", "1x"), seed_of("run1"), seed_of(1, "run")}) == 4
    assert 0 <= seed_of("x") < 2**63
    assert torch.equal(
        torch.rand(3, generator=generator("a")), torch.rand(3, generator=generator("a"))
    )


def test_orthonormal_rows_are_the_same_bits_everywhere():
    """A published digest: another machine, another version of torch must agree."""
    q = orthonormal_rows(4, 24, generator("orthonormal", 0))
    torch.testing.assert_close(q @ q.T, torch.eye(4), atol=1e-6, rtol=0)
    digest = hashlib.sha256(q.numpy().tobytes()).hexdigest()
    assert digest[:16] == "dc8d785f1fc8853e"


def test_more_rows_than_columns_cannot_be_orthonormal():
    with pytest.raises(ValueError, match="do not fit"):
        orthonormal_rows(5, 4, generator(0))
