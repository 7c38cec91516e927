"""Three small pairs, two of them of one shape, and a loss that depends on W + scale B A alone."""

import torch
from torch import nn

from silotune.core import Key, Role

SHAPES = {"q": (7, 5), "up": (6, 9), "v": (7, 5)}
RANK, SCALE = 3, 1.5


def random(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


def pairs(*, zero=False, rank=RANK):
    """A and B of every site; B = 0 if asked, as at birth."""
    tensors = {}
    for i, (site, (out, into)) in enumerate(SHAPES.items()):
        tensors[Key(site, Role.A)] = nn.Parameter(random(i, rank, into))
        b = random(10 + i, out, rank) * (0.0 if zero else 0.5)
        tensors[Key(site, Role.B)] = nn.Parameter(b)
    return tensors


def refactored(tensors, seed=99):
    """(T^-1 A, B T), with another T for every site."""
    turned = {}
    for i, site in enumerate(SHAPES):
        a, b = tensors[Key(site, Role.A)].detach(), tensors[Key(site, Role.B)].detach()
        t = random(seed + i, a.shape[0], a.shape[0])
        turned[Key(site, Role.A)] = nn.Parameter(torch.linalg.solve(t, a))
        turned[Key(site, Role.B)] = nn.Parameter(b @ t)
    return turned


def products(tensors):
    """B A of every site."""
    return {s: (tensors[Key(s, Role.B)] @ tensors[Key(s, Role.A)]).detach().clone() for s in SHAPES}


def whole_gradient(site, product, scale=SCALE):
    """That of the loss with respect to W = W_0 + scale B A, at one site."""
    i = list(SHAPES).index(site)
    w = random(20 + i, *SHAPES[site]) + scale * product - random(30 + i, *SHAPES[site])
    return 0.1 * w + 0.02 * w**3


def set_gradients(tensors, roles=(Role.A, Role.B), scale=SCALE):
    """The chain rule: s B^T G and s G A^T for the roles that train, None for the others."""
    for site, product in products(tensors).items():
        a, b = tensors[Key(site, Role.A)], tensors[Key(site, Role.B)]
        g = whole_gradient(site, product, scale)
        a.grad = scale * b.detach().mT @ g if Role.A in roles else None
        b.grad = scale * g @ a.detach().mT if Role.B in roles else None


def train(optimizer, tensors, steps, phases=((Role.A, Role.B),), scale=SCALE):
    """The products after every step."""
    trajectory = []
    for t in range(steps):
        set_gradients(tensors, phases[t % len(phases)], scale)
        optimizer.step()
        trajectory.append(products(tensors))
    return trajectory


def difference(ours, theirs):
    """The largest, relative to how far the products ever went."""
    most = max(float(p.abs().max()) for step in theirs for p in step.values())
    return max(
        float((a[s] - b[s]).abs().max()) / most
        for a, b in zip(ours, theirs, strict=True)
        for s in a
    )
