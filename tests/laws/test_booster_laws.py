"""XGBLoRA's objective and its booster weight, against autograd on the weights themselves."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.func import functional_call

from silotune.aggregation import Fold
from silotune.core import ClientId, Key, Role
from silotune.engine import federate
from silotune.linalg import dense
from silotune.optim import SGD
from silotune.runtimes import InProcess
from toys import Toy, adapter, axes, begin, experiment, first_factors, notes, silos, trainer

RATE, STEPS, RECORDS, ALPHA = 0.2, 5, 12, 3.0
SITES = {"up": "up.weight", "down": "down.weight"}
LORA = adapter(rank=1, alpha=ALPHA)


def folded(**options) -> dict[str, torch.Tensor]:
    """One round of one silo, on all its records in every step."""
    a = axes("xgblora", SGD(lr=RATE), LORA, booster_layers=2, **options)
    (client,) = silos(1, records=RECORDS, batch_size=RECORDS).values()
    runtime = InProcess(trainer(a), {ClientId("silo-0"): client})
    exp = experiment(a, runtime.clients(), rounds=1, local_steps=STEPS)
    (done,) = federate(exp, runtime, begin(a))
    return {site: dense(done.state.folded[site]) for site in SITES}


def booster(penalty: float) -> dict[str, torch.Tensor]:
    """B A after the same steps on loss + penalty (|A|^2 + |B|^2)."""
    toy, first, batch = Toy().double(), first_factors(LORA), notes(RECORDS, 0).batch(range(RECORDS))
    head = {n: p.detach().clone() for n, p in toy.named_parameters() if "classifier" in n}
    pairs = {k: first[k].clone() for s in SITES for k in (Key(s, Role.A), Key(s, Role.B))}
    moving = [t.requires_grad_() for t in (*head.values(), *pairs.values())]
    for _ in range(STEPS):
        weights = dict(head)
        for site, name in SITES.items():
            added = ALPHA * pairs[Key(site, Role.B)] @ pairs[Key(site, Role.A)]
            weights[name] = toy.get_parameter(name) + (added.T if site == "down" else added)
        found = functional_call(toy, weights, (batch["input_ids"], batch["attention_mask"]))
        loss = F.cross_entropy(found.logits, batch["labels"])
        loss = loss + penalty * sum(t.square().sum() for t in pairs.values())
        gradients = torch.autograd.grad(loss, moving)
        with torch.no_grad():
            for t, g in zip(moving, gradients, strict=True):
                t.sub_(RATE * g)
    return {s: (pairs[Key(s, Role.B)] @ pairs[Key(s, Role.A)]).detach() for s in SITES}


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("weight", [1.0, 0.4])
def test_a_booster_is_trained_on_the_papers_objective_and_folded_with_its_weight(penalty, weight):
    found, expected = folded(penalty=penalty, booster_weight=weight), booster(penalty)
    for site, product in expected.items():
        torch.testing.assert_close(found[site], weight * product, rtol=1e-10, atol=1e-12)


def test_both_change_something():
    plain, shrunk = booster(0.0), booster(0.3)
    assert all(shrunk[s].norm() < 0.9 * plain[s].norm() for s in SITES)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_that_folds_nothing_is_refused(weight):
    with pytest.raises(ValueError, match="booster_weight: must be positive"):
        Fold(weight=weight)
