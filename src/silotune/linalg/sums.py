"""Sums of many matrices in whichever form is smaller."""

from .lowrank import LowRank, Matrix, dense
from .svd import compress


def add(a: Matrix, b: Matrix) -> Matrix:
    """Exact sum; stays a product while that is smaller than the (out, in) matrix.

    At the crossover the stack is compressed; if that does not halve it, the sum turns dense. So a
    stream is compressed only once per doubling of its rank.
    """
    if isinstance(a, LowRank) and isinstance(b, LowRank):
        stack = a + b
        if _share(stack) < 1.0:
            return stack
        packed = compress(stack)
        if _share(packed) <= 0.5:
            return packed
    return dense(a) + dense(b)


def _share(product: LowRank) -> float:
    """Numbers in the product per number of the matrix."""
    out, into = product.shape
    return product.rank * (out + into) / (out * into)
