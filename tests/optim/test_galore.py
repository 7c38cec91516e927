"""GaLore against its paper's formulas, its limits, and the frozen-factor chain that it equals."""

import math

import pytest
import torch
from torch import nn

from silotune.adapters.projection import Projection
from silotune.core import Key, Role, Site
from silotune.optim import GaLoreConfig
from silotune.optim.galore import top_directions

D, HEAD = Key("q", Role.D), Key("classifier", Role.HEAD, "weight")
SHAPES = [(9, 5), (5, 9), (6, 6)]
B1, B2 = 0.9, 0.999


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, dtype=torch.float64))


def run(optimizer, tensor, grads):
    """The tensor after each step."""
    trajectory = []
    for g in grads:
        tensor.grad = g.clone()
        optimizer.step()
        trajectory.append(tensor.detach().clone())
    return trajectory


def gradients(shape, steps: int):
    return [torch.randn(shape, dtype=torch.float64) for _ in range(steps)]


def signed(vectors):
    """Singular vectors (columns) have no sign of their own: the largest entry is made positive."""
    return torch.stack([v * v[v.abs().argmax()].sign() for v in vectors.T], dim=1)


def as_in_the_paper(w, grads, *, rank, gap, lr, scale, decay, eps):
    """Algorithm 2 of arXiv 2403.03507 with decoupled weight decay; m >= n right, m < n left."""
    m_rows, n_columns = w.shape
    moment, square, trajectory = 0.0, 0.0, []
    for t, g in enumerate(grads):
        if t % gap == 0:
            u, _, vh = torch.linalg.svd(g)
            p = signed(vh.T[:, :rank] if m_rows >= n_columns else u[:, :rank])
        r = g @ p if m_rows >= n_columns else p.T @ g
        moment = B1 * moment + (1 - B1) * r
        square = B2 * square + (1 - B2) * r * r
        n = (moment / (1 - B1 ** (t + 1))) / ((square / (1 - B2 ** (t + 1))).sqrt() + eps)
        back = n @ p.T if m_rows >= n_columns else p @ n
        w = w - lr * decay * w - lr * scale * back
        trajectory.append(w)
    return trajectory


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_papers_algorithm(shape):
    w, grads = parameter(*shape), gradients(shape, 8)
    numbers = {"rank": 2, "gap": 3, "scale": 0.25, "eps": 1e-3}
    expected = as_in_the_paper(w.detach().clone(), grads, lr=0.1, decay=0.3, **numbers)
    ours = run(GaLoreConfig(lr=9.0, weight_decay=0.3, **numbers).build({D: w}, 0.1), w, grads)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-11)
    never = as_in_the_paper(ours[0], grads, lr=0.1, decay=0.3, **(numbers | {"gap": 99}))
    assert not torch.allclose(never[-1], ours[-1], atol=1e-3), "the projector never changed"


