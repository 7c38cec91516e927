"""A core between two frozen factors: the formula, how it begins, and what is saved."""

import numpy as np
import pytest
import torch
from torch import nn

from silotune.adapters import Init, LoRASB, PeftLayout, load_peft, merge, save_peft
from silotune.core import Key, Role, Site
from toys import INNER, WIDTH, Toy, adapted, heads, notes, random_factors, sites

pytestmark = pytest.mark.usefixtures("double_precision")
CORE = LoRASB(rank=4, alpha=6.0)


def site(out=9, into=5):
    return Site("q", nn.Linear(into, out), into, out)


def logits(model, batch):
    return model(batch["input_ids"], batch["attention_mask"]).logits


@pytest.mark.parametrize("transposed", [False, True])
def test_the_forward_and_every_gradient_are_the_papers_formula(transposed):
    """y = W x + s B R A x and dR = s B^T (dL/dy) (A x)^T, by numpy, with alpha/r = 1.5."""
    model, factors = adapted(CORE), random_factors(CORE, 1)
    model.load(factors)
    name = "down" if transposed else "up"
    layer = model.layers[name]
    a, b, r = (factors[Key(name, role)].numpy() for role in (Role.A, Role.B, Role.R))
    w = layer.weight.numpy().T if transposed else layer.weight.numpy()
    n, into = 3, w.shape[1]
    x = torch.randn(n, 2, into, generator=torch.Generator().manual_seed(0)).double()
    back = torch.randn(n, 2, len(w), generator=torch.Generator().manual_seed(1)).double()
    expected = x.numpy() @ (w + 1.5 * b @ r @ a).T + layer.bias.detach().numpy()
    model.train_only({Role.R})
    with model.sink.collect(n) as rows:
        y = layer(x)
        (y * back).sum().backward()
        found = rows[Key(name, Role.R)].numpy()
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-12)
    of_r = 1.5 * np.einsum("or,nto,nti,si->nrs", b, back.numpy(), x.numpy(), a)
    np.testing.assert_allclose(found, of_r, rtol=1e-10, atol=1e-12)


def test_closed_open_beside_and_merged_agree():
    model, batch = adapted(CORE), notes(4).batch(range(4))
    model.load(random_factors(CORE, 2))
    model.train_only({Role.R, Role.HEAD})
    closed = logits(model.model, batch)
    with model.sink.collect(4):
        torch.testing.assert_close(logits(model.model, batch), closed)
        kept = [(layer, layer.forward) for layer in model.layers.values()]
        for layer, _ in kept:
            layer.forward = lambda x, own=layer: own._beside(x, 0.0)
        torch.testing.assert_close(logits(model.model, batch), closed)
    for layer, forward in kept:
        layer.forward = forward
    torch.testing.assert_close(logits(merge(model, heads(Toy().double())), batch), closed)


@pytest.mark.parametrize("init", [init for init in Init if not init.in_weight])
def test_it_begins_at_zero_between_public_factors(init):
    core, where = LoRASB(rank=3, init=init), site()
    born = core.initial_factors(where, 0)
    assert {role: tuple(t.shape) for role, t in born.items()} == {
        Role.A: (3, 5),
        Role.B: (9, 3),
        Role.R: (3, 3),
    }
    assert not born[Role.R].any()
    again = core.initial_factors(where, 0)
    assert all(torch.equal(again[role], t) for role, t in born.items())
    other = core.initial_factors(where, 1)[Role.A]
    assert core.seeded == (init is not Init.SVD) == (not torch.equal(born[Role.A], other))
    if init is not Init.KAIMING:
        eye = torch.eye(3, dtype=torch.float32)
        torch.testing.assert_close(born[Role.A] @ born[Role.A].T, eye, atol=1e-6, rtol=0)
        torch.testing.assert_close(born[Role.B].T @ born[Role.B], eye, atol=1e-6, rtol=0)


def test_singular_vectors_are_those_of_the_base_weight():
    where = site()
    born = LoRASB(rank=3, init=Init.SVD).initial_factors(where, 0)
    u, s, v = np.linalg.svd(where.module.weight.detach().double().numpy())
    best = u[:, :3] * s[:3] @ v[:3]
    found = born[Role.B].double() * torch.from_numpy(s[:3]) @ born[Role.A].double()
    np.testing.assert_allclose(found.numpy(), best, atol=1e-6)


def test_a_rank_that_does_not_fit_names_the_site():
    for init in (Init.ORTHONORMAL, Init.SVD):
        with pytest.raises(ValueError, match=r"^r: q "):
            LoRASB(rank=6, init=init).initial_factors(site(), 0)


def test_what_is_saved_computes_the_same_and_reads_back(tmp_path):
    """PEFT knows pairs alone: what it loads is B R and A."""
    factors, places = random_factors(CORE, 3), sites(Toy())
    layout = PeftLayout(
        base_model="toy",
        task_type=None,
        target_modules=("up", "down"),
        modules_to_save=("classifier",),
        head_scale=1.0,
    )
    save_peft(tmp_path, factors.map(lambda t: t.float()), CORE, places, layout)
    expected = {key: tuple(t.shape) for key, t in factors.items()}
    read, folded = load_peft(tmp_path, expected, CORE, 1.0)
    assert not folded
    for name, shape in (("up", (INNER, WIDTH)), ("down", (WIDTH, INNER))):
        b, r, a = (factors[Key(name, role)] for role in (Role.B, Role.R, Role.A))
        assert read.pair(name).shape == shape
        torch.testing.assert_close(read.pair(name).dense().double(), b @ r @ a, atol=1e-5, rtol=0)
