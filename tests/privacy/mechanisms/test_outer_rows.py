"""Rows of rank one, kept as their factors: every sum is the one that their numbers have."""

import math

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from silotune.core import Key, PerExampleGradients, Role
from silotune.core.outer import Outer, dense
from silotune.privacy.mechanisms.clipping import PART, clipped_sum, clipped_sums

N, OUT, IN = 7, 5, 3
HEAD, PAIR = Key("head", Role.HEAD, "weight"), Key("q", Role.B)


def rows(n: int = N, dtype: torch.dtype = torch.float64):
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(n, *shape, generator=g, dtype=dtype)

    lying_by_columns = draw(2, 4).mT
    return {HEAD: Outer(draw(OUT), draw(IN)), PAIR: lying_by_columns}


def numbers(kept):
    return {key: dense(r) for key, r in kept.items()}


@pytest.mark.parametrize("grid", [0.0, 2.0**-12])
@pytest.mark.parametrize("bound", [0.3, 5.0])
def test_the_clipped_sum_is_that_of_their_numbers(bound, grid):
    found, expected = clipped_sum(rows(), bound, grid), clipped_sum(numbers(rows()), bound, grid)
    assert found[1] == expected[1] == 0
    for key, total in expected[0].items():
        torch.testing.assert_close(found[0][key], total, rtol=1e-9, atol=grid)


@pytest.mark.parametrize("grid", [0.0, 2.0**-12])
def test_so_is_that_of_every_client_of_a_crowd(grid):
    owners = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    bounds, grids = torch.tensor([0.3, 0.5, 4.0]).double(), torch.tensor([grid] * 3).double()
    found, none = clipped_sums(rows(), owners, bounds, grids)
    assert not none.any()
    for client, bound in enumerate(bounds.tolist()):
        mine = {key: r[owners == client] for key, r in numbers(rows()).items()}
        for key, total in clipped_sum(mine, bound, grid)[0].items():
            torch.testing.assert_close(found[key][client], total, rtol=1e-9, atol=grid)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_record_that_is_not_finite_contributes_zero(bad, side):
    broken = rows()
    getattr(broken[HEAD], side)[2] = bad
    getattr(broken[HEAD], "right" if side == "left" else "left")[2] *= 1e200
    sums, dropped = clipped_sum(broken, 1.0)
    others = [i for i in range(N) if i != 2]
    expected, _ = clipped_sum({key: r[others] for key, r in numbers(rows()).items()}, 1.0)
    assert dropped == 1
    for key, total in expected.items():
        torch.testing.assert_close(sums[key], total, rtol=1e-9, atol=1e-12)


def test_sums_on_a_grid_have_the_same_bits_however_few_records_are_rounded_at_a_time(monkeypatch):
    whole = clipped_sum(rows(40, torch.float32), 1.0, 2.0**-20)[0]
    for part in (1, 3 * OUT * IN, PART):
        monkeypatch.setattr("silotune.privacy.mechanisms.clipping.PART", part)
        for key, total in clipped_sum(rows(40, torch.float32), 1.0, 2.0**-20)[0].items():
            assert torch.equal(total, whole[key])


def test_layers_may_lie_on_several_devices():
    with FakeTensorMode(), AllFinite():
        spread = {
            HEAD: Outer(torch.empty(N, OUT, device="meta"), torch.empty(N, IN, device="meta")),
            PAIR: torch.empty(N, 4, 2),
        }
        sums, _ = clipped_sum(spread, 1.0, 2.0**-12)
    assert [str(total.device) for total in sums.values()] == ["meta", "cpu"]


class AllFinite(TorchDispatchMode):
    """Tensors without numbers, of which it is asked whether all are finite."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            return True
        return func(*args, **(kwargs or {}))


def collected(sink: PerExampleGradients, calls):
    with sink.collect_rows(N) as found:
        for left, right in calls:
            sink.product(HEAD, left, right)
        return found[HEAD]


def test_a_module_that_is_called_again_adds_up():
    left, right = torch.randn(N, OUT).double(), torch.randn(N, IN).double()
    more = torch.randn(N, 4, OUT).double(), torch.randn(N, 4, IN).double()
    sink = PerExampleGradients()
    once = collected(sink, [(left, right)])
    assert isinstance(once, Outer)
    for again in ((left, right), more):
        expected = sum(torch.einsum("nto,nti->noi", *_at(x)) for x in ((left, right), again))
        torch.testing.assert_close(
            dense(collected(sink, [(left, right), again])), expected, rtol=1e-9, atol=1e-12
        )


def _at(calls):
    return [t if t.dim() == 3 else t[:, None] for t in calls]


def test_factors_are_kept_only_where_they_are_fewer_numbers_and_of_one_position():
    sink = PerExampleGradients()
    one, two = torch.randn(N, 1, OUT), torch.randn(N, 2, OUT)
    assert not isinstance(collected(sink, [(one, torch.randn(N, 1, 1))]), Outer)
    assert not isinstance(collected(sink, [(two, torch.randn(N, 2, IN))]), Outer)
    assert isinstance(collected(sink, [(one, torch.randn(N, 1, IN))]), Outer)


def test_factors_keep_nothing_larger_alive():
    states = torch.randn(N, 9, IN)
    kept = collected(PerExampleGradients(), [(torch.randn(N, OUT), states[:, 0])])
    assert kept.right.untyped_storage().nbytes() == N * IN * 4