@pytest.mark.parametrize("shape", SHAPES)
def test_told_its_base_weight_it_is_the_papers_algorithm_on_the_weight(shape):
    base, grads = torch.randn(shape, dtype=torch.float64), gradients(shape, 8)
    numbers = {"rank": 2, "gap": 3, "scale": 0.25, "eps": 1e-3}
    expected = as_in_the_paper(base.clone(), grads, lr=0.1, decay=0.3, **numbers)
    delta = nn.Parameter(torch.zeros_like(base))
    galore = GaLoreConfig(lr=9.0, weight_decay=0.3, decays="weight", **numbers)
    optimizer = galore.build({D: delta}, 0.1)
    optimizer.stand_beside({delta: lambda: base})
    for mine, theirs in zip(run(optimizer, delta, grads), expected, strict=True):
        torch.testing.assert_close(base + mine, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_with_a_rank_that_is_full_it_is_adamw(shape):
    """A projector onto everything is left out, so Adam's coordinates are the matrix's own."""
    w, grads = parameter(*shape), gradients(shape, 6)
    theirs = nn.Parameter(w.detach().clone())
    adamw = torch.optim.AdamW([theirs], lr=0.1 * 0.5, eps=1e-6, weight_decay=0.2 / 0.5)
    expected = run(adamw, theirs, grads)
    galore = GaLoreConfig(lr=0.1, rank=min(shape), gap=2, scale=0.5, weight_decay=0.2)
    for mine, other in zip(run(galore.build({D: w}, 0.1), w, grads), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_memory_and_with_a_large_eps_it_is_projected_sgd(shape):
    """N -> R / eps, so a step is eta scale / eps times the gradient's best rank-r approximation."""
    w, (g,) = parameter(*shape), gradients(shape, 1)
    before = w.detach().clone()
    galore = GaLoreConfig(lr=1.0, rank=2, scale=3.0, betas=(0.0, 0.0), eps=1e9)
    run(galore.build({D: w}, 0.1 * 1e9), w, [g])
    u, s, vh = torch.linalg.svd(g)
    best = u[:, :2] @ torch.diag(s[:2]) @ vh[:2]
    torch.testing.assert_close(before - w, 0.1 * 3.0 * best, rtol=1e-6, atol=1e-7)


def linear_loss(weight, x, y):
    return ((x @ weight.T - y) ** 2).mean() + 0.1 * (weight**4).sum()


@pytest.mark.parametrize("alpha", [2.0, 7.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_a_chain_of_pairs_with_one_factor_frozen(shape, alpha):
    """The larger factor trains with AdamW; every gap steps the pair is folded and begun afresh.

    Adam divides the scale s of the factor's gradient out again, but for eps: s eps in the chain.
    """
    out, into = shape
    rank, gap, eps = 2, 4, 1e-3
    base, x, y = parameter(out, into), torch.randn(20, into).double(), torch.randn(20, out).double()
    base.requires_grad_(False)
    pair = Projection(rank=rank, alpha=alpha)
    trains_b = pair.frozen(Site("q", nn.Linear(into, out), into, out)) == {Role.A}

    delta = nn.Parameter(torch.zeros_like(base))
    galore = GaLoreConfig(lr=1.0, rank=rank, gap=gap, scale=pair.scale, eps=eps)
    dense = galore.build({D: delta}, 0.05)

    factor = nn.Parameter(torch.zeros((out, rank) if trains_b else (rank, into)).double())
    chain = torch.optim.AdamW([factor], lr=0.05, eps=pair.scale * eps, weight_decay=0.0)
    carried, frozen = base.clone(), None

    def weight():
        if frozen is None:
            return carried
        return carried + pair.scale * (factor @ frozen.T if trains_b else frozen @ factor)

    for t in range(12):
        dense.zero_grad()
        linear_loss(base + delta, x, y).backward()
        dense.step()
        if t % gap == 0:  # fold, and choose the next projector from the whole gradient
            carried = weight().detach().requires_grad_()
            (whole,) = torch.autograd.grad(linear_loss(carried, x, y), carried)
            frozen = top_directions(whole if trains_b else whole.T, rank)
            factor.data.zero_()
        chain.zero_grad()
        linear_loss(weight(), x, y).backward()
        chain.step()
        torch.testing.assert_close(base + delta, weight(), rtol=1e-8, atol=1e-9)
    assert delta.norm() > 0.1


def test_between_two_projectors_the_update_has_rank_r():
    w = parameter(9, 7)
    start, grads = w.detach().clone(), gradients((9, 7), 6)
    optimizer = GaLoreConfig(lr=0.1, rank=2, gap=5).build({D: w}, 0.1)
    ranks = [int(torch.linalg.matrix_rank(t - start, atol=1e-9)) for t in run(optimizer, w, grads)]
    assert ranks == [2, 2, 2, 2, 2, 4]


@pytest.mark.parametrize("shape", SHAPES)
def test_it_remembers_two_moments_of_the_large_side_and_a_projector_of_the_small(shape):
    w = parameter(*shape)
    optimizer = GaLoreConfig(lr=0.1, rank=3).build({D: w}, 0.1)
    run(optimizer, w, gradients(shape, 2))
    numbers = sum(t.numel() for t in optimizer.state[w].values() if isinstance(t, torch.Tensor))
    assert numbers == 2 * 3 * max(shape) + 3 * min(shape)


def test_heads_are_moved_by_adamw_whatever_their_shape():
    head, matrix = parameter(8, 6), parameter(8, 6)
    theirs, grads = nn.Parameter(head.detach().clone()), gradients((8, 6), 4)
    expected = run(torch.optim.AdamW([theirs], lr=0.1, eps=1e-6, weight_decay=0.0), theirs, grads)
    galore = GaLoreConfig(lr=0.1, rank=2, scale=5.0).build({D: matrix, HEAD: head}, 0.1)
    before = matrix.detach().clone()
    for mine, other in zip(run(galore, head, grads), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    assert torch.equal(matrix, before), "no gradient in these steps"


def test_zero_gradients_choose_no_projector():
    start, grads = torch.randn(6, 4).double(), gradients((6, 4), 5)
    zero = torch.zeros(6, 4).double()
    after, at_once = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    galore = GaLoreConfig(lr=0.1, rank=2, gap=99)
    late = run(galore.build({D: after}, 0.1), after, [zero, zero, *grads])
    assert torch.equal(late[1], start)
    assert torch.equal(late[-1], run(galore.build({D: at_once}, 0.1), at_once, grads)[-1])


def test_a_zero_gradient_where_a_projector_is_due_keeps_the_old_one():
    w = parameter(6, 4)
    optimizer = GaLoreConfig(lr=0.1, rank=2, gap=2).build({D: w}, 0.1)
    run(optimizer, w, gradients((6, 4), 2))
    basis = optimizer.state[w]["basis"].clone()
    run(optimizer, w, [torch.zeros(6, 4).double()])
    assert torch.equal(optimizer.state[w]["basis"], basis)
    assert w.isfinite().all()


def test_a_gradient_of_lower_rank_than_r_is_no_trouble():
    w = nn.Parameter(torch.zeros(300, 200))
    optimizer = GaLoreConfig(lr=0.1, rank=8).build({D: w}, 0.1)
    run(optimizer, w, [torch.outer(torch.randn(300), torch.randn(200)) for _ in range(3)])
    assert w.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_named(bad):
    w = parameter(6, 4)
    optimizer = GaLoreConfig(lr=0.1, rank=2).build({D: w}, 0.1)
    w.grad = torch.full_like(w, bad)
    with pytest.raises(ValueError, match=r"q\.D: its gradient is not finite"):
        optimizer.step()


def test_the_directions_are_orthonormal_leading_and_signed():
    g = torch.randn(40, 12) @ torch.diag(torch.logspace(0, -3, 12))
    p = top_directions(g, 4)
    torch.testing.assert_close(p.T @ p, torch.eye(4))
    v = torch.linalg.svd(g.double()).Vh[:4].T
    torch.testing.assert_close((p @ p.T).double(), v @ v.T, atol=1e-6, rtol=1e-6)
    assert torch.equal(p, top_directions(-g, 4))


@pytest.mark.parametrize(
    ("changes", "key"), [({"rank": 0}, "r"), ({"rank": 2, "gap": 0}, "galore_gap")]
)
def test_what_makes_no_sense_is_refused(changes, key):
    with pytest.raises(ValueError, match=rf"{key}: "):
        GaLoreConfig(lr=0.1, **changes)
