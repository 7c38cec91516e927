"""A pair with one frozen seeded factor: which it is, how it begins, and what its scale means."""

import pytest
import torch
from torch import nn

from silotune.adapters.projection import Projection
from silotune.core import Factors, Key, Role, Site

TALL, WIDE, SQUARE = (9, 5), (5, 9), (6, 6)
SHAPES = [TALL, WIDE, SQUARE]


def site(shape, name: str = "q") -> Site:
    out, into = shape
    return Site(name, nn.Linear(into, out), into, out)


def born(shape, seed: int = 0, rank: int = 3, name: str = "q"):
    return Projection(rank=rank).initial_factors(site(shape, name), seed)


def digest(tensors) -> str:
    return Factors({Key("q", role): t for role, t in tensors.items()}).digest()


@pytest.mark.parametrize(("shape", "frozen"), [(TALL, "A"), (SQUARE, "A"), (WIDE, "B")])
def test_the_projector_is_on_the_smaller_side(shape, frozen):
    assert Projection(rank=3).frozen(site(shape)) == {Role(frozen)}


@pytest.mark.parametrize("shape", SHAPES)
def test_birth_is_an_orthonormal_projector_and_zeros_on_the_larger_side(shape):
    tensors, (fixed,) = born(shape), Projection(rank=3).frozen(site(shape))
    p = tensors[fixed] if fixed is Role.A else tensors[fixed].T
    torch.testing.assert_close(p @ p.T, torch.eye(3), atol=1e-6, rtol=1e-6)
    (moving,) = tensors.keys() - {fixed}
    assert tensors[moving].count_nonzero() == 0
    assert tensors[moving].numel() == 3 * max(shape), "what travels"
    assert tensors[Role.A].shape == (3, shape[1])
    assert tensors[Role.B].shape == (shape[0], 3)
    assert {t.dtype for t in tensors.values()} == {torch.float32}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_seed_and_the_site_decide_it_and_nothing_else(shape):
    first = digest(born(shape))
    torch.manual_seed(99)
    assert digest(born(shape)) == first
    assert digest(born(shape, seed=1)) != first
    assert digest(born(shape, name="v")) != first
    assert Projection().seeded


@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize(("learning", "alpha"), [("adam", 3 * 0.7), ("sgd", 3 * 0.7**0.5)])
def test_which_alpha_makes_a_step_galores(shape, learning, alpha):
    """W moves by eta a (N P^T) with a = 0.7: s = a under Adam, s = sqrt(a) under SGD."""
    pair, rate, g = Projection(rank=3, alpha=alpha), 0.01, torch.randn(shape).double()
    tensors = {r: nn.Parameter(t.double()) for r, t in pair.initial_factors(site(shape), 0).items()}
    (fixed,) = pair.frozen(site(shape))
    (moving,) = tensors.keys() - {fixed}
    p = (tensors[fixed].T if fixed is Role.A else tensors[fixed]).detach()  # (smaller, r)
    reduced = g @ p if fixed is Role.A else p.T @ g
    n = reduced.sign() if learning == "adam" else reduced
    expected = -rate * 0.7 * (n @ p.T if fixed is Role.A else p @ n)

    make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[learning]
    optimizer = make([tensors[moving]], lr=rate)
    ((pair.scale * tensors[Role.B] @ tensors[Role.A]) * g).sum().backward()
    optimizer.step()
    moved = pair.scale * tensors[Role.B] @ tensors[Role.A]
    torch.testing.assert_close(moved.detach(), expected, rtol=1e-5, atol=1e-9)


def test_the_scale_is_that_of_lora():
    assert Projection(rank=4, alpha=6.0).scale == 1.5
    assert Projection(rank=4, alpha=6.0, rslora=True).scale == 3.0


def test_a_rank_that_does_not_fit_names_the_site():
    with pytest.raises(ValueError, match=r"r: q has 5 features on its smaller side"):
        born(WIDE, rank=6)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"dropout": 1.0}])
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"^(r|lora_dropout|alpha|lora_alpha): "):
        Projection(**wrong)
