"""FlexLoRA with unequal ranks: every client trains at alpha over its own rank.

The reference trains each client's own model by autograd, (W + alpha / r_i B A), sums the scaled
products, and cuts them by a dense SVD. It knows no shared scale.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.func import functional_call

from silotune.core import ClientId, Key, Role
from silotune.engine import federate
from silotune.methods import FlexLoRA, IncompatibleMethodError, LoRAPro
from silotune.optim import SGD, AdamW
from silotune.runtimes import InProcess
from toys import Toy, adapter, axes, begin, experiment, first_factors, notes, silos, trainer

RANKS = {ClientId("silo-0"): 1, ClientId("silo-1"): 2, ClientId("silo-2"): 4}
ALPHA, RATE, ROUNDS, STEPS, RECORDS = 6.0, 0.2, 3, 4, 12
SITES = {"up": "up.weight", "down": "down.weight"}
HEAD = ("classifier.weight", "classifier.bias")


def federated(**options):
    a = axes("flexlora", SGD(lr=RATE), adapter(rank=4, alpha=ALPHA), **options)
    clients = {
        name: replace(client, train=notes(RECORDS, i))
        for i, (name, client) in enumerate(silos(3, batch_size=RECORDS).items())
    }
    runtime = InProcess(trainer(a), clients)
    exp = experiment(a, runtime.clients(), rounds=ROUNDS, local_steps=STEPS, ranks=RANKS)
    *_, last = federate(exp, runtime, begin(a))
    scale = a.adapter.scale
    return {site: scale * last.state.factors.pair(site).dense() for site in SITES}


def trained(pairs, head, records, scale: float):
    """The scaled products and the head after a client's steps."""
    toy = Toy().double()
    batch = records.batch(range(RECORDS))
    free = {k: t.clone().requires_grad_() for k, t in head.items()}
    own = {s: [t.clone().requires_grad_() for t in pair] for s, pair in pairs.items()}
    moving = [*free.values(), *(t for pair in own.values() for t in pair)]
    for _ in range(STEPS):
        weights = dict(free)
        for site, (b, a) in own.items():
            added = scale * b @ a
            weights[SITES[site]] = toy.get_parameter(SITES[site]) + (
                added.T if site == "down" else added
            )
        inputs = (batch["input_ids"], batch["attention_mask"])
        found = functional_call(toy, weights, inputs)
        gradients = torch.autograd.grad(F.cross_entropy(found.logits, batch["labels"]), moving)
        with torch.no_grad():
            for t, g in zip(moving, gradients, strict=True):
                t.sub_(RATE * g)
    return {s: (scale * b @ a).detach() for s, (b, a) in own.items()}, {
        k: t.detach() for k, t in free.items()
    }


def reference():
    """What the model has learned at each site, scaled, (out, in)."""
    first = first_factors(adapter(rank=4, alpha=ALPHA))
    toy = Toy().double()
    head = {name: toy.get_parameter(name).detach() for name in HEAD}
    pairs = {s: (first[Key(s, Role.B)], first[Key(s, Role.A)]) for s in SITES}  # scaled by 1
    weights = torch.tensor([1.0, 2.0, 3.0]) / 6
    for _ in range(ROUNDS):
        ends = []
        for i, rank in enumerate(RANKS.values()):
            scale = ALPHA / rank
            own = {s: (b[:, :rank] / scale, a[:rank]) for s, (b, a) in pairs.items()}
            ends.append(trained(own, head, notes(RECORDS, i), scale))
        mean = {s: sum(w * e[0][s] for w, e in zip(weights, ends, strict=True)) for s in SITES}
        head = {k: sum(w * e[1][k] for w, e in zip(weights, ends, strict=True)) for k in HEAD}
        for site, product in mean.items():
            u, s, v = torch.linalg.svd(product)
            root = (
                s[:4] / (ALPHA / 4)
            ).sqrt()  # the shared adapter's pair is balanced at its scale
            pairs[site] = (u[:, :4] * root * (ALPHA / 4), root.unsqueeze(1) * v[:4])
    return {s: b @ a for s, (b, a) in pairs.items()}


def test_every_client_trains_at_the_scale_of_its_own_rank():
    expected, found = reference(), federated()
    for site, product in expected.items():
        torch.testing.assert_close(found[site], product, rtol=1e-9, atol=1e-10)


def test_the_shared_scale_is_another_method():
    expected, found = reference(), federated(rank_scale="shared")
    apart = [torch.linalg.norm(found[s] - expected[s]) / expected[s].norm() for s in SITES]
    assert min(apart) > 0.3


def test_where_all_ranks_are_the_shared_one_both_scales_are_one():
    a = axes("flexlora", SGD(lr=RATE), adapter(rank=4, alpha=ALPHA))
    assert (a.gain(None), a.gain(4), a.gain(1)) == (1.0, 1.0, 4.0)
    assert axes("flexlora", SGD(lr=RATE), rank_scale="shared").gain(1) == 1.0
    assert axes("flora", SGD(lr=RATE)).gain(1) == 1.0


def test_an_optimiser_that_divides_by_the_scale_needs_a_shared_one():
    own = LoRAPro(ranks={"a": 2}, aggregation=FlexLoRA())
    with pytest.raises(IncompatibleMethodError, match="rank_scale to shared"):
        own.axes(AdamW(lr=0.1), head=True)
    replace(own, aggregation=FlexLoRA(rank_scale="shared")).axes(AdamW(lr=0.1), head=True)
